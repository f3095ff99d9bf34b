"""Moments of a stream against those of the whole."""

import numpy as np
import pytest

from hf_lelp.pca import Moments

ROWS = 50 + np.random.default_rng(0).normal(size=(60, 5))


def moments(*parts: np.ndarray) -> Moments:
    result = Moments(ROWS.shape[1])
    for part in parts:
        result.add(part)
    return result


def assert_those_of(result: Moments, rows: np.ndarray) -> None:
    assert result.count == len(rows)
    np.testing.assert_allclose(result.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(result.scatter / len(rows), np.cov(rows.T, bias=True), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cuts", [[], [1], [20, 20, 59], list(range(60))])
def test_parts_make_the_whole(cuts: list[int]) -> None:
    assert_those_of(moments(*np.split(ROWS, cuts)), ROWS)


@pytest.mark.parametrize("cut", [0, 1, 25, 60])
def test_merging_is_adding_the_others_rows(cut: int) -> None:
    one, other = moments(ROWS[:cut]), moments(*np.array_split(ROWS[cut:], 3))
    one.merge(other)
    assert_those_of(one, ROWS)
    assert other.count == 60 - cut  # left as it was
    if cut < 60:
        assert_those_of(other, ROWS[cut:])
