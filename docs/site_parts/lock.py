"""Print requirements-docs.lock from pip's report: what the site needs beside requirements.lock, with hashes.

python docs/site_parts/lock.py REPORT
"""

import json
import re
import sys
from pathlib import Path

HEADER = """\
# What the site (`make docs`) needs beside requirements.lock, exact, with hashes; no wheel is of one platform.
# Written by 'make lock'; do not edit by hand."""


def main(report: str) -> None:
    """Print a line for each package that requirements.lock does not have."""
    names = re.findall(r"^([\w.-]+)==", Path("requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    known = {_normal(name) for name in names} | {"hf-lelp"}
    print(HEADER)
    packages = json.loads(Path(report).read_text(encoding="utf-8"))["install"]
    for package in sorted(packages, key=lambda package: _normal(package["metadata"]["name"])):
        name = _normal(package["metadata"]["name"])
        if name not in known:
            sha256 = package["download_info"]["archive_info"]["hashes"]["sha256"]
            print(f"{name}=={package['metadata']['version']} --hash=sha256:{sha256}")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1])
