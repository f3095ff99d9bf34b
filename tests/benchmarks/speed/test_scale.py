"""A slice of speed/scale.py: that it measures what it says, not how fast."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from places import ROOT

from benchmarks.speed.scale import (
    INDEX,
    STAGES,
    SyntheticTeacher,
    disk,
    exponents,
    float16_error,
    run_stage,
    write_texts,
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_every_stage_is_measured(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.arrow", 3000)
    for name in (*STAGES, INDEX, "stream"):
        figures = run_stage(name, tmp_path)
        assert 0 < figures["anonymous_mb"] < figures["resident_mb"]
        assert figures["seconds"] > 0 and figures["processor_seconds"] > 0
    # 770 numbers of 4 bytes a row, and 16 bytes of its key; 16 numbers; a little more for headers.
    assert 770 * 4 + 16 < disk(tmp_path / "columns" / "teacher") / 3000 < 770 * 4 * 1.01
    assert 16 * 4 < disk(tmp_path / "columns" / "projected") / 3000 < 16 * 4 * 1.1
    half = float16_error(tmp_path)
    assert 0.5 <= half["disk_ratio"] < 0.51
    assert 0 < half["mean_error_of_a_target"] < half["largest_error_of_a_target"] < 1e-3


def test_a_stage_in_a_process_of_its_own(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.arrow", 100)
    command = [sys.executable, "-m", "benchmarks.speed.scale", "--stage", "teacher", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout)["anonymous_mb"] < 3000


def test_the_synthetic_teacher_is_one(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.arrow", 500)
    texts, teacher = Dataset.from_file(str(tmp_path / "texts.arrow")), SyntheticTeacher()
    assert len(set(texts["text"])) == 500 and set(texts["label"]) == {0, 1}
    first, again = teacher(texts[:]), teacher(texts[:])
    assert (first["teacher_embedding"] == again["teacher_embedding"]).all()
    rebuilt = first["teacher_embedding"] @ teacher.head.weight.numpy().T
    assert abs(rebuilt - first["teacher_logits"]).max() < 1e-5


def test_exponents_of_known_laws() -> None:
    powers = dict(zip(STAGES, (1, 2, 1, 1, 1), strict=True))
    sizes: list[dict[str, Any]] = []
    for rows in (1000, 100_000, 200_000, 400_000):
        sizes.append({"rows": rows, **{name: {"seconds": 1e-5 * rows**power} for name, power in powers.items()}})
    sizes[0]["fit"]["seconds"] = 1e6  # below 100,000 rows what is constant would tell
    found = exponents(sizes, "seconds")
    assert found["fit"] == pytest.approx(1) and found["find"] == pytest.approx(2)
