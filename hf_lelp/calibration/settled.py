"""Settles a student's temperature and threshold on rows that were held back, and measures both on others."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import expit
from transformers import PreTrainedModel

from hf_lelp.calibration.pictures import plot_decisions, plot_reliability
from hf_lelp.calibration.temperature import check_enough, cross_entropy, fit_temperature, fold_temperature, reliability
from hf_lelp.calibration.threshold import (
    AIM_NAME,
    THRESHOLD_NAME,
    Aim,
    best_threshold,
    check_both_classes,
    counts,
    decide,
)
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import split_at_random
from hf_lelp.metrics import expected_calibration_error

HELD_BACK = 0.1  # of the training rows, where nothing else is asked for
RECORD_NAME = "held_back"  # in config.json: which rows the student did not train on


def hold_back(train: Dataset, share: float, seed: int, columns: Sequence[str] | None = None) -> tuple[Dataset, Dataset]:
    """Split training rows into those to train on and a share that is held back; see `split_at_random`.

    Raises:
        ValueError: if the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"held_back={share}: a share of the training rows, between 0 and 1.")
    return split_at_random(train, share, seed, columns)


def check_settling(num_labels: int, labels: NDArray[np.integer], *, calibrate: bool, threshold: str | None) -> None:
    """Refuse what no temperature or threshold can be fitted to; see `settle`.

    Args:
        num_labels: classes.
        labels: of the rows held back, (N,), −100 for none.
        calibrate: whether to fit a temperature.
        threshold: the aim, or `None`.

    Raises:
        ValueError: if too few rows have a label, there are more than two classes, or one of two has no row.
    """
    if threshold is not None and num_labels != 2:
        raise ValueError(f"threshold={threshold}: there are {num_labels} classes, and a threshold takes two.")
    if calibrate:
        check_enough(labels)
    if threshold is not None:
        check_both_classes(labels)


def settle(
    model: PreTrainedModel,
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    calibrate: bool,
    threshold: str | None,
) -> dict[str, Any]:
    """Fit and fold the temperature, then choose the threshold, on rows held back; both go into the student.

    Args:
        model: the student, changed in place.
        logits: of the rows held back, (N, C).
        labels: of these rows, (N,), −100 for none.
        calibrate: whether to fit a temperature.
        threshold: the aim, see `Aim.parse`; `None` chooses none.

    Returns:
        `rows` held back, `temperature` where one was fitted, and `threshold` and `aim` where one was chosen.

    Raises:
        ValueError: see `check_settling` and `best_threshold`.
    """
    check_settling(logits.shape[1], labels, calibrate=calibrate, threshold=threshold)
    aim = None if threshold is None else Aim.parse(threshold)
    found: dict[str, Any] = {"rows": len(labels)}
    if calibrate:
        found["temperature"] = fit_temperature(logits, labels)
        fold_temperature(model, found["temperature"])
        logits = logits / found["temperature"]
    if aim is not None:
        found |= {"threshold": best_threshold(expit(logits[:, 1] - logits[:, 0]), labels, aim), "aim": threshold}
        setattr(model.config, THRESHOLD_NAME, found["threshold"])
        setattr(model.config, AIM_NAME, threshold)
    return found


def measured(
    found: dict[str, Any], logits: NDArray[np.floating], labels: NDArray[np.integer], config: Any
) -> dict[str, Any]:
    """Add to what `settle` found how it does on other rows: calibration before and after, and the threshold's counts.

    Args:
        found: by `settle`.
        logits: of rows that neither training nor `settle` saw, (N, C), by the student as it is now.
        labels: of these rows, (N,).
        config: of the student.
    """
    labelled = labels != NO_LABEL
    if not labelled.any():
        return found
    known, truth = logits[labelled].astype(np.float64), labels[labelled]
    result = dict(found)
    if "temperature" in found:
        for name, values in (("before", known * found["temperature"]), ("after", known)):
            result[name] = {
                "ece": expected_calibration_error(values, truth),
                "cross_entropy": cross_entropy(values, truth),
                "reliability": reliability(values, truth),
            }
    if "threshold" in found:
        probability = expit(known[:, 1] - known[:, 0])
        result["at_half"] = counts(probability, truth, 0.5)
        result["at_threshold"] = counts(probability, truth, getattr(config, THRESHOLD_NAME))
    return result


def draw(
    result: dict[str, Any], logits: NDArray[np.floating], labels: NDArray[np.integer], config: Any, place: Path
) -> None:
    """Draw the pictures of a `measured` result: PLACE-reliability.png and PLACE-decisions.png, with matplotlib."""
    if find_spec("matplotlib") is None or not (labels != NO_LABEL).any():
        return
    if "before" in result:
        curves = {name: result[name]["reliability"] for name in ("before", "after")}
        plot_reliability(curves, place.with_name(f"{place.name}-reliability.png"))
    names = [str(name) for name in config.id2label.values()]
    plot_decisions(logits, labels, decide(logits, config), names, place.with_name(f"{place.name}-decisions.png"))


def summary_of(name: str, result: dict[str, Any]) -> str:
    """Say in lines for the terminal and the card what was fitted, and what it does."""
    lines = []
    if "temperature" in result:
        line = f"{name}: temperature {result['temperature']:.3f}, fitted on {result['rows']:,} rows held back"
        if "before" in result:
            before, after = (100 * result[when]["ece"] for when in ("before", "after"))
            line += f"; calibration error on the evaluation rows {before:.1f} before, {after:.1f} after"
        lines.append(line)
    if "threshold" in result:
        line = f"{name}: threshold {result['threshold']:.3f} for {result['aim']}"
        if "at_threshold" in result:
            at, half = (
                ", ".join(f"{kind} {100 * of[kind]:.1f}" for kind in ("precision", "recall", "f1"))
                for of in (result["at_threshold"], result["at_half"])
            )
            line += f"; on the evaluation rows {at} (at 0.5: {half})"
        lines.append(line)
    return "\n".join(lines)


def settings_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return what `settle` found by its names on the card."""
    settings: dict[str, Any] = {"rows held back": f"{found['rows']:,}"}
    if "temperature" in found:
        settings["temperature folded into the final layer"] = f"{found['temperature']:.3f}"
    if "threshold" in found:
        settings["threshold of the second class"] = f"{found['threshold']:.3f}, for {found['aim']}"
    return settings
