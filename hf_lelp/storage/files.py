"""Writing files so that a reader never sees half of one."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename: `path` is whole or not there.

    Args:
        path: the file to make; its folder is made too.
        write: writes the file at the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(descriptor)
    try:
        write(Path(temporary))
        # mkstemp makes files that only their owner can read; a saved artefact has the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(file: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def write_json(file: Path, content: Mapping[str, Any], indent: int | None = 2) -> None:
    """Write a dictionary as JSON, whole or not at all."""
    write_text(file, json.dumps(content, indent=indent) + "\n")


def read_json(file: Path) -> dict[str, Any]:
    """Read a dictionary from JSON.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read ({error}): it is damaged.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} cannot be read (it holds a {type(found).__name__}): it is damaged.")
    return found


def remove_leftovers(folder: Path, age: float = 3600.0) -> None:
    """Remove what writers that were killed left in a folder: hidden entries older than `age` seconds.

    A temporary file of `write_atomically` is there for a moment; one of this age belongs to nobody any more.

    Args:
        folder: nothing below its own entries is looked at.
        age: in seconds.
    """
    for path in folder.glob(".*"):
        try:
            if time.time() - path.stat().st_mtime > age:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:  # another process was faster; or it is another user's, or in use
            continue


@contextmanager
def new_files(folder: Path, last: str | None = None) -> Iterator[Path]:
    """A temporary folder for files that belong together; after the block they go to `folder`, if it fails none does.

    They cannot all appear at one moment. The one called `last` goes away before the others are replaced and comes after
    them, so that old files and new are never found together with it: let it be the file that a reader starts from.

    Args:
        folder: where they go; it is made where it is missing, and other files in it stay.
        last: name of one of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # By its name (_*) Trainer's uploads pass over what a killed process leaves.
    with tempfile.TemporaryDirectory(dir=folder, prefix="_new-") as name:
        temporary = Path(name)
        yield temporary
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        if last is not None and temporary / last in files:
            (folder / last).unlink(missing_ok=True)
        for path in sorted(files, key=lambda path: path == temporary / (last or "")):
            target = folder / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def check_writable(folder: Path) -> None:
    """Find out before long work, and not after it, whether its results can be kept.

    Raises:
        ValueError: if no file can be made in `folder`, or where the folder would be made.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(f"Nothing can be written to {folder} ({error.strerror}). Choose another folder.") from error
