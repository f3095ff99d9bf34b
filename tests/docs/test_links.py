"""Links between files lead somewhere as GitHub shows them; those of the site are checked as it is built."""

import re
from pathlib import Path

import pytest
from places import ROOT

MARKDOWN = re.compile(r"!?\[[^\]]*\]\((?!https?://|mailto:)([^)\s]*)\)")
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
MADE_WITH_THE_SITE = ROOT / "docs" / "reference" / "generated"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]


def pages() -> list[Path]:
    found = [path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "generated"} & {*path.parts}]
    return sorted([*TOP, *found, *(ROOT / "model_cards").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a file."""
    text = CODE.sub(lambda found: found[0] if "\n" not in found[0] else "", path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(anchor if anchor not in found else f"{anchor}-1")
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    nowhere = []
    for link in MARKDOWN.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if MADE_WITH_THE_SITE in (target, *target.parents):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            nowhere.append(link)
    assert nowhere == []
