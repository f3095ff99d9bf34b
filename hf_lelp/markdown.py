"""Writes Markdown: tables, templates of cards, and text from data, escaped so that it is only shown."""

import re
import unicodedata
from pathlib import Path

import numpy as np

TEMPLATES = Path(__file__).parent / "templates"


def escape(text: object) -> str:
    """Escape text so that Markdown and HTML only show it: possible markup and addresses become numeric references.

    What is no markup where it stands keeps its sign: `_` within a word, the dot of a data file's name, a colon before a
    space.
    """
    markup = r"""[$&*<>@\[\\\]`|~]|^[#!]|:(?! |$)|(?<!\w)_|_(?!\w)"""
    markup += r"""|(?<!\d)\.(?!(?:csv|tsv|jsonl?|parquet|txt)\b)|\.(?!\d|(?:csv|tsv|jsonl?|parquet|txt)\b)"""
    return re.sub(markup, lambda found: f"&#{ord(found[0])};", printable(str(text)))


def cell(text: object) -> str:
    """Escape text for a Markdown table that is also read in a terminal: a backslash precedes possible markup."""
    return re.sub(r"([\\`*_<>\[\]&|~$])", r"\\\1", printable(str(text)))


def printable(text: str) -> str:
    """Put text on one line, without control characters or those that change the direction of writing."""
    text = " ".join(text.split())
    return "".join(character for character in text if unicodedata.category(character)[0] != "C")


def markdown_table(header: list[str], body: list[list[str]]) -> str:
    """Format a Markdown table with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *map(line, body)])


def half_interval(accuracies: list[float], rows: int) -> float:
    """Half the width of the widest normal 95% interval of the accuracies, each measured on `rows` examples."""
    return max(1.96 * float(np.sqrt(p * (1 - p) / rows)) for p in accuracies)


def template(name: str) -> str:
    """Read the text of a file in hf_lelp/templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")
