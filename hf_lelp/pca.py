"""Principal directions of each class, from sums over one pass of the embeddings (arXiv 2409.20449, section 3).

Count, mean and scatter matrix are all that the fit needs of a class, so memory does not grow with the number of rows.
"""

import numpy as np
import torch
from numpy.typing import NDArray


class Moments:
    """Count, mean and scatter matrix of a stream of vectors (Chan, Golub & LeVeque's update), float64.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self.scatter = np.zeros((size, size))

    def add(self, rows: NDArray[np.float64]) -> None:
        """Take in rows, (n, D)."""
        if len(rows):
            mean = rows.mean(0)
            centred = rows - mean
            self._include(len(rows), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> None:
        """Take in what another stream of vectors, of the same size, has summed up."""
        if other.count:
            self._include(other.count, other.mean, other.scatter)

    def _include(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        shift = mean - self.mean
        total = self.count + count
        self.scatter += scatter + np.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total


def row_space(weight: torch.Tensor) -> NDArray[np.float64]:
    """Orthonormal basis of the row space of W, (D, rank)."""
    _, singular, rows = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    return rows[singular > singular.max() * max(weight.shape) * np.finfo(np.float32).eps].T


def principal_directions(
    moments: Moments, basis: NDArray[np.float64], num_directions: int, index: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leading principal directions of one class in the complement of `basis`, by falling variance.

    Args:
        moments: of the class's embeddings.
        basis: orthonormal, (D, rank), of what to leave out; rank 0 leaves nothing out.
        num_directions: K.
        index: of the class, for messages.

    Returns:
        Orthonormal directions, (K, D), and the variance along each, (K,).

    Raises:
        ValueError: if there is no example, or the embeddings span fewer than K directions.
    """
    if moments.count == 0:
        raise ValueError(
            f"No example of class {index}: LELP fits every class. Check the labels, or drop the class from the teacher."
        )
    projector = np.eye(len(basis)) - basis @ basis.T
    values, vectors = np.linalg.eigh(projector @ moments.scatter @ projector / moments.count)
    values, vectors = values[::-1], vectors[:, ::-1]
    # Rounding of the float32 embeddings leaves this much variance along directions that have none.
    floor = np.finfo(np.float32).eps * max(values[0], np.square(moments.mean).max() * np.finfo(np.float32).eps)
    rank = min(int((values > floor).sum()), moments.count - 1, len(basis) - basis.shape[1])
    if rank < num_directions:
        raise ValueError(
            f"Class {index} has {moments.count} examples whose embeddings span {rank} directions"
            f" ({len(basis)} dimensions, {basis.shape[1]} of them read by the teacher's final layer); {num_directions}"
            f" were asked for. Use num_subclasses={max(rank, 1)} or fewer, or more examples."
        )
    directions = vectors[:, :num_directions].T
    # An eigenvector's sign is arbitrary; the largest component positive makes a refit agree with the first fit.
    largest = np.abs(directions).argmax(-1)
    directions = directions * np.sign(directions[np.arange(num_directions), largest])[:, None]
    return directions, values[:num_directions]
