"""Computes few-class metrics, which tell two students apart when there are only a handful of classes.

It gives the same numbers in three ways: `few_class_metrics` (a pure function), `compute_metrics` (for `Trainer`) and
`FewClassMetrics` (an `evaluate` module). The file imports nothing from the rest of the package. Thus
`evaluate.load("path/to/hf_lelp/metrics.py")` works on its own and without a network.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

if TYPE_CHECKING:
    from transformers import EvalPrediction

logger = logging.getLogger(__name__)

UNLABELLED = -100
NUM_ECE_BINS = 15

_DESCRIPTION = "Accuracy, macro F1, Matthews correlation, calibration error and agreement with a teacher."
_INPUTS = """
Args:
    predictions: class logits, one list of C floats per example.
    references: integer labels in 0..C-1; -100 marks an example without a label.
    teacher_logits: optional, to `compute` only: the teacher's class logits for all the examples, in the same order.
Returns:
    accuracy, macro_f1, mcc, ece (absent when no example has a label) and, given a teacher, teacher_agreement.
"""
_CITATION = """
@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={International Conference on Machine Learning},
  year={2017}
}
"""


def few_class_metrics(
    logits: ArrayLike, labels: ArrayLike, teacher_logits: ArrayLike | None = None
) -> dict[str, float]:
    """Score class logits against labels and, if given, against a teacher.

    Args:
        logits: (N, C) floats, finite; C >= 2.
        labels: (N,) integers in 0..C-1, or -100 for an example without a label.
        teacher_logits: (N, C) floats, finite, classes in the same order.

    Returns:
        `accuracy`, `macro_f1`, `mcc` and `ece` over the labelled examples, absent when there are none. `macro_f1` is
        the mean over all C classes; a class never seen nor predicted counts 0. With `teacher_logits` also
        `teacher_agreement`, the share of all N examples whose top class is the teacher's.

    Raises:
        ValueError: for a wrong shape or type, different lengths, a NaN or infinite logit, or a label that is no class.
    """
    logits = _checked_logits(logits, "logits")
    labels = _checked_labels(labels, *logits.shape)
    predicted = logits.argmax(axis=1)
    metrics: dict[str, float] = {}

    labelled = labels != UNLABELLED
    if labelled.any():
        y, y_hat = labels[labelled], predicted[labelled]
        metrics["accuracy"] = float(accuracy_score(y, y_hat))
        classes = np.arange(logits.shape[1])
        metrics["macro_f1"] = float(f1_score(y, y_hat, labels=classes, average="macro", zero_division=0))
        # With one class on both sides there is nothing to correlate. scikit-learn also gives 0, but warns.
        metrics["mcc"] = float(matthews_corrcoef(y, y_hat)) if np.union1d(y, y_hat).size > 1 else 0.0
        metrics["ece"] = expected_calibration_error(logits[labelled], y)

    if teacher_logits is not None:
        teacher_logits = _checked_logits(teacher_logits, "teacher_logits")
        if teacher_logits.shape != logits.shape:
            raise ValueError(
                f"teacher_logits have shape {teacher_logits.shape} and logits {logits.shape}: pass one row for each "
                "example and one column for each class, in the same order as the logits."
            )
        metrics["teacher_agreement"] = float((teacher_logits.argmax(axis=1) == predicted).mean())
    return metrics


def expected_calibration_error(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean gap between confidence (the top softmax probability) and accuracy, over 15 bins (Guo et al. 2017).

    Args:
        logits: (N, C), finite.
        labels: (N,) in 0..C-1.

    Returns:
        Σ_b `|accuracy_b - confidence_b|` · N_b / N over equal-width bins (lower, upper] of the confidence.
    """
    # With the row's maximum subtracted, the numerator of the top class is exp(0) = 1.
    confidence = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    correct = logits.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, NUM_ECE_BINS + 1)[1:-1], right=True)
    # N_b cancels: a bin's gap times its size is the sum of its examples' gaps.
    return float(np.abs(np.bincount(bins, weights=correct - confidence)).sum() / len(labels))


