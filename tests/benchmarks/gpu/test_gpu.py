"""Every stage of the GPU benchmark with tiny models on a CPU, one that fails, and one that takes too long."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from benchmarks.gpu import __main__ as program
from benchmarks.gpu import run, teaching
from benchmarks.gpu.sizes import SMALL, Sizes
from benchmarks.gpu.stage import Case
from benchmarks.speed import page


def lines_of(name: str) -> list[str]:
    lines: list[str] = []
    run.run_here(name, True, lines.append)
    return lines


def in_this_process(name: str, small: bool, budget: float) -> dict[str, Any]:
    """In place of a process of its own, which would import for seconds."""
    assert small and budget > 0
    return run.gathered(name, lines_of(name), None, 1.0)


def two_cases(size: Sizes) -> Iterator[Case]:
    """One of two cases fails."""
    yield "a", lambda: {"ms": float(size.steps)}
    yield "b", lambda: {"ms": 1 / 0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="its rows are those of a CPU")
def test_every_stage_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_apart", in_this_process)
    # To compile takes longer than all else here, and tests/trainer does it.
    monkeypatch.setattr(run, "SMALL", replace(SMALL, compiled=()))
    program.main(small=True, folder=tmp_path)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "no GPU" in found["machine"] and [stage["stage"] for stage in found["stages"]] == [*run.STAGES]
    assert {case: words for stage in found["stages"] for case, words in stage["failed"].items()} == {}
    rows = {stage["stage"]: stage["rows"] for stage in found["stages"]}
    assert {len(rows["step"]), len(rows["agreement"])} == {4} and len(rows["resume"]) == len(rows["load"]) == 2
    assert all(row["ratio"] > 0 < row["LELP, peak MB"] for row in [*rows["step"], *rows["compiled"]])
    # On a CPU the GPU's side is the CPU's, and what resumes ends as what was not stopped.
    checked = [*rows["agreement"], *rows["resume"]]
    assert all(row["within"] == "yes" for row in checked) and rows["auto"][0]["trials"] == 4
    assert [row["case"] for row in checked if row["largest difference"] > 0] == ["teacher, bfloat16"]
    assert all(row["ours, texts/s"] > 0 and row["ours, busy %"] == "–" for row in rows["pass"])
    shown = page.filled("<!-- table: gpu -->\nnone yet\n<!-- end -->\n", tmp_path)
    assert "none yet" not in shown and "| fp16, subclass, 8 " in shown and "**The search for" in shown


def test_one_case_that_fails_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.STAGES, "two", run.Stage(two_cases, 1))
    found = run.gathered("two", ["of something else", *lines_of("two")], "it was not done after 1 s", 1.0)
    assert found["rows"] == [{"case": "a", "ms": 4.0}] and found["what"] == "One of two cases fails."
    assert found["failed"] == {"b": "ZeroDivisionError: division by zero", "the stage": "it was not done after 1 s"}
    shown = page.gpu_table({"stages": [found], "machine": "m", "seconds": 1.0})
    assert "Failed: b: ZeroDivisionError" in shown and "| a    |  4 |" in shown


def test_a_process_that_takes_too_long_or_ends_badly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.run_apart("step", True, 0.01)["failed"] == {"the stage": "it was not done after 0.01 s"}
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "it ended with code 1" in run.run_apart("step", True, 60)["failed"]["the stage"]
    assert sum(stage.budget for stage in run.STAGES.values()) < 8 * 60


def test_busy_is_the_union_of_what_ran() -> None:
    assert teaching.covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4 and teaching.covered([]) == 0
    kinds = ((DeviceType.CUDA, False), (DeviceType.CPU, False), (DeviceType.CUDA, True))
    events = [
        FunctionEvent(i, "kernel", 0, 10 * i, 10 * i + 1, device_type=kind, is_user_annotation=annotation)
        for i, (kind, annotation) in enumerate(kinds)
    ]
    assert teaching.spans_on_gpu(events) == [(0, 1)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_nothing_is_measured() -> None:
    with pytest.raises(SystemExit, match=r"No GPU is there, .* --small tries every stage"):
        program.main()
