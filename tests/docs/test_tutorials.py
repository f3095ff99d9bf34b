"""The tutorials run as they are, each in a process and a folder of its own, and make their figure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

NOTEBOOKS = sorted(ROOT.glob("docs/tutorials/*.ipynb"))


def test_there_are_three_without_outputs() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["images", "texts", "unlabelled_rows"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.surroundings
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_makes_its_figure(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    script = tmp_path / f"{path.stem}.py"
    script.write_text("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, script.name], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / f"{path.stem}.png").read_bytes().startswith(b"\x89PNG")
