"""Writes and compares checksums of a saved student or checkpoint.

safetensors notices a file that was cut short, but no changed bit.
"""

import hashlib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import xxhash

from hf_lelp.storage.files import read_json, write_json

CHECKSUMS_NAME = "checksums.json"
# transformers puts this file into a checkpoint that it makes on SIGTERM, and removes it when all is written.
UNFINISHED_NAME = "checkpoint-is-incomplete.txt"
WEIGHTS = "*model*.safetensors"  # of a student; people may change its other files and save them again


def write_checksums(folder: Path, names: str = "*", of: Path | None = None) -> None:
    """Write checksums.json: the xxh3-128 of the bytes of every file but cards, by its relative path.

    Args:
        folder: where checksums.json goes.
        names: pattern of the names of the files to include.
        of: folder of these files, where it is another.
    """
    files = _files(of or folder)
    found = {name: checksum(path) for name, path in files.items() if fnmatch(path.name, names)}
    write_json(folder / CHECKSUMS_NAME, found, indent=1)


def check_checksums(folder: Path) -> None:
    """Compare a folder's files with its checksums.json, where it has one; files that it does not name may differ.

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


def file_states(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file that `write_checksums` would name, which tell whether any changed."""
    states = {name: path.stat() for name, path in _files(folder).items()}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        # Those that start with a dot or "_new-" are temporary; see files.py.
        if path.is_file()
        and path.name not in (CHECKSUMS_NAME, UNFINISHED_NAME, "README.md")  # a card may be edited
        and not any(part.startswith((".", "_new-")) for part in path.relative_to(folder).parts)
    }


def checksum(file: Path, kind: Callable[[], Any] = xxhash.xxh3_128) -> str:
    """Hash a file's bytes, by any of hashlib's or xxhash's kinds."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()
