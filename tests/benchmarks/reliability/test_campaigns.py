"""A slice of the campaigns of docs/understand/reliability.md, each in a process of its own."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from benchmarks.reliability.fuzz import _watch, outcome
from benchmarks.reliability.fuzz_targets import Target
from hf_lelp import ClassProjections


def campaign(name: str, output: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.reliability.{name}", "--output", str(output), *options]
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
    assert not any(result["failures"] for result in found["loaders"].values())
    assert found["loaders"].pop("teacher's shards")["the same"] == 30  # made again where they are not whole
    assert all(result["refused"] for result in found["loaders"].values())


def harmless(folder: Path) -> str:
    return (folder / "file").read_text()


def opens_another(folder: Path) -> str:
    return (folder.parent / "outside").read_text()


def unpickles(folder: Path) -> Any:
    return pickle.loads(pickle.dumps(Path("x")))


def loses_its_words(folder: Path) -> Any:
    return {}["a key"]


def lets_another_speak(folder: Path) -> Any:
    return int("no number")


def lets_the_system_speak(folder: Path) -> str:
    return (folder / "nowhere").read_text()


def refuses(folder: Path) -> Any:
    return ClassProjections.from_pretrained(folder)


def takes_no_notice(folder: Path) -> str:
    return "something else"


@pytest.mark.parametrize(
    ("load", "found"),
    [
        (harmless, "the same"),
        (opens_another, "Breach: .*outside was opened"),
        (unpickles, "Breach: pickle.find_class"),
        (loses_its_words, "KeyError"),
        (lets_another_speak, "ValueError: invalid literal"),
        (lets_the_system_speak, "FileNotFoundError: .*No such file"),
        (refuses, "refused"),
        (takes_no_notice, "another"),
    ],
)
def test_the_watch_over_the_loaders_sees_what_they_do(tmp_path: Path, load: Callable[[Path], Any], found: str) -> None:
    watching()
    (tmp_path / "artefact").mkdir()
    for file in (tmp_path / "outside", tmp_path / "artefact" / "file"):
        file.write_text("content")
    target = Target("a loader", 1, harmless, load, ("file",))
    assert re.match(found, outcome(target, tmp_path / "artefact", "content"))


@cache
def watching() -> None:
    sys.addaudithook(_watch)
