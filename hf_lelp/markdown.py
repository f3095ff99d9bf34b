"""Text from data, names and settings in Markdown and HTML: shown as it is, and nothing more."""

import re
import unicodedata


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
