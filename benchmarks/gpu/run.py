"""Runs the stages, each in a process of its own with a time budget, and keeps what each gave.

A process of its own, because an error of CUDA ends all that a process could do with the GPU, and because settings such
as TF32 last. What fails is named in the results, beside what did not; so is a stage that its budget ended.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import datasets

from benchmarks.gpu import teaching, training
from benchmarks.gpu.sizes import FULL, SMALL, Sizes, device
from benchmarks.gpu.stage import Case
from benchmarks.places import ROOT
from benchmarks.speed.common import machine

MARK = "benchmarks.gpu: "  # begins the lines of a stage's output that are results


class Stage(NamedTuple):
    """Its cases, and the seconds that its process may take. All together take less than eight minutes."""

    cases: Callable[[Sizes], Iterator[Case]]
    budget: float


STAGES = {
    "agreement": Stage(teaching.agreement, 50),
    "step": Stage(training.step, 100),
    "pass": Stage(teaching.passes, 110),
    "load": Stage(training.load, 30),
    "compiled": Stage(training.compiled, 90),
    "resume": Stage(training.resume, 40),
    "auto": Stage(training.auto, 40),
}


def run_here(name: str, small: bool, say: Callable[[str], object]) -> None:
    """Run a stage in this process, and say each result as a line: the machine, then the rows, or why there is none."""
    datasets.disable_progress_bars()
    for case, job in STAGES[name].cases(SMALL if small else FULL):
        try:
            found: dict[str, Any] = {"row": {"case": case, **job()}}
        except Exception as error:  # the other cases may do
            found = {"failed": {case: f"{type(error).__name__}: {error}"}}
        say(MARK + json.dumps({"machine": machine(), **found}))


def run_apart(name: str, small: bool, budget: float) -> dict[str, Any]:
    """Run a stage in a process of its own, and return what it said until its end or that of its budget."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--stage", name, *(["--small"] if small else [])]
    start = time.perf_counter()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # one GPU a process is what the library takes
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": visible},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=budget)
        end = f"it ended with code {process.returncode}: {errors[-500:]}" if process.returncode else None
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        end = f"it was not done after {budget:g} s"
    return gathered(name, output.splitlines(), end, time.perf_counter() - start)


def gathered(name: str, lines: list[str], end: str | None, seconds: float) -> dict[str, Any]:
    """A stage's results from the lines that it said, and how it ended if not by itself."""
    said = [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]
    failed = {case: words for one in said for case, words in one.get("failed", {}).items()}
    return {
        "stage": name,
        "what": (STAGES[name].cases.__doc__ or "").strip().splitlines()[0],
        "seconds": seconds,
        "machine": said[0]["machine"] if said else "",
        "rows": [one["row"] for one in said if "row" in one],
        "failed": failed | ({"the stage": end} if end else {}),
    }


def refuse_without_gpu(small: bool) -> None:
    if not small and device().type == "cpu":
        sys.exit("No GPU is there, and the results are a GPU's. --small tries every stage on a CPU, and keeps nothing.")
