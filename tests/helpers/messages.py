"""Every message of the library's errors and of its log, read from its source; and what the tests say of messages."""

import ast
import re
from pathlib import Path

from places import TESTS

import hf_lelp

PACKAGE = Path(hf_lelp.__file__).parent
TABLE = PACKAGE.parent / "docs" / "reference" / "errors.md"
LOGS = re.compile(r"logger\.(info|warning)|_?warn_once")
VALUE = "…"  # stands for what is filled in


def raised() -> dict[str, str]:
    """Of every `raise` with a message of its own: its place, and the message with … for values."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                found[f"{path.relative_to(PACKAGE.parent).as_posix()}:{node.lineno}"] = _template(node.exc.args[0])
    return found


def logged() -> dict[str, str]:
    """Of every line that the library logs: its place, and the line with … for values."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and LOGS.fullmatch(ast.unparse(node.func)):
                found[f"{path.relative_to(PACKAGE.parent).as_posix()}:{node.lineno}"] = _template(node.args[0])
    return found


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return VALUE


def rows() -> list[tuple[str, str, str]]:
    """What it says, why, what to do: the rows of docs/reference/errors.md."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines if line.startswith("| `")]
    assert all(len(row) == 3 for row in cells), [row for row in cells if len(row) != 3]
    return [(said.strip("` "), why.strip(), do.strip()) for said, why, do in cells]


def asserted() -> list[str]:
    """The strings in the tests, without the backslashes of regular expressions: what they expect of messages."""
    strings = []
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings:
                strings.append(re.sub(r"\\(?=[^\w\s])", "", _template(node)))
    return strings
