"""Fits one temperature that makes a student's probabilities true, and folds it into its final layer.

Temperature scaling (Guo, Pleiss, Sun and Weinberger 2017, arXiv 1706.04599): the class logits are divided by the T of
the least cross-entropy with labels, on rows that the student did not train on. No answer changes. Folded into the
layer, it is part of the weights: every form and every export has it.
"""

import logging
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from transformers import PreTrainedModel

from hf_lelp.calibration.threshold import THRESHOLD_NAME, at_temperature
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.metrics import NUM_ECE_BINS
from hf_lelp.student.answers import final_layers
from hf_lelp.student.modeling_lelp import SubclassHead

logger = logging.getLogger(__name__)

RANGE = math.log(0.02), math.log(50.0)  # of log T
LEAST_ROWS = 50  # with a label


def check_enough(labels: NDArray[np.integer]) -> None:
    """Refuse too few rows to fit a temperature to.

    Args:
        labels: of rows held back, (N,), −100 for none.

    Raises:
        ValueError: if fewer than 50 rows have a label.
    """
    labelled = int((labels != NO_LABEL).sum())
    if labelled < LEAST_ROWS:
        raise ValueError(
            f"{labelled} rows held back have a label, and a temperature takes {LEAST_ROWS}. Hold back a larger"
            " share, or name a calibration_file with more."
        )


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the T > 0 for which softmax(logits / T) has the least cross-entropy with the labels.

    Args:
        logits: (N, C), finite.
        labels: (N,), −100 for none; such rows are left out.

    Raises:
        ValueError: if too few rows have a label.
    """
    check_enough(labels)
    labelled = labels != NO_LABEL
    known, truth = logits[labelled].astype(np.float64), labels[labelled]
    found = minimize_scalar(lambda log_t: cross_entropy(known / math.exp(log_t), truth), bounds=RANGE, method="bounded")
    if float(found.x) > RANGE[1] - 0.01:
        logger.warning(
            "The student's logits say next to nothing of the labels: its temperature is the largest there is."
        )
    return math.exp(float(found.x))


def cross_entropy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the mean cross-entropy of softmax(logits), (N, C), with the labels, (N,)."""
    return float((logsumexp(logits, axis=-1) - logits[np.arange(len(labels)), labels]).mean())


@torch.no_grad()
def fold_temperature(model: PreTrainedModel, temperature: float) -> None:
    """Divide a student's class logits by T, exactly, by dividing what its final layer holds.

    A plain layer: W / T and b / T. The paper's head: its rows and τ, for
    (τ / T) · logsumexp((o / T) / (τ / T)) = τ · logsumexp(o / τ) / T. A threshold in its configuration follows.

    Args:
        model: of either form, changed in place.
        temperature: T.
    """
    for layer in final_layers(model).values():
        for parameter in layer.parameters(recurse=False):  # an auxiliary layer has outputs of its own
            parameter.div_(temperature)
        if isinstance(layer, SubclassHead):
            layer.temperature /= temperature
            model.config.distillation_temperature = layer.temperature
    threshold = getattr(model.config, THRESHOLD_NAME, None)
    if threshold is not None:
        setattr(model.config, THRESHOLD_NAME, at_temperature(threshold, temperature))


def reliability(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> list[dict[str, Any]]:
    """Return confidence and accuracy of the rows in each bin of the confidence, as the calibration error takes them.

    Args:
        logits: (N, C).
        labels: (N,), all of them classes.

    Returns:
        A dictionary for each bin with rows: `confidence`, `accuracy` and `rows`.
    """
    confidence = np.exp(logits.max(-1) - logsumexp(logits, axis=-1))
    right = logits.argmax(-1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, NUM_ECE_BINS + 1)[1:-1], right=True)
    return [
        {"confidence": float(confidence[own].mean()), "accuracy": float(right[own].mean()), "rows": int(own.sum())}
        for own in (bins == index for index in range(NUM_ECE_BINS))
        if own.any()
    ]