def compute_metrics(eval_prediction: EvalPrediction) -> dict[str, float]:
    """Compute `few_class_metrics` of an evaluation, for `Trainer(compute_metrics=...)`.

    It raises nothing: a search outlives a model that diverged. Figures that cannot be known are NaN, with a warning.

    Args:
        eval_prediction: `predictions` is the (N, C) class logits, or a tuple that starts with them (models that return
            more than logits); `label_ids` is (N,) integers. Both may be lists of batches (`eval_do_concat_batches`).
            Of predicted classes, (N,) integers, as `preprocess_logits_for_metrics` may give them, the figures are
            `accuracy` and `mcc`: the others need the logits.
    """
    try:
        predictions, labels = map(_in_one_piece, (eval_prediction.predictions, eval_prediction.label_ids))
        if predictions.ndim == 1 and np.issubdtype(predictions.dtype, np.integer):
            scores = few_class_metrics(_one_hot(predictions, labels), labels)
            return {name: scores[name] for name in ("accuracy", "mcc") if name in scores}
        return few_class_metrics(predictions, labels)
    except (TypeError, ValueError) as error:
        logger.warning(f"The metrics of this evaluation are not known: {error}")
        return dict.fromkeys(("accuracy", "macro_f1", "mcc", "ece"), float("nan"))


def _in_one_piece(values: Any) -> NDArray[Any]:
    """Join a list of batches; of a tuple of a model's outputs take the first."""
    if isinstance(values, list):
        return np.concatenate([_in_one_piece(value) for value in values])
    return np.asarray(values[0] if isinstance(values, tuple) else values)


def _one_hot(predicted: NDArray[np.integer], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return logits, (N, C), whose top classes are the predicted ones, (N,), with C large enough for the labels."""
    return np.eye(int(max(predicted.max(), labels.max(), 1)) + 1)[predicted]


class FewClassMetrics(evaluate.Metric):
    """`few_class_metrics` as an `evaluate` module.

    Example:
        metric = FewClassMetrics()  # or evaluate.load("path/to/hf_lelp/metrics.py")
        metric.compute(predictions=logits, references=labels, teacher_logits=teacher_logits)
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # teacher_logits is no feature, because `evaluate` has no optional features.
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: Any, references: Any, teacher_logits: ArrayLike | None = None) -> dict[str, float]:
        return few_class_metrics(predictions, references, teacher_logits)


def _checked_logits(logits: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `logits` as float64 (N, C), N >= 1, C >= 2, all finite."""
    array = np.asarray(logits, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(f"{name} have shape {array.shape}: expected (N, C) with N >= 1 examples and C >= 2 classes.")
    bad_rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad_rows.size:
        row = bad_rows[0]
        raise ValueError(
            f"{name} hold NaN or infinite values in {bad_rows.size} of {len(array)} rows, first in row {row}: "
            f"{array[row].tolist()}. Look for a diverged training run or a float16 overflow."
        )
    return array


def _checked_labels(labels: ArrayLike, num_examples: int, num_classes: int) -> NDArray[np.int64]:
    """Return `labels` as int64 (num_examples,), each a class or -100."""
    array = np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels have shape {array.shape} and type {array.dtype}: expected (N,) integers.")
    if len(array) != num_examples:
        raise ValueError(f"There are {len(array)} labels for {num_examples} rows of logits: expected one a row.")
    bad_rows = np.flatnonzero((array != UNLABELLED) & ((array < 0) | (array >= num_classes)))
    if bad_rows.size:
        raise ValueError(
            f"Label {array[bad_rows[0]]} in row {bad_rows[0]} ({bad_rows.size} such rows) is no class: logits have "
            f"{num_classes} columns, so labels run from 0 to {num_classes - 1}, or {UNLABELLED} for no label."
        )
    return array.astype(np.int64)
