"""Markdown: tables, templates of cards, and text from data that is shown as it is and does nothing more."""

import re
import unicodedata
from pathlib import Path

import numpy as np


def escape(text: object) -> str:
    """Text as Markdown and HTML that shows it and does nothing else: what could be markup or an address, by number."""
    markup = r"""[!"#$&*:;<>@\[\\\]^_`{|}~]|(?<!\d)\.|\.(?!\d)"""
    return re.sub(markup, lambda found: f"&#{ord(found[0])};", printable(str(text)))


def cell(text: object) -> str:
    """Text for a Markdown table that is read in a terminal too: backslashes before what could be markup."""
    return re.sub(r"([\\`*_<>\[\]&|~$])", r"\\\1", printable(str(text)))


def printable(text: str) -> str:
    """On one line, without control characters or those that turn the direction of writing."""
    text = " ".join(text.split())
    return "".join(character for character in text if unicodedata.category(character)[0] != "C")


def markdown_table(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table with aligned columns, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *map(line, body)])


def half_interval(accuracies: list[float], rows: int) -> float:
    """Half the width of the widest of the accuracies' normal 95% intervals, each measured on `rows` examples."""
    return max(1.96 * float(np.sqrt(p * (1 - p) / rows)) for p in accuracies)


def template(name: str) -> str:
    """The text of a file in hf_lelp/templates."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
