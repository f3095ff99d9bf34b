"""Makes other directions than LELP's, to compare LELP with: random ones, and those of all classes together."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_lelp.compare.baselines.clusterings import Array, Indices, _require_rows
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.principal_directions import Moments, orthonormal, principal_directions, row_space


def random_directions(
    projections: ClassProjections, embedding: Array, classes: Indices, *, seed: int, weight: Tensor | None = None
) -> ClassProjections:
    """Replace the principal directions by random orthonormal ones: a control.

    Args:
        projections: fitted; their means, number of directions and so on are kept.
        embedding: (N, D), those of the fit; the variance along the directions is measured on them.
        classes: (N,), the class of each row.
        seed: of the directions.
        weight: W, (C, D), needed if `projections` were kept out of its row space; the random ones are, too.

    Raises:
        ValueError: if `weight` is missing, or a class has no row.
    """
    basis = _left_out(projections, weight)
    directions = []
    for index in range(projections.num_classes):
        normal = np.random.default_rng([seed, index]).normal(size=(len(basis), projections.num_directions))
        directions.append(orthonormal(normal - basis @ (basis.T @ normal)).T)
    return _with_directions(projections, np.stack(directions), embedding, classes)


def shared_directions(
    projections: ClassProjections, embedding: Array, classes: Indices, *, seed: int, weight: Tensor | None = None
) -> ClassProjections:
    """Replace each class's directions by those of all classes' rows together, centred on their class's mean.

    Args:
        projections: fitted; their means, number of directions and so on are kept.
        embedding: (N, D), those of the fit.
        classes: (N,), the class of each row.
        seed: not used.
        weight: as for `random_directions`.

    Raises:
        ValueError: as `random_directions`; and if the embeddings span too few directions.
    """
    basis = _left_out(projections, weight)
    together = Moments(len(basis))
    together.add((embedding - projections.mean.numpy()[classes]).astype(np.float64))
    found, _ = principal_directions(together, basis, projections.num_directions, 0)
    return _with_directions(projections, np.stack([found] * projections.num_classes), embedding, classes)


def _left_out(projections: ClassProjections, weight: Tensor | None) -> NDArray[np.float64]:
    """Return an orthonormal basis, (D, rank), of the space that the projections' directions were kept out of."""
    if projections.null_space and weight is None:
        raise ValueError("These projections were kept out of the teacher's row space: pass weight, its final layer's.")
    size = projections.mean.shape[-1]
    return row_space(weight) if projections.null_space and weight is not None else np.zeros((size, 0))


def _with_directions(
    projections: ClassProjections, directions: Array, embedding: Array, classes: Indices
) -> ClassProjections:
    """Give the projections other directions, (C, K, D), and the variance of each class's rows along them."""
    _require_rows(classes, projections.num_classes, 1)
    variance = [
        ((embedding[classes == index] - mean) @ directions[index].T).var(0)
        for index, mean in enumerate(projections.mean.numpy())
    ]
    return replace(
        projections,
        directions=torch.from_numpy(directions).float(),
        variance=torch.from_numpy(np.stack(variance)).float(),
    )
