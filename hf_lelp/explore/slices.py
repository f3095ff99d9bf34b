"""Finds slices of the data where a model is worse, and rows that are worth a look.

A slice is worse if the interval of its accuracy lies below the mean of its class. With many slices some would by
chance. So the intervals are corrected for the number of slices and models (Bonferroni), and a slice that some rows
chose is checked on rows that did not.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

ERROR = 0.05  # chance that any slice is named without cause


def interval(right: int, rows: int, error: float = ERROR) -> tuple[float, float]:
    """Return Wilson's interval of a share, of confidence 1 − `error`; 0 to 1 of no rows."""
    if not rows:
        return 0.0, 1.0
    # scipy's binomtest gives the same, but an exact p-value first, which takes most of the time with many slices.
    z, share = float(-ndtri(error / 2)), right / rows
    centre = share + z**2 / (2 * rows)
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return float((centre - half) / (1 + z**2 / rows)), float((centre + half) / (1 + z**2 / rows))


def find_slices(
    slice_of: NDArray[np.integer],
    classes: NDArray[np.integer],
    right: Mapping[str, NDArray[np.bool_]],
    chooses: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """Measure every model in every slice.

    Args:
        slice_of: slice of each row, (n,), within its class; numbers from 0 on.
        classes: class of each row, (n,).
        right: of each model, whether it answers a row rightly, (n,). The first one is the teacher; rows are lost
            against it.
        chooses: rows on which slices are chosen, (n,); they are checked on the others.

    Returns:
        A dictionary a slice, the one that lost most rows first: `class`, `slice`, `rows`, `lost` (the most rows that
        the teacher has right and a student has not, net; of the teacher alone: rows fewer right than at its mean), and
        `models`, by name `accuracy`, `low` and `high` (corrected interval) on all rows, `mean` of the class, `worse`
        (on the rows that choose), `stays` (whether it is worse on the other rows too; `None` where it was not chosen)
        and, of these other rows, `checked_rows`, `checked_accuracy` and `checked_mean`.
    """
    places = [(index, number) for index in np.unique(classes) for number in np.unique(slice_of[classes == index])]
    error = ERROR / max(len(places) * len(right), 1)
    found: list[dict[str, Any]] = []
    for index, number in places:
        of_class = classes == index
        rows = of_class & (slice_of == number)
        models = {name: _measure(values, rows, of_class, chooses, error) for name, values in right.items()}
        found.append({"class": int(index), "slice": int(number), "rows": int(rows.sum()), "models": models})
    chosen = sum(measured["worse"] for one in found for measured in one["models"].values())
    for one in found:
        for measured in one["models"].values():
            _check(measured, ERROR / max(chosen, 1))
        one["lost"] = _lost(one)
    return sorted(found, key=lambda one: -one["lost"])


def _measure(
    right: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    of_class: NDArray[np.bool_],
    chooses: NDArray[np.bool_],
    error: float,
) -> dict[str, Any]:
    low, high = interval(int(right[rows].sum()), int(rows.sum()), error)
    choosing, checking = rows & chooses, rows & ~chooses
    _, chosen_high = interval(int(right[choosing].sum()), int(choosing.sum()), error)
    return {
        "accuracy": _mean(right, rows),
        "low": low,
        "high": high,
        "mean": _mean(right, of_class),
        "worse": bool(chosen_high < _mean(right, of_class & chooses)),
        "checked_rows": int(checking.sum()),
        "checked_accuracy": _mean(right, checking),
        "checked_mean": _mean(right, of_class & ~chooses),
    }


def _mean(right: NDArray[np.bool_], rows: NDArray[np.bool_]) -> float:
    return float(right[rows].mean()) if rows.any() else float("nan")


def _check(measured: dict[str, Any], error: float) -> None:
    measured["stays"] = None
    rows, accuracy = measured["checked_rows"], measured["checked_accuracy"]
    if measured["worse"]:
        measured["stays"] = bool(rows and interval(round(rows * accuracy), rows, error)[1] < measured["checked_mean"])
    for name in ("checked_accuracy", "checked_mean"):  # of no rows: JSON has no NaN
        measured[name] = None if np.isnan(measured[name]) else measured[name]


def _lost(one: dict[str, Any]) -> int:
    teacher, *students = one["models"].values()
    if not students:
        return round(one["rows"] * (teacher["mean"] - teacher["accuracy"]))
    return max(round(one["rows"] * (teacher["accuracy"] - student["accuracy"])) for student in students)


def confident_errors(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], labelled: NDArray[np.bool_], count: int
) -> list[int]:
    """Return the rows that a model is surest to have another class than their label, the surest first.

    Args:
        probabilities: (N, C).
        labels: (N,).
        labelled: rows that have a label, (N,).
        count: at most so many.
    """
    wrong = np.flatnonzero(labelled & (probabilities.argmax(-1) != labels))
    return [int(row) for row in wrong[np.argsort(-probabilities[wrong].max(-1), kind="stable")[:count]]]


def furthest_apart(ours: NDArray[np.floating], theirs: NDArray[np.floating], count: int) -> list[int]:
    """Return the rows, of those answered otherwise, where the probabilities, (N, C), differ most, half their L1."""
    others = np.flatnonzero(ours.argmax(-1) != theirs.argmax(-1))
    distance = np.abs(ours[others] - theirs[others]).sum(-1) / 2
    return [int(row) for row in others[np.argsort(-distance, kind="stable")[:count]]]
