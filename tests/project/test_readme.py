"""README.md stays short, and its tree of the package is the one on disk."""

import ast
import re

import pytest
from places import ROOT

PACKAGE = ROOT / "hf_lelp"
MOST_LINES = 150
# In the README's tree: the package alone on a line, then a name, two or more spaces, and a phrase on each.
TREE = re.compile(r"^ *hf_lelp/\n((?: +\S+ {2,}\S.*\n)+)", re.MULTILINE)


def tree() -> dict[str, str]:
    """The phrase of each file and folder in the README's tree; a folder's name ends in a slash."""
    found = TREE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found is not None, "README.md has no tree of hf_lelp/"
    lines = [re.split(r" {2,}", line.strip(), maxsplit=1) for line in found[1].splitlines()]
    names = [name for name, _ in lines]
    assert len(set(names)) == len(names), names
    return {name: phrase for name, phrase in lines}


def folders() -> set[str]:
    return {f"{path.name}/" for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_the_tree_names_what_is_on_disk() -> None:
    assert tree().keys() == {path.name for path in PACKAGE.glob("*.py")} | folders()


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_the_phrase_of_a_folder_is_its_docstring(folder: str) -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8")))
    assert docstring is not None and docstring.endswith(".") and "\n" not in docstring
    assert tree()[f"{folder}/"] == docstring[0].lower() + docstring[1:-1]


def test_every_package_of_the_library_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []
