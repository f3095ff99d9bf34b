"""Measures how far another form of a model is from the model itself."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from torch import Tensor
from transformers import PreTrainedModel

from hf_lelp.classifiers import logits_of
from hf_lelp.data.labels import NO_LABEL

Batches = Iterable[Mapping[str, Tensor]]


def fidelity(before: ArrayLike, after: ArrayLike, labels: ArrayLike | None = None) -> dict[str, float]:
    """Compare the class logits of another form of a model with the model's own.

    Args:
        before: (N, C), the model's.
        after: (N, C), the other form's.
        labels: (N,); −100 is no label.

    Returns:
        `rows`, N; `agreement`, the share of rows with the same top class; `mean_difference` and `max_difference` of the
        class probabilities; and `accuracy` of `after` if there are labels.

    Raises:
        ValueError: if the shapes differ, or there are no rows.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or len(first) == 0:
        raise ValueError(f"Class logits of shape {first.shape} and {second.shape} cannot be compared.")
    difference = np.abs(softmax(first, axis=1) - softmax(second, axis=1))
    report = {
        "rows": len(first),
        "agreement": float((first.argmax(1) == second.argmax(1)).mean()),
        "mean_difference": float(difference.mean()),
        "max_difference": float(difference.max()),
    }
    truth = np.full(len(first), NO_LABEL) if labels is None else np.asarray(labels)
    labelled = truth != NO_LABEL
    if labelled.any():
        report["accuracy"] = float((second.argmax(1) == truth)[labelled].mean())
    return report


@torch.inference_mode()
def class_logits(model: PreTrainedModel, batches: Batches) -> NDArray[np.float32]:
    """Compute the model's class logits, (N, C), in evaluation mode."""
    model.eval()
    logits = [logits_of(model(**_on_device(batch, model))).float().cpu().numpy() for batch in batches]
    if not logits:
        raise ValueError("There are no rows.")
    return np.concatenate(logits)


def _on_device(batch: Mapping[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    return {name: value.to(model.device) for name, value in batch.items()}
