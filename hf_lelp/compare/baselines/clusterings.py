"""Makes other pseudo-subclasses than LELP's from the same teacher embeddings, to compare LELP with.

The clusterings, their controls and the oracle give `scores`, (N, C, S), float32, whose softmax over the last axis is
p(s | c, x). Scores take the place of the column `teacher_projections`, with neither rotation nor scale and β = 1. They
are fitted to the rows of each class, and every row has scores for every class.

Subclass Distillation (Müller et al. 2020, arXiv 2002.03936) makes its subclasses by retraining the teacher.
`subclass_auxiliary_loss` is the loss of that training; `teacher_subclasses` makes columns of the retrained outputs.
"""

import math
from collections.abc import Callable

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.manifold import TSNE
from torch import Tensor

from hf_lelp.losses import widen
from hf_lelp.projections.principal_directions import row_space

Array = NDArray[np.floating]
Indices = NDArray[np.integer]

# The score of a subclass that a row is not in: a probability of 1e-13. A softmax over −∞ alone would be NaN.
ABSENT = -30.0
# Agglomerative clustering and t-SNE take quadratic memory and time: they see at most this many rows of a class.
SUBSAMPLE = 2000


def kmeans(
    embedding: Array,
    teacher_logits: Array,
    classes: Indices,
    *,
    num_subclasses: int,
    seed: int,
    weight: Tensor | None = None,
) -> NDArray[np.float32]:
    """Run k-means in each class; a row is in the subclass of the nearest centroid.

    Args:
        embedding: (N, D).
        teacher_logits: (N, C); only C is read.
        classes: (N,), the class of each row: its label, or the teacher's argmax.
        num_subclasses: S.
        seed: of the initial centroids.
        weight: W, (C, D), whose row space is removed from the embeddings as in LELP; `None` removes nothing.

    Returns:
        Scores, (N, C, S): 0 for the row's subclass of each class and −30 for the others.

    Raises:
        ValueError: if a class has fewer rows than S.
    """

    def cluster(rows: Array) -> Indices:
        return KMeans(num_subclasses, n_init=10, random_state=seed).fit_predict(rows)

    return _nearest_centroids(embedding, teacher_logits, classes, num_subclasses, weight, cluster)


def agglomerative(
    embedding: Array,
    teacher_logits: Array,
    classes: Indices,
    *,
    num_subclasses: int,
    seed: int,
    weight: Tensor | None = None,
) -> NDArray[np.float32]:
    """Run Ward's clustering on at most 2,000 rows of each class, then take nearest centroids; see `kmeans`."""

    def cluster(rows: Array) -> Indices:
        return AgglomerativeClustering(num_subclasses).fit_predict(rows)

    return _nearest_centroids(embedding, teacher_logits, classes, num_subclasses, weight, cluster, subsample_seed=seed)


def tsne_kmeans(
    embedding: Array,
    teacher_logits: Array,
    classes: Indices,
    *,
    num_subclasses: int,
    seed: int,
    weight: Tensor | None = None,
) -> NDArray[np.float32]:
    """Run k-means on a t-SNE map of at most 2,000 rows of each class, then take nearest centroids; see `kmeans`.

    t-SNE cannot map further rows, so the centroids are those of the clusters' embeddings.
    """

    def cluster(rows: Array) -> Indices:
        perplexity = min(30.0, (len(rows) - 1) / 3)
        plane = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows)
        return KMeans(num_subclasses, n_init=10, random_state=seed).fit_predict(plane)

    return _nearest_centroids(embedding, teacher_logits, classes, num_subclasses, weight, cluster, subsample_seed=seed)


def random_partition(
    embedding: Array,
    teacher_logits: Array,
    classes: Indices,
    *,
    num_subclasses: int,
    seed: int,
    weight: Tensor | None = None,
) -> NDArray[np.float32]:
    """Draw one of S subclasses of every class for each row, whatever its embedding: a control; see `kmeans`."""
    count, num_classes = teacher_logits.shape
    _require_rows(classes, num_classes, num_subclasses)
    return _one_hot(np.random.default_rng(seed).integers(num_subclasses, size=(count, num_classes)), num_subclasses)


