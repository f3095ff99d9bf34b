"""LELP once more, in plain NumPy loops, from the method's description alone: what the library is tested against."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Fit(NamedTuple):
    """Means (C, D) of the null-space-projected embeddings, directions (C, S, D) and their variances (C, S)."""

    mean: Array
    directions: Array
    variance: Array


def assign(teacher_logits: Array, labels: NDArray[np.integer] | None = None) -> NDArray[np.integer]:
    """The class of each example: its label where there is one, else the teacher's argmax."""
    classes = [int(np.argmax(row)) for row in teacher_logits]
    if labels is not None:
        classes = [guess if label == -100 else int(label) for guess, label in zip(classes, labels, strict=True)]
    return np.array(classes)


def null_projector(weight: Array) -> Array:
    """P, (D, D): h P is h without its component in the row space of W."""
    return np.eye(weight.shape[1]) - np.linalg.pinv(weight) @ weight


def fit(embedding: Array, classes: NDArray[np.integer], weight: Array, num_subclasses: int, null_space: bool) -> Fit:
    """Steps 1 and 2: null-space projection, class means, the top S principal directions of each class."""
    embedding = embedding.astype(np.float64)
    if null_space:
        embedding = embedding @ null_projector(weight.astype(np.float64))
    means, directions, variances = [], [], []
    for c in range(len(weight)):
        rows = embedding[classes == c]
        mean = sum(rows) / len(rows)
        _, singular, vectors = np.linalg.svd(rows - mean)
        means.append(mean)
        directions.append(vectors[:num_subclasses])
        variances.append(singular[:num_subclasses] ** 2 / len(rows))
    return Fit(np.array(means), np.array(directions), np.array(variances))


def align(directions: Array, like: Array) -> Array:
    """The directions with the signs of `like`: a principal direction's own is arbitrary."""
    return directions * np.sign((directions * like).sum(-1, keepdims=True))


def scores(
    embedding: Array, fitted: Fit, rotation: Array | None = None, scale: bool = True, whitening: float = 0.0
) -> Array:
    """u, (N, C, S): steps 3 and 4 for every example and every class. `rotation`: Q, (C, S, S)."""
    num_classes, num_subclasses, _ = fitted.directions.shape
    u = np.zeros((len(embedding), num_classes, num_subclasses))
    for c in range(num_classes):
        q = np.eye(num_subclasses) if rotation is None else rotation[c]
        deviation = np.sqrt(fitted.variance[c])
        rotated = (fitted.directions[c] / deviation[:, None] ** whitening).T @ q
        divisor = np.sqrt(np.mean((deviation / deviation**whitening) ** 2)) if scale else 1.0
        for n, h in enumerate(embedding.astype(np.float64)):
            for s in range(num_subclasses):
                u[n, c, s] = (h - fitted.mean[c]) @ rotated[:, s] / divisor
    return u


def softmax(values: Array) -> Array:
    """Along the only axis."""
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def subclass_targets(teacher_logits: Array, u: Array, tau: float, beta: float) -> Array:
    """p(c, s | x) = softmax_c(z / τ)_c · softmax_s(u_c / β)_s, (N, C, S)."""
    p = np.zeros(u.shape)
    for n in range(u.shape[0]):
        class_probabilities = softmax(teacher_logits[n].astype(np.float64) / tau)
        for c in range(u.shape[1]):
            p[n, c] = class_probabilities[c] * softmax(u[n, c] / beta)
    return p


def targets(
    teacher_logits: Array,
    embedding: Array,
    fitted: Fit,
    tau: float,
    beta: float,
    rotation: Array | None = None,
    scale: bool = True,
    whitening: float = 0.0,
) -> Array:
    """From logits, embeddings and the fit to the targets, (N, C, S)."""
    return subclass_targets(teacher_logits, scores(embedding, fitted, rotation, scale, whitening), tau, beta)


def class_logits(outputs: Array, num_classes: int) -> Array:
    """Logsumexp over each class's S outputs; outputs (N, C·S), result (N, C)."""
    per_class = outputs.astype(np.float64).reshape(len(outputs), num_classes, -1)
    return np.array(
        [[np.log(np.exp(o - o.max()).sum()) + o.max() for o in example_outputs] for example_outputs in per_class]
    )


def loss(outputs: Array, p: Array, labels: NDArray[np.integer] | None, tau: float, alpha: float) -> Array:
    """L of each example, (N,): α · CE(y, class logits) + (1 − α) · τ² · CE(p, softmax(o / τ))."""
    num_classes = p.shape[1]
    logits = class_logits(outputs, num_classes)
    result = np.zeros(len(outputs))
    for n, o in enumerate(outputs.astype(np.float64)):
        q = softmax(o / tau)
        distillation = -tau * tau * sum(p_k * np.log(q_k) for p_k, q_k in zip(p[n].ravel(), q, strict=True))
        hard = 0.0
        if labels is not None and labels[n] != -100:
            hard = -np.log(softmax(logits[n])[labels[n]])
        result[n] = alpha * hard + (1 - alpha) * distillation
    return result
