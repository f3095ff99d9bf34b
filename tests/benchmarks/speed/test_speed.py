"""Slices of the speed benchmarks: that they run and compare the same things; no time is asserted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from datasets import Dataset

from benchmarks.evidence.suite.texts import Corpus, Texts
from benchmarks.speed import common, fit, import_time, loading, online, page, processes, sampled_fit, step, teacher_pass
from benchmarks.speed.common import Seconds


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of a few thousand weights in place of the benchmarks', and threads as they were."""
    monkeypatch.setattr(common, "SIZES", {name: (16, 1, 2) for name in common.SIZES})
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())["rows"]
    for row in rows:
        assert all(isinstance(value, str) or value >= 0 for value in row.values())
    return rows


def test_ratios_are_of_one_round() -> None:
    slow, fast = [Seconds(4, 2), Seconds(30, 3), Seconds(2, 2)], [Seconds(2, 1), Seconds(10, 1), Seconds(4, 4)]
    assert common.ratio(slow, fast) == Seconds(2, 2)
    order: list[str] = []
    times = common.in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b", "a", "b"] and len(times["a"]) == len(times["b"]) == 2


def test_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_this_process(*arguments: Any) -> int:
        step.peak_of(*arguments)
        return common.peak_memory()

    monkeypatch.setattr(step, "memory", in_this_process)
    step.main([("BERT 2 × 128", 3)], steps=5, rounds=1, folder=tmp_path)
    (row,) = rows_of(tmp_path, "speed_step")
    assert row["classes"] == 3 and row["ratio"] > 0 and row["plain, peak MB"] > 100 < row["LELP, peak MB"]


def test_loading(tmp_path: Path) -> None:
    loading.main([(2, 3)], batches=(8, 20), rows=50, rounds=2, folder=tmp_path)
    small, large = rows_of(tmp_path, "speed_loading")
    assert small["rows a batch"] == 8 and large["rows a batch"] == 20 and large["ratio"] > 0


def test_the_clock_leaves_out_the_first_steps() -> None:
    clock = step.Clock()
    clock.ends = [Seconds(t, t) for t in (1, 5, 6, 8)]
    assert clock.steps(skipped=2) == [Seconds(1, 1), Seconds(2, 2)]


def test_fit(tmp_path: Path) -> None:
    fit.main([(400, 12, 2, 3)], [(200, 24, 2, 3)], rounds=1, folder=tmp_path)
    row, large = rows_of(tmp_path, "speed_fit")
    assert row["our angle"] < 1e-4 > row["its angle"] > 0 and large["our angle"] == "–"


def test_sampled_fit(tmp_path: Path) -> None:
    columns, _ = runs.prepared()
    sampled_fit.main(columns, runs.teacher().head, samples=(40, 90), directions=(2,), folder=tmp_path)
    few, many, turned = rows_of(tmp_path, "speed_sampled_fit")
    assert few["angle"] > many["angle"] > 0 and few["targets, mean"] > many["targets, mean"] > 0
    assert turned["fit on"] == "all, another rotation" and turned["targets, mean"] > 0
    assert few["bytes a row, fit_rows"] == 4 * 2 + 16 + 4 * 2 * 2 == few["bytes a row, all"] - 4 * 16


def test_the_angle_is_that_of_the_worst_class() -> None:
    plane, tilted = np.eye(4)[:2], np.stack([np.eye(4)[0], [0, np.cos(0.3), np.sin(0.3), 0]])
    assert fit.angle(np.stack([plane, plane]), np.stack([plane, tilted])) == pytest.approx(0.3)


