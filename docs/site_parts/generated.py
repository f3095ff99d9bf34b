"""Write the pages that the code says all of: one for each part of the package, the settings, the commands.

They go to docs/reference/generated, which git ignores, whenever the site is built. Notebooks become pages too.
"""

import ast
import io
import json
from contextlib import redirect_stdout, suppress
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from sphinx.application import Sphinx
from transformers import TrainingArguments

import hf_lelp
from hf_lelp.__main__ import COMMANDS
from hf_lelp.config import LELPConfig
from site_parts import figures

PACKAGE = Path(hf_lelp.__file__).parent
NOT_SHOWN = {"__main__", "columns", "templates"}  # the program has a page of its own; an earlier name
ARGUMENTS = {"args", "arguments", "config", "settings"}  # names that hold a LELPConfig
CHANGES = {
    "columns": "the teacher's columns",
    "directions": "the directions that are fitted",
    "subclasses": "the targets of the subclasses",
    "loss": "the loss",
    "training": "how the student is trained",
    "nothing": "nothing",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the files before Sphinx looks for pages."""
    app.connect("config-inited", lambda app, _: write(Path(app.srcdir)))
    app.connect("source-read", _links_of_the_site)
    return {"parallel_read_safe": True}


def _links_of_the_site(app: Sphinx, page: str, source: list[str]) -> None:
    """Let links to CONTRIBUTING.md, where GitHub has it, lead to its page of the site."""
    source[0] = source[0].replace("../../CONTRIBUTING.md#", "contributing.md#")


def write(docs: Path) -> None:
    """Write every file that differs from what is there: Sphinx reads pages again that are newer."""
    folder = docs / "reference" / "generated"
    pages = {folder / f"{name}.md": module_page(name) for name in parts()}
    pages |= {folder / "settings.txt": settings(), folder / "commands.txt": commands()}
    pages |= {path.with_suffix(".md"): notebook_page(path) for path in docs.glob("tutorials/*.ipynb")}
    folder.mkdir(parents=True, exist_ok=True)
    figures.draw(folder)
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def parts() -> list[str]:
    """The modules and folders at the top of the package."""
    return sorted(module.name for module in iter_modules([str(PACKAGE)]) if module.name not in NOT_SHOWN)


def module_page(name: str) -> str:
    """A page of a part: its docstring, then all public classes and functions of its modules."""
    part = import_module(f"hf_lelp.{name}")
    modules = [part.__name__]
    if hasattr(part, "__path__"):
        modules = [part.__name__, *_modules_below(part)]
    blocks = [f"```{{eval-rst}}\n.. automodule:: {modules[0]}\n```"]
    for module in modules[1:]:
        blocks.append(f"## {module.removeprefix('hf_lelp.')}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```")
    return "\n\n".join([f"# hf_lelp.{name}", *blocks]) + "\n"


def _modules_below(part: Any) -> list[str]:
    found: list[str] = []
    for module in iter_modules(part.__path__, f"{part.__name__}."):
        if not module.name.endswith("__main__"):
            found += [module.name, *(_modules_below(import_module(module.name)) if module.ispkg else [])]
    return found


def settings() -> str:
    """Every setting of LELP with its default, what it is, what it changes, and which modules read it."""
    inherited = {item.name for item in fields(TrainingArguments)}
    readers = _readers()
    found = []
    for item in fields(LELPConfig):
        if item.name not in inherited:
            read = ", ".join(f"`{module}`" for module in sorted(readers.get(item.name, ()))) or "–"
            found.append(
                f"## {item.name}\n\n{item.metadata['help']}\n\n- Default: `{item.default!r}`\n"
                f"- Changes: {CHANGES[item.metadata['changes']]}\n- Read by: {read}"
            )
    return "\n\n".join(found) + "\n"


def _readers() -> dict[str, set[str]]:
    """For each attribute of a LELPConfig the modules that read it."""
    readers: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                holder = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                if holder in ARGUMENTS or (module == "config" and holder == "self"):
                    readers.setdefault(node.attr, set()).add(module)
    return readers


def commands() -> str:
    """The help of each command, as the program prints it."""
    found = []
    for command, (module, what) in COMMANDS.items():
        said = io.StringIO()
        with redirect_stdout(said), suppress(SystemExit):
            import_module(module).PROGRAM.parse(["--help"], f"hf-lelp {command}")
        shown = f"```text\n{said.getvalue().rstrip()}\n```"
        found.append(f"## hf-lelp {command}\n\n{what[0].upper()}{what[1:]}.\n\n{shown}")
    return "\n\n".join(found) + "\n"


def notebook_page(path: Path) -> str:
    """The cells of a notebook as a page, with a link to the file, and its figure behind the cell that draws it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    figure = path.with_suffix(".png").name
    blocks = []
    for cell in cells:
        text = "".join(cell["source"])
        blocks.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        if f'savefig("{figure}"' in text:
            blocks.append(f"![What this run drew]({figure})")
            blocks.append("`python docs/site_parts/tutorials.py` ran the notebook and kept this figure.")
    blocks.insert(1, f"{{download}}`Take the notebook <{path.name}>`")
    return "\n\n".join(blocks) + "\n"
