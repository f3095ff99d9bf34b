"""The tutorials run as they are, each in a process and a folder of its own, and make the figure of their page."""

import json
from pathlib import Path

import pytest
from PIL import Image

from docs.site_parts.tutorials import NOTEBOOKS, run


def test_there_are_three_without_outputs_and_a_small_figure_beside_each() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["images", "texts", "unlabelled_rows"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells)
        assert path.with_suffix(".png").stat().st_size < 60_000


@pytest.mark.surroundings
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_makes_the_figure_of_its_page(path: Path, tmp_path: Path) -> None:
    with Image.open(run(path, tmp_path)) as made, Image.open(path.with_suffix(".png")) as kept:
        assert made.size == kept.size
