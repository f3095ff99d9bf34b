"""Moments of a stream against those of the whole, and the leading directions of a large one against all of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hf_lelp.projections import principal_directions as pca
from hf_lelp.projections.principal_directions import Moments, principal_directions

ROWS = 50 + np.random.default_rng(0).normal(size=(60, 5))


def moments(*parts: np.ndarray) -> Moments:
    result = Moments(ROWS.shape[1])
    for part in parts:
        result.add(part)
    return result


def assert_those_of(result: Moments, rows: np.ndarray) -> None:
    assert result.count == len(rows)
    np.testing.assert_allclose(result.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(result.covariance(), np.cov(rows.T, bias=True), rtol=1e-9, atol=1e-12)


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


def of_covariance(variances: NDArray[np.float64], count: int = 1000) -> tuple[Moments, NDArray[np.float64]]:
    """Moments with these variances along random axes, and the axes, (D, D), one a row."""
    size = len(variances)
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(size, size)))[0].T
    result = Moments(size)
    result.count, result.scatter = count, (axes.T * variances) @ axes * count
    return result, axes


FALLING = 2.0 ** -np.arange(80)
EQUAL = np.repeat([3.0, 1.0], [3, 77])  # the leading three are any basis of a space, all the others alike


class TestLargeDimensions:
    """Few of many directions are searched for; what comes out must be what solving for all of them gives."""

    @pytest.fixture(autouse=True)
    def small_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pca, "LARGE", 64)

    @pytest.mark.parametrize("variances", [FALLING, EQUAL], ids=["falling", "equal"])
    def test_the_leading_directions_are_found(self, variances: NDArray[np.float64]) -> None:
        stream, axes = of_covariance(variances)
        directions, found = principal_directions(stream, np.zeros((80, 0)), 3, 0)
        np.testing.assert_allclose(found, variances[:3], rtol=1e-9)
        np.testing.assert_allclose(np.linalg.svd(directions @ axes[:3].T, compute_uv=False), 1, atol=1e-12)

    def test_what_the_final_layer_reads_is_left_out(self) -> None:
        stream, axes = of_covariance(FALLING)
        directions, found = principal_directions(stream, axes[[0, 2]].T, 3, 0)
        np.testing.assert_allclose(found, FALLING[[1, 3, 4]], rtol=1e-9)
        np.testing.assert_allclose(np.abs(np.sum(directions * axes[[1, 3, 4]], axis=1)), 1, atol=1e-12)

    def test_a_refit_is_the_same(self) -> None:
        (one, _), (other, _) = (
            principal_directions(of_covariance(FALLING)[0], np.zeros((80, 0)), 3, 0) for _ in range(2)
        )
        np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("rank", [0, 2])
    def test_the_rank_is_named(self, rank: int) -> None:
        stream, _ = of_covariance(np.where(np.arange(80) < rank, 1.0, 0.0))
        with pytest.raises(ValueError, match=rf"Class 7 has 1000 examples .* span {rank} directions .*80 dimensions"):
            principal_directions(stream, np.zeros((80, 0)), 4, 7)
