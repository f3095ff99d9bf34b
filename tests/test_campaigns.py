"""A slice of the campaigns of docs/reliability.md, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def campaign(name: str, output: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--output", str(output), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(output.read_text())
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for threads in /proc before it forks")
def test_killed_stages_end_where_undisturbed_ones_do(tmp_path: Path) -> None:
    found = campaign("kills", tmp_path / "kills.json", "--only", "fit", "saving", "training", "--kills", "1")["stages"]
    assert {name: (result["kills"], result["same_result"]) for name, result in found.items()} == {
        "fit": (1, 1),
        "saving": (1, 1),
        "training": (1, 1),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
def test_loaders_refuse_what_is_not_whole(tmp_path: Path) -> None:
    found = campaign("fuzz", tmp_path / "fuzz.json", "--inputs", "30", "--seed", "1")
    assert found["inputs"] == 30 * len(found["loaders"]) and found["memory_grown_mb"] < 1024
    assert all(result["refused"] and not result["failures"] for result in found["loaders"].values())