def oracle(fine_labels: Indices, classes: Indices, num_classes: int) -> NDArray[np.float32]:
    """Score the true subclass within each row's own class; in other classes all subclasses are equally likely.

    Args:
        fine_labels: (N,), integers; classes may share some, and each counts in its class.
        classes: (N,), the class of each row: its label.
        num_classes: C.

    Returns:
        Scores, (N, C, S). S is the largest number of subclasses of a class; they are in the order of the fine labels.
        Within the row's class: 0 for its subclass, −30 for the others. Within another class: 0 for all. Subclasses
        that a class does not have: −30.

    Raises:
        ValueError: if a class has no row.
    """
    _require_rows(classes, num_classes, 1)
    used = [np.unique(fine_labels[classes == index]) for index in range(num_classes)]
    scores = np.full((len(classes), num_classes, max(map(len, used))), ABSENT, dtype=np.float32)
    for index, fine in enumerate(used):
        scores[:, index, : len(fine)] = 0
        own = classes == index
        scores[own, index] = _one_hot(np.searchsorted(fine, fine_labels[own]), scores.shape[-1])
    return scores


def subclass_auxiliary_loss(subclass_logits: Tensor, temperature: float) -> Tensor:
    """Make a teacher use its subclasses: the loss −log(e^{ẑ_i·ẑ_i/T} / (1/N Σ_j e^{ẑ_i·ẑ_j/T})) for each example i.

    Müller et al. 2020 (arXiv 2002.03936). ẑ are an example's logits with mean 0 and length 1, so of variance 1/(S·C),
    as in the authors' code. The loss is 0 if all examples have the same ẑ, and negative otherwise. Rows of a final
    layer that start as copies of one another get equal gradients and stay equal: initialise them at random.

    Args:
        subclass_logits: (N, S·C).
        temperature: T > 0.

    Returns:
        Loss per example, (N,), in float32 or better.
    """
    size = subclass_logits.shape[-1]
    normalised = F.layer_norm(widen(subclass_logits), (size,), eps=1e-9)
    similarity = normalised @ normalised.mT / (size * temperature)
    return similarity.logsumexp(-1) - similarity.diagonal() - math.log(len(similarity))


def teacher_subclasses(subclass_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Make the columns of a teacher retrained with S·C outputs o (Müller et al. 2020, arXiv 2002.03936).

    With them and β = 1, `subclass_targets` is softmax(o / τ) over all S·C outputs, at this τ and at no other.

    Args:
        subclass_logits: o, (N, C, S).
        temperature: τ > 0.

    Returns:
        `teacher_logits`, (N, C): τ · logsumexp_s(o / τ); and scores, (N, C, S): o / τ.
    """
    scores = widen(subclass_logits) / temperature
    return temperature * scores.logsumexp(-1), scores


def _nearest_centroids(
    embedding: Array,
    teacher_logits: Array,
    classes: Indices,
    num_subclasses: int,
    weight: Tensor | None,
    cluster: Callable[[Array], Indices],
    subsample_seed: int | None = None,
) -> NDArray[np.float32]:
    """Cluster each class's rows, or a subsample of them, and score every row by its nearest centroid."""
    num_classes = teacher_logits.shape[-1]
    _require_rows(classes, num_classes, num_subclasses)
    # Centred first: float32 would lose what is small beside the mean.
    embedding = (embedding - embedding.mean(0, dtype=np.float64)).astype(np.float32)
    if weight is not None:
        basis = row_space(weight).astype(np.float32)
        embedding = embedding - (embedding @ basis) @ basis.T
    assigned = np.empty((len(embedding), num_classes), dtype=np.int64)
    for index in range(num_classes):
        rows = embedding[classes == index]
        if subsample_seed is not None and len(rows) > SUBSAMPLE:
            rows = rows[np.random.default_rng(subsample_seed).choice(len(rows), SUBSAMPLE, replace=False)]
        labels = cluster(rows)
        found = np.unique(labels)  # fewer than S where rows are equal
        centroids = np.stack([rows[labels == label].mean(0) for label in found])
        distance = np.square(centroids).sum(-1) - 2 * embedding @ centroids.T  # less ‖h‖², the same for all centroids
        assigned[:, index] = found[distance.argmin(-1)]
    return _one_hot(assigned, num_subclasses)


def _one_hot(assigned: Indices, num_subclasses: int) -> NDArray[np.float32]:
    """Make scores, (…, S), from subclass indices, (…)."""
    return np.where(assigned[..., None] == np.arange(num_subclasses), 0, ABSENT).astype(np.float32)


def _require_rows(classes: Indices, num_classes: int, least: int) -> None:
    for index, count in enumerate(np.bincount(classes, minlength=num_classes)):
        if count < least:
            raise ValueError(
                f"Class {index} has {count} rows, and num_subclasses={least} takes at least {least}."
                " Use fewer subclasses, or more examples."
            )
