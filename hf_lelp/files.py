"""Writing files so that a reader never sees half of one."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


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
        except FileNotFoundError:  # another process was faster
            continue
