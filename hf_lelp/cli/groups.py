"""Measures, tabulates and draws how far pseudo-subclasses follow groups that the teacher never saw."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from numpy.typing import NDArray

from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.rows import column_values
from hf_lelp.markdown import cell, markdown_table, printable
from hf_lelp.storage.files import write_atomically
from hf_lelp.trainer import LELPTrainer


def group_alignment(
    classes: NDArray[np.integer],
    subclasses: NDArray[np.integer],
    groups: NDArray[Any],
    class_names: list[str],
    num_subclasses: int,
) -> dict[str, Any]:
    """Measure how far pseudo-subclasses follow groups that the teacher never saw.

    Args:
        classes: (N,), class of each example.
        subclasses: (N,), its pseudo-subclass within the class, 0 to S − 1.
        groups: (N,), its group.
        class_names: of the C classes.
        num_subclasses: S.

    Returns:
        The group names, and for each class the counts, (S, groups), and the adjusted mutual information of subclass
        and group: 1 if each determines the other, about 0 for a random partition.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # slow to import

    names, index = np.unique(groups, return_inverse=True)
    by_class = {}
    for position, class_name in enumerate(class_names):
        of_class = classes == position
        counts = np.zeros((num_subclasses, len(names)), dtype=int)
        np.add.at(counts, (subclasses[of_class], index[of_class]), 1)
        by_class[class_name] = {
            "counts": counts.tolist(),
            "adjusted_mutual_information": float(adjusted_mutual_info_score(subclasses[of_class], index[of_class])),
        }
    return {"groups": [str(name) for name in names], "classes": by_class}


def group_table(alignment: dict[str, Any]) -> str:
    """Show `group_alignment` as a Markdown table: the share of each group in each pseudo-subclass."""
    body = []
    for class_name, result in alignment["classes"].items():
        counts = np.array(result["counts"])
        total = counts.sum(0)
        name = cell(class_name)
        body.append([f"{name}, all", f"{total.sum():,}", *_shares(total)])
        for subclass, row in enumerate(counts):
            body.append([f"{name}, {subclass}", f"{row.sum():,}", *_shares(row)])
    scores = ", ".join(
        f"{cell(name)} {result['adjusted_mutual_information']:.3f}" for name, result in alignment["classes"].items()
    )
    return (
        f"{markdown_table(['pseudo-subclass', 'examples', *map(cell, alignment['groups'])], body)}\n\n"
        f"Adjusted mutual information with the groups (0: chance, 1: the same): {scores}"
    )


def _shares(counts: NDArray[np.integer]) -> list[str]:
    return [f"{100 * share:.0f}%" for share in counts / max(counts.sum(), 1)]


def plot_groups(alignment: dict[str, Any], path: Path) -> None:
    """Draw the groups that make up each pseudo-subclass as a PNG, with a panel for each class.

    Args:
        alignment: result of `group_alignment`.
        path: of the picture.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    from matplotlib.figure import Figure  # not pyplot, which looks for a screen

    classes: dict[str, Any] = alignment["classes"]
    figure = Figure(figsize=(4.2 * len(classes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    for panel, (class_name, result) in zip(panels, classes.items(), strict=True):
        counts = np.array(result["counts"], dtype=float)
        rows = np.vstack([counts, counts.sum(0)])
        shares = 100 * rows / np.maximum(rows.sum(1, keepdims=True), 1)
        names = [*map(str, range(len(counts))), "all"]
        left = np.zeros(len(rows))
        bars = []
        for share in shares.T:
            bars.append(panel.barh(names, share, left=left, height=0.8))
            left += share
        score = result["adjusted_mutual_information"]
        panel.set(
            title=f"{_shown(class_name)} (mutual information {score:.2f})", xlabel="% of the examples", xlim=(0, 100)
        )
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False)
    panels[0].invert_yaxis()
    panels[0].set_ylabel("pseudo-subclass")
    groups = [_shown(group) for group in alignment["groups"]]
    figure.legend(bars, groups, loc="outside lower center", ncols=6, frameon=False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))


def _shown(name: str) -> str:
    """Escape a name for matplotlib: it reads dollars as formulas and hides legend entries that begin with _."""
    name = printable(name).replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def alignment_of(trainer: LELPTrainer, groups: list[str]) -> dict[str, Any]:
    """Measure how far the training rows' hard pseudo-subclasses, each within its teacher class, follow the groups.

    Args:
        trainer: after training.
        groups: of the training data's own rows. Windows, views and unlabelled rows are left out.
    """
    rows, origins = trainer.train_dataset, trainer.prepared.origins
    assert isinstance(rows, Dataset) and trainer.model.config.id2label is not None
    if origins is not None:
        rows = rows.select(np.flatnonzero(origins.own))
    columns = rows.with_format("torch")
    scores = trainer.subclass_scores(column_values(columns, PROJECTIONS_COLUMN))
    classes = column_values(columns, LOGITS_COLUMN).argmax(-1)
    subclasses = scores[torch.arange(len(classes)), classes].argmax(-1)
    names = list(map(str, trainer.model.config.id2label.values()))
    return group_alignment(classes.numpy(), subclasses.numpy(), np.asarray(groups), names, scores.shape[-1])


def group_names(dataset: Dataset, column: str) -> list[str]:
    """Return the name of each row's group."""
    feature = dataset.features[column]
    groups = column_values(dataset, column)
    return feature.int2str(groups) if isinstance(feature, ClassLabel) else list(map(str, groups))
