"""A slice of benchmarks/scale.py: that it measures what it says, not how fast."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from benchmarks.scale import STAGES, SyntheticTeacher, exponents, write_texts

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_every_stage_is_measured_and_the_files_are_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "--rows", "3000", "--folder", str(tmp_path / "files")]
    (tmp_path / "files").mkdir()
    result = tmp_path / "scale.json"
    subprocess.run([*command, "--result", str(result)], cwd=ROOT, check=True, capture_output=True, timeout=600)
    figures = json.loads(result.read_text())
    (size,) = figures["sizes"]
    assert size["rows"] == 3000
    for stage in (*STAGES, "stream"):
        assert 0 < size[stage]["anonymous_mb"] < size[stage]["resident_mb"] < 3000 and size[stage]["seconds"] > 0
    # 770 numbers of 4 bytes a row, and 16; a little more for headers.
    assert 770 * 4 < size["teacher_disk_bytes_a_row"] < 770 * 4 * 1.01
    assert 16 * 4 < size["projected_disk_bytes_a_row"] < 16 * 4 * 1.1
    assert 0.5 <= figures["float16"]["disk_ratio"] < 0.51
    assert 0 < figures["float16"]["mean_error_of_a_target"] < figures["float16"]["largest_error_of_a_target"] < 1e-3
    assert list((tmp_path / "files").iterdir()) == []


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
