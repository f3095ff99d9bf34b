"""Makes the weights of the classes, so that examples weigh 1 on average over the training rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_lelp.config import BALANCED, LELPConfig
from hf_lelp.data.columns import LOGITS_COLUMN
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values
from hf_lelp.losses import subclass_targets


@dataclass(frozen=True)
class WeightsOfClasses:
    """The weight of each class, (C,), divided by its mean over the training rows.

    Attributes:
        distillation: by the teacher's probabilities; `None` where the rows have no logits of it.
        labels: by the labels; `None` where no row has one.
    """

    distillation: torch.Tensor | None
    labels: torch.Tensor | None


def read_class_weights(given: Sequence[Any] | None) -> list[Any] | None:
    """Read `class_weights`: numbers, or "balanced" in its list; `None` where all examples weigh alike.

    Raises:
        ValueError: if it is neither "none", "balanced" nor a positive number for each class.
    """
    if given is None or list(given) == ["none"]:
        return None
    if list(given) == [BALANCED]:
        return [BALANCED]
    try:
        weights = [float(value) for value in given]
    except (TypeError, ValueError):
        weights = []
    if len(weights) < 2 or not all(0 < value < float("inf") for value in weights):
        raise ValueError(f"class_weights={given}: 'none', 'balanced' or a positive number for each class.")
    return weights


def weights_of_classes(args: LELPConfig, dataset: Any, num_labels: int) -> WeightsOfClasses | None:
    """Make the weights that the settings ask for; `None` where all examples weigh alike.

    "balanced" is one over the share of a class: among the labels, or of the teacher's probability where no row has one.

    Args:
        args: settings of the run.
        dataset: training rows, prepared.
        num_labels: C.

    Raises:
        ValueError: if there is not one weight a class; a class has no row to balance; or the rows cannot be looked
            through beforehand.
    """
    given = read_class_weights(args.class_weights)
    if given is None:
        return None
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"class_weights are scaled over all training rows, and these are a {type(dataset).__name__}, which is read"
            " once. Use a datasets.Dataset, or leave class_weights out."
        )
    rows = dataset.with_format("numpy")
    taught = labelled = None
    if LOGITS_COLUMN in dataset.column_names and args.alpha < 1:
        logits = torch.as_tensor(np.asarray(column_values(rows, LOGITS_COLUMN)))
        taught = subclass_targets(logits, temperature=float(args.temperature)).double().mean(0).squeeze(-1)
    if "labels" in dataset.column_names:
        labels = np.asarray(column_values(rows, "labels"))
        counts = np.bincount(labels[labels != NO_LABEL], minlength=num_labels)
        labelled = torch.from_numpy(counts / counts.sum()) if counts.sum() else None
    shares = labelled if labelled is not None else taught
    if given != [BALANCED]:
        weights = torch.tensor(given, dtype=torch.float64)
        if len(weights) != num_labels:
            raise ValueError(f"class_weights={given}: the data has {num_labels} classes, one weight each.")
    else:
        if shares is None or (shares == 0).any():
            raise ValueError(
                "class_weights='balanced' divides by the share of each class, and a class has no training row. Give"
                " numbers, or rows of every class."
            )
        weights = 1 / shares

    def scaled(mean: torch.Tensor | None) -> torch.Tensor | None:
        return None if mean is None else (weights / (mean @ weights)).float()

    return WeightsOfClasses(scaled(taught), scaled(labelled))
