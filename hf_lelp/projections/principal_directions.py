"""Computes principal directions of each class, from one pass over the embeddings (arXiv 2409.20449, section 3).

The fit keeps only the count, mean and scatter matrix of a class, so memory does not grow with the number of rows.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.blas import dsyrk
from scipy.sparse.linalg import ArpackError, eigsh

LARGE = 512  # dimensions from which only the leading directions are computed, if they are few


class Moments:
    """Count, mean and scatter matrix of a stream of vectors (Chan, Golub & LeVeque's update), float64.

    Args:
        size: D.

    Attributes:
        count: vectors so far.
        mean: their mean, (D,).
        scatter: Σ (h − mean)(h − mean)ᵀ, (D, D); only its lower triangle is updated, which halves the work.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self.scatter = np.zeros((size, size))

    def add(self, rows: NDArray[np.floating]) -> None:
        """Add rows, (n, D)."""
        if not len(rows):
            return
        total = self.count + len(rows)
        centred = np.empty((len(rows) + 1, len(self.mean)))
        centred[:-1] = rows
        mean = centred[:-1].mean(0)
        shift = mean - self.mean
        centred[:-1] -= mean
        centred[-1] = shift * np.sqrt(self.count * len(rows) / total)  # the difference of the means counts as one row
        # In place: with many classes, or dimensions, a temporary of (D, D) costs more than the product.
        self.scatter = dsyrk(1.0, centred.T, beta=1.0, c=self.scatter.T, overwrite_c=True).T
        self.mean += shift * (len(rows) / total)
        self.count = total

    def merge(self, other: "Moments") -> None:
        """Add the moments of another stream of vectors of the same size."""
        if not other.count:
            return
        total = self.count + other.count
        shift = other.mean - self.mean
        self.scatter += other.scatter + np.outer(shift, shift) * (self.count * other.count / total)
        self.mean += shift * (other.count / total)
        self.count = total

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance: symmetric, (D, D), the scatter matrix divided by the count."""
        lower = np.tril(self.scatter) / self.count
        return lower + np.tril(lower, -1).T


def row_space(weight: torch.Tensor) -> NDArray[np.float64]:
    """Return an orthonormal basis of the row space of W, (D, rank)."""
    _, singular, rows = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    return rows[singular > singular.max() * max(weight.shape) * np.finfo(np.float32).eps].T


def orthonormal(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make orthonormal columns that favour no direction, from a matrix of independent normal numbers, (D, K)."""
    q, r = np.linalg.qr(normal)
    return np.asarray(q * np.sign(np.diag(r)))  # otherwise QR's own choice of signs would show


def principal_directions(
    moments: Moments, basis: NDArray[np.float64], num_directions: int, index: int, at_least: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the leading principal directions of one class outside the span of `basis`, by falling variance.

    Args:
        moments: of the class's embeddings.
        basis: orthonormal, (D, rank), of the directions to leave out; rank 0 leaves nothing out.
        num_directions: K.
        index: of the class, for messages.
        at_least: how many will do where the embeddings span fewer than K; `None` is K.

    Returns:
        Orthonormal directions, (K, D), and the variance along each, (K,); fewer where the embeddings span fewer.

    Raises:
        ValueError: if there is no example, the embeddings span fewer directions than will do, or a variance is beyond
            float32.
    """
    at_least = num_directions if at_least is None else at_least
    if moments.count == 0:
        raise ValueError(
            f"No example of class {index}: LELP fits every class. Check the labels, or drop the class from the teacher."
        )
    # P Σ P with P = I − B Bᵀ, without forming P: B is thin.
    covariance = moments.covariance()
    covariance -= basis @ (basis.T @ covariance)
    covariance -= (covariance @ basis) @ basis.T
    values, vectors = _leading(covariance, num_directions)
    # Rounding of the float32 embeddings leaves this much variance along directions that have none.
    floor = np.finfo(np.float32).eps * max(values[0], np.square(moments.mean).max() * np.finfo(np.float32).eps)
    most = min(moments.count - 1, len(basis) - basis.shape[1])
    found = min(most, int((values > floor).sum()), num_directions)
    if found < at_least:
        rank = min(most, int((np.linalg.eigvalsh(covariance) > floor).sum()))
        raise ValueError(
            f"Class {index} has {moments.count} examples whose embeddings span {rank} directions"
            f" ({len(basis)} dimensions, {basis.shape[1]} of them read by the teacher's final layer); {at_least}"
            f" were asked for. Use num_subclasses={max(rank, 1)} or fewer, or more examples."
        )
    variance, limits = values[:found], np.finfo(np.float32)
    if not (limits.tiny <= variance[-1] and variance[0] <= limits.max):  # scores are divided by it in float32
        raise ValueError(
            f"The variance of class {index}'s embeddings goes from {variance[-1]:.3g} to {variance[0]:.3g}, beyond what"
            f" float32 holds ({limits.tiny:.3g} to {limits.max:.3g}). Check the teacher, or scale its embeddings."
        )
    directions = vectors[:, :found].T
    # An eigenvector's sign is arbitrary. With its largest component positive, a refit agrees with the first fit.
    largest = np.abs(directions).argmax(-1)
    directions = directions * np.sign(directions[np.arange(found), largest])[:, None]
    return directions, variance


def _leading(matrix: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the `count` largest eigenvalues of a symmetric matrix, falling, and their vectors; or all of them."""
    if len(matrix) >= max(LARGE, 16 * count):
        start = np.random.default_rng(0).normal(size=len(matrix))  # the same in every fit
        try:
            values, vectors = eigsh(matrix, count, which="LA", v0=start)
            return values[::-1], vectors[:, ::-1]
        except ArpackError:  # eigenvalues too close together, or all of them 0
            pass
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]
