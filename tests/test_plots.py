from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_lelp.plots import plot_groups
from hf_lelp.report import group_alignment

pytest.importorskip("matplotlib")


def test_the_picture_shows_each_group_by_its_share(tmp_path: Path) -> None:
    # Every example is of class 0, a tenth of them of group a.
    groups = np.where(np.arange(1000) % 10 == 0, "a", "b")
    classes, subclasses = np.zeros(1000, dtype=int), np.arange(1000) % 3
    path = tmp_path / "new" / "subclasses.png"
    plot_groups(group_alignment(classes, subclasses, groups, ["only"], 3), path)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    blue, orange = (int((pixels == colour).all(-1).sum()) for colour in ([31, 119, 180], [255, 127, 14]))
    assert 0.07 < blue / (blue + orange) < 0.14
