"""Checksums of a saved student or checkpoint: safetensors notices a file that was cut short, but no changed bit."""

import json
from fnmatch import fnmatch
from pathlib import Path

import xxhash

from hf_lelp.storage.files import write_atomically

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
    found = {name: _file_checksum(path) for name, path in files.items() if fnmatch(path.name, names)}
    write_atomically(folder / CHECKSUMS_NAME, lambda path: path.write_text(json.dumps(found, indent=1) + "\n"))


def check_checksums(folder: Path) -> None:
    """Compare the folder's files with its checksums.json, where it has one; files that are not named there may differ.

    Raises:
        ValueError: naming the first file that is missing or changed.
    """
    if not (folder / CHECKSUMS_NAME).is_file():
        return
    try:
        expected = json.loads((folder / CHECKSUMS_NAME).read_text(encoding="utf-8"))
        named = expected.items()
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{folder / CHECKSUMS_NAME} cannot be read ({error}): it is damaged.") from error
    # Names are looked up among the folder's files, never opened: a forged one may lead elsewhere.
    files = _files(folder)
    for name, value in named:
        if name not in files or _file_checksum(files[name]) != value:
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


def _file_checksum(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while part := file.read(2**22):
            digest.update(part)
    return digest.hexdigest()
