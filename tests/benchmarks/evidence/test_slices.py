import explored
import numpy as np
import pytest

from benchmarks.evidence.slices import gaps, halved
from hf_lelp.explore.report import rightly_answered


def test_how_far_slices_are_below_their_class() -> None:
    slices, classes = np.repeat([0, 1, 2], [40, 40, 5]), np.array([0, 0, 1])
    right = np.concatenate([np.arange(40) < 36, np.arange(40) < 20, np.ones(5, bool)])
    np.testing.assert_allclose(gaps(slices, classes, right), [0.7 - 0.9, 0.7 - 0.5, np.nan])


def test_a_true_slice_is_the_worst_again() -> None:
    rows = explored.rows(800)
    right, _ = rightly_answered(rows)
    found = halved(rows, rows.subclass_of, right["lelp"])
    assert found["again"] == found["below"] == 1 and found["new"] > 20 and found["chance"] == pytest.approx(1 / 8)
    by_chance = halved(rows, rows.subclass_of, np.random.default_rng(0).random(800) < 0.8)
    assert by_chance["again"] < 0.5 and by_chance["new"] < by_chance["chosen"]