def test_teacher_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_pass, "MAX_LENGTH", 16)
    monkeypatch.setattr(teacher_pass, "EMBEDDING", 24)
    runs.teacher_model().save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    rows = Dataset.from_dict({"text": tiny.texts(80, longest=30)})
    teacher_pass.main(rows, tmp_path / "teacher", rounds=1, folder=tmp_path)
    passes = {row["pass"]: row for row in rows_of(tmp_path, "speed_teacher")}
    assert passes["ours"]["times ours"] == 1 and {*passes} == {"ours", "bare loop", "naive map"}
    alone, ahead, plain = rows_of(tmp_path, "speed_teacher_asleep")
    assert alone["as fast as batches in memory"] == 1 > ahead["as fast as batches in memory"] > 0
    assert plain["pass"] == "ours, one step after the other"
    classes, subclasses = rows_of(tmp_path, "speed_teacher_bf16")
    assert 0 < classes["mean"] <= classes["max"] < 0.2 and classes["mean"] <= subclasses["mean"]


def test_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process of its own would have models of full size.
    monkeypatch.setattr(online, "run_apart", lambda name, epochs, rows, _: online.run(name, epochs, rows))
    online.main(["LELP (ours)", "online KD"], epochs=(1, 2), rows=40, rounds=1, folder=tmp_path)
    ours, other = rows_of(tmp_path, "speed_online")
    assert ours["2 epochs, times ours"] == 1 and other["1 epoch, s"] < other["2 epochs, s"]


def test_import_time(tmp_path: Path) -> None:
    import_time.main({"json": ("import json", "import csv")}, rounds=1, folder=tmp_path)
    assert [row["what"] for row in rows_of(tmp_path, "speed_import")] == ["json"]


def test_a_trainer_is_imported_without_what_it_seldom_needs() -> None:
    # transformers 5.13 loads some of them with its own trainer.
    code = "from transformers import Trainer; theirs = {*sys.modules}; from hf_lelp import LELPTrainer, LELPConfig"
    command = [sys.executable, "-c", f"import sys; {code}; print(*{{*sys.modules}} - theirs)"]
    ours = {*subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()}
    assert "hf_lelp.trainer" in ours
    assert not {"sklearn", "evaluate", "matplotlib", "scipy.stats"} & ours


def test_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_this_process(count: int, *arguments: Any) -> Seconds:
        output = tmp_path / f"{count}.json"
        processes.run(*arguments, output)
        found = json.loads(output.read_text())
        assert found["rows"] == 12
        return Seconds(found["seconds"], found["seconds"])

    monkeypatch.setattr(processes, "timed", in_this_process)
    texts = Texts(tiny.texts(12), np.zeros(12, dtype=np.int64))
    monkeypatch.setattr(processes, "read_corpus", lambda *_, **__: Corpus(texts, texts, ["one"]))
    tiny.named(tiny.classifier()).save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    processes.main(tmp_path / "teacher", rows=12, rounds=1, folder=tmp_path)
    one, two = rows_of(tmp_path, "speed_processes")
    assert (one["processes"], two["processes"]) == (1, 2) and one["times as fast as one"] == 1


def test_the_page_has_a_table_for_every_result_and_keeps_its_text(tmp_path: Path) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert {match[1] for match in page.TABLE.findall(text)} == {
        "speed_step",
        "speed_online",
        "speed_teacher",
        "speed_teacher_asleep",
        "speed_teacher_bf16",
        "speed_fit",
        "speed_import",
        "speed_loading",
        "speed_processes",
        "speed_sampled_fit",
        "scale",
        "gpu",
    }
    common.write_result("speed_fit", [{"rows": 1200, "angle": 1.234e-8, "it": "–"}], tmp_path)
    filled = page.filled("before\n<!-- table: speed_fit -->\nold\n<!-- end -->\nafter\n", tmp_path)
    assert filled.startswith("before\n<!-- table: speed_fit -->\n\n| rows ") and filled.endswith(
        "<!-- end -->\nafter\n"
    )
    assert "| 1,200 | 1.23e-08 |  – |" in filled and "old" not in filled
    assert page.filled(filled, tmp_path) == filled
    assert page.filled(text, tmp_path / "nothing") == text
