"""The shape of the package: small files, short functions, few modules a folder; earlier names that still serve."""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

import hf_lelp

PACKAGE = ROOT / "hf_lelp"
MODULES = sorted(PACKAGE.rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def lines_of_code(function: ast.FunctionDef, source: list[str]) -> int:
    """Lines of its body but for the docstring, comments and blank ones."""
    first, *others = function.body
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    start = others[0].lineno if is_docstring and others else first.lineno
    lines = (source[number - 1].strip() for number in range(start, (function.end_lineno or 0) + 1))
    return sum(bool(line) and not line.startswith("#") for line in lines)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8").splitlines()
    assert len(source) <= 500
    long = {function.name: lines_of_code(function, source) for function in functions(ast.parse("\n".join(source)))}
    assert {name: lines for name, lines in long.items() if lines > 60} == {}


def test_the_trainer_s_constructor_is_short() -> None:
    source = (PACKAGE / "trainer.py").read_text(encoding="utf-8")
    trainer = next(node for node in ast.parse(source).body if getattr(node, "name", "") == "LELPTrainer")
    constructor = next(function for function in functions(trainer) if function.name == "__init__")
    assert lines_of_code(constructor, source.splitlines()) <= 40 + len(
        constructor.args.args + constructor.args.kwonlyargs
    )


def test_a_folder_holds_three_to_nine_modules() -> None:
    folders = {path.parent for path in MODULES} - {PACKAGE}
    counts = {
        folder.relative_to(PACKAGE).as_posix(): sum(not path.stem.startswith("__") for path in folder.glob("*.py"))
        for folder in folders
    }
    assert len(counts) >= 9 and {name: count for name, count in counts.items() if not 3 <= count <= 9} == {}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("hf_lelp", "LELPConfig LELPTrainer Teacher ClassProjections TeacherLike load_student"),
        ("hf_lelp.config", "LELPConfig"),
        ("hf_lelp.metrics", "FewClassMetrics compute_metrics few_class_metrics"),
    ],
)
def test_public_names_stay_where_they_are(module: str, name: str) -> None:
    for each in name.split():
        assert hasattr(importlib.import_module(module), each)
    # training_args.bin names the class by its module.
    assert hf_lelp.LELPConfig.__module__ == "hf_lelp.config"
    assert (PACKAGE / "student" / "modeling_lelp.py").is_file()


def test_a_name_that_moved_serves_for_one_release_more() -> None:
    sys.modules.pop("hf_lelp.columns", None)
    from hf_lelp.teacher.columns import teacher_columns

    with pytest.warns(DeprecationWarning, match=r"is hf_lelp\.teacher\.columns\.teacher_columns now"):
        from hf_lelp.columns import teacher_columns as forwarded  # type: ignore[attr-defined]
    assert forwarded is teacher_columns
    with pytest.raises(ImportError):
        from hf_lelp.columns import run_teacher  # type: ignore[attr-defined]  # noqa: F401
