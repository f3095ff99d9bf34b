"""Fits the linear layer that gives class probabilities from embeddings."""

import logging

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

logger = logging.getLogger(__name__)

# Makes the fit unique where embeddings have more dimensions than there are rows; too small to matter elsewhere.
RIDGE = 1e-6


def fit_linear(
    embedding: NDArray[np.floating], probabilities: NDArray[np.floating], *, with_bias: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the linear layer whose softmax is closest to given probabilities: multinomial regression on soft targets.

    The mean cross-entropy is convex in the layer, so there is one answer. L-BFGS in float64 finds it.

    Args:
        embedding: h, (N, D).
        probabilities: p, (N, C); rows sum to one.
        with_bias: whether the layer has a bias; if not, b is zero.

    Returns:
        W, (C, D), and b, (C,).
    """
    rows, size = embedding.shape
    classes = probabilities.shape[1]
    # Standardised columns give the same answer in far fewer steps.
    centre = embedding.mean(0, dtype=np.float64) if with_bias else np.zeros(size)
    scale = embedding.std(0, dtype=np.float64)
    scale[scale == 0] = 1
    scaled = (embedding - centre) / scale

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight, bias = flat[:-classes].reshape(classes, size), flat[-classes:]
        logits = scaled @ weight.T + bias
        log_norm = logsumexp(logits, axis=1, keepdims=True)
        error = (np.exp(logits - log_norm) - probabilities) / rows
        gradient = error.T @ scaled + RIDGE * weight
        value = float(log_norm.mean() - (logits * probabilities).sum() / rows + RIDGE / 2 * (weight**2).sum())
        return value, np.concatenate([gradient.ravel(), error.sum(0) if with_bias else np.zeros(classes)])

    result = minimize(
        loss, np.zeros(classes * (size + 1)), jac=True, method="L-BFGS-B", options={"maxiter": 1000, "gtol": 1e-7}
    )
    if not result.success:
        logger.warning(f"The fit of the final layer stopped early ({result.message}); see how well it agrees")
    weight = result.x[:-classes].reshape(classes, size) / scale
    return weight, result.x[-classes:] - weight @ centre
