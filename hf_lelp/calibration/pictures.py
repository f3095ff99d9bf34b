"""Draws how far a student's probabilities can be trusted, and what its threshold does; needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hf_lelp.data.labels import NO_LABEL
from hf_lelp.storage.files import write_atomically

MOST_CLASSES = 20  # of a confusion matrix


def plot_reliability(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw reliability diagrams side by side: accuracy against confidence, dots as large as their bin has rows.

    Args:
        curves: by title, results of `reliability`.
        path: of the picture, a PNG.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    from matplotlib.figure import Figure  # not pyplot, which looks for a screen

    figure = Figure(figsize=(3.6 * len(curves), 3.6), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for panel, (title, bins) in zip(panels, curves.items(), strict=True):
        total = sum(one["rows"] for one in bins)
        panel.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        confidence, accuracy = ([one[name] for one in bins] for name in ("confidence", "accuracy"))
        panel.plot(confidence, accuracy, color="#0072B2", linewidth=1)
        panel.scatter(
            confidence, accuracy, s=[8 + 400 * one["rows"] / total for one in bins], color="#0072B2", alpha=0.6
        )
        panel.set(title=title, xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy")
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))


def plot_decisions(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    answers: NDArray[np.integer],
    names: Sequence[str],
    path: Path,
) -> None:
    """Draw the confusion matrix and, for two classes, the precision-recall curve with the point that is answered by.

    Args:
        logits: (N, C).
        labels: (N,), −100 for none; such rows are left out.
        answers: the class that each row was given, (N,).
        names: of the C classes.
        path: of the picture, a PNG.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import confusion_matrix, precision_recall_curve

    labelled = labels != NO_LABEL
    logits, labels, answers = logits[labelled], labels[labelled], answers[labelled]
    two = len(names) == 2
    figure = Figure(figsize=(8.0 if two else 4.6, 3.9), layout="constrained")
    panels = figure.subplots(1, 2 if two else 1, squeeze=False)[0]
    matrix = confusion_matrix(labels, answers, labels=np.arange(len(names)))
    panels[0].imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    shown = [name.replace("$", r"\$") for name in names]  # matplotlib reads dollars as formulas
    panels[0].set(title="rows by label and answer", xlabel="answer", ylabel="label")
    if len(names) <= MOST_CLASSES:
        panels[0].set_xticks(range(len(names)), shown, rotation=0 if two else 90)
        panels[0].set_yticks(range(len(names)), shown)
        for (row, column), count in np.ndenumerate(matrix):
            dark = count > matrix[row].sum() / 2
            panels[0].text(column, row, f"{count:,}", ha="center", va="center", color="white" if dark else "black")
    if two:
        precision, recall, _ = precision_recall_curve(labels, expit(logits[:, 1] - logits[:, 0]))
        panels[1].step(recall, precision, where="post", color="#0072B2")
        hits = matrix[1, 1]
        panels[1].plot(hits / max(matrix[1].sum(), 1), hits / max(matrix[:, 1].sum(), 1), "o", color="#D55E00")
        panels[1].axhline(matrix[1].sum() / max(matrix.sum(), 1), color="0.6", linewidth=1, linestyle=":")
        panels[1].set(
            title=f"{shown[1]} (dot: as answered)", xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02)
        )
        panels[1].spines[["top", "right"]].set_visible(False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))
