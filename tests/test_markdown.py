"""Names from the data as Markdown and HTML: what a reader sees is the name, and nothing else happens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_lelp.cli.groups import group_table
from hf_lelp.markdown import cell, escape, markdown_table, printable

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](https://example.com/pixel.png)",
    "https://example.com",
    "a | b | c",
    "`code` | **bold** | _thin_",
    "# heading\n\n---\n- list",
    "&lt;b&gt; &#60;",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe",
    "\\| \\` $x$ ~~no~~",
    "{{ 7 * 7 }} {% raw %}",
]
TEXTS = st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8"), max_size=40)
MARKUP = {"html_inline", "html_block", "link_open", "image", "code_inline", "em_open", "strong_open", "heading_open"}


def rendered(markdown: str) -> tuple[list[str], set[str]]:
    """Cells of the body of a table, as text, and the types of all tokens."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    parts = [child for token in tokens for child in (token.children or [])]
    body = [token for token in tokens if token.type == "inline"]
    cells = ["".join(child.content for child in token.children or []) for token in body]
    return cells, {token.type for token in [*tokens, *parts]}


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(name=TEXTS)
@pytest.mark.parametrize("made_safe", [escape, cell])
def test_a_table_shows_any_name_and_nothing_else(made_safe: object, name: str) -> None:
    assert callable(made_safe)
    table = markdown_table(["", "value"], [["first", "1"], [f"x{made_safe(name)}x", "2"]])
    cells, types = rendered(table)
    assert not types & MARKUP
    assert cells == ["", "value", "first", "1", f"x{printable(name)}x", "2"]


def test_groups_and_classes_of_a_report() -> None:
    classes = {name: {"counts": [[1, 2], [3, 4]], "adjusted_mutual_information": 0.5} for name in HOSTILE[:3]}
    table, _, scores = group_table({"groups": HOSTILE[3:5], "classes": classes}).partition("\n\n")
    cells, types = rendered(table)
    assert not types & MARKUP and len(cells) == 4 + 4 * 9
    assert cells[2:4] == HOSTILE[3:5] and cells[4] == f"{HOSTILE[0]}, all"
    assert not rendered(scores)[1] & MARKUP


def test_no_control_character_reaches_a_terminal() -> None:
    for name in HOSTILE:
        assert all(character.isprintable() for character in printable(name))
    assert printable("a\x1b[2J\u202e\x00b\n c") == "a[2Jb c"
