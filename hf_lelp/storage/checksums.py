"""Checksums of a saved student or checkpoint: safetensors notices a file that was cut short, but no changed bit."""

import hashlib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import xxhash

from hf_lelp.storage.files import read_json, write_json

CHECKSUMS_NAME = "checksums.json"
WEIGHTS = "*model*.safetensors"  # of a student; its other files are for people to change, and to save again


def write_checksums(folder: Path, names: str = "*", of: Path | None = None) -> None:
    """Write checksums.json: for every file of a folder but cards, by its relative path, the xxh3-128 of its bytes.

    Args:
        folder: where it goes.
        names: pattern of the files that are meant.
        of: their folder, where it is another.
    """
    files = _files(of or folder)
    found = {name: checksum(path) for name, path in files.items() if fnmatch(path.name, names)}
    write_json(folder / CHECKSUMS_NAME, found, indent=1)


def check_checksums(folder: Path) -> None:
    """Compare the folder's files with its checksums.json, where it has one; files that are not named there may differ.

    Raises:
        ValueError: naming the first file that is missing or changed.
    """
    if not (folder / CHECKSUMS_NAME).is_file():
        return
    named = read_json(folder / CHECKSUMS_NAME).items()
    # Names are looked up among the folder's files, never opened: a forged one may lead elsewhere.
    files = _files(folder)
    for name, value in named:
        if name not in files or checksum(files[name]) != value:
            state = "is not the one that was saved" if name in files else "is missing"
            raise ValueError(
                f"{folder}: {name} {state}, by {CHECKSUMS_NAME}. It is damaged, or was changed since. Take another"
                f" copy; if you changed it yourself, take its line out of {CHECKSUMS_NAME}."
            )


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        # Those that start with a dot or "_new-" are temporary; see files.py.
        if path.is_file()
        and path.name not in (CHECKSUMS_NAME, "README.md")  # a card may be edited
        and not any(part.startswith((".", "_new-")) for part in path.relative_to(folder).parts)
    }


def checksum(file: Path, kind: Callable[[], Any] = xxhash.xxh3_128) -> str:
    """Hash of a file's bytes, by any of hashlib's or xxhash's kinds."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()
