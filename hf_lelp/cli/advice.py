"""Gives one line of advice where data or subclasses call for a second look."""

from collections.abc import Mapping

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hf_lelp.classifiers import shown_names
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.trainer import LELPTrainer

RARE = 0.2  # share of the rows below which accuracy says little of a class
FEW = 0.5  # of the S subclasses are there in effect
FEW_TEXTS = 10_000  # so many gained by views, and 18,639 did not (docs/understand/evidence.md)
VIEWS = 4  # more gained no more


def rare_class_advice(rows: Mapping[str, int], *, in_evaluation: bool = False) -> str | None:
    """Advise where a class has less than a fifth of the rows.

    Args:
        rows: of each class, by name.
        in_evaluation: whether precision and recall are shown beside.
    """
    total = sum(rows.values())
    rare = {name: count / total for name, count in rows.items() if count < RARE * total} if total else {}
    if not rare or len(rows) > 1 / RARE:  # with six classes one is always so rare
        return None
    named = ", ".join(f"{name!r} has {share:.0%}" for name, share in rare.items())
    look = "see its recall above" if in_evaluation else "hf-lelp evaluate shows its precision and recall"
    return f"Few rows of a class: {named} of them. Accuracy says little of it; {look}."


def effective_numbers(projections: ClassProjections, num_subclasses: int, whitening: float) -> NDArray[np.float64]:
    """Return for each class, (C,), how many of its directions carry its variance: (Σ v)² / Σ v², from 1 to S.

    Args:
        projections: with the variances of the directions.
        num_subclasses: S.
        whitening: γ; each variance v counts as v^(1 − γ).
    """
    variances = projections.variance[:, :num_subclasses].double().clamp(min=0) ** (1 - whitening)
    return (variances.sum(1) ** 2 / (variances**2).sum(1).clamp(min=1e-300)).numpy()


def few_subclasses_advice(
    projections: ClassProjections, names: list[str], num_subclasses: int, whitening: float
) -> str | None:
    """Advise where a few directions carry most of a class's variance, so that its subclasses are few in effect."""
    numbers = effective_numbers(projections, num_subclasses, whitening)
    few = [
        f"{name!r} {number:.1f}" for name, number in zip(names, numbers, strict=True) if number < FEW * num_subclasses
    ]
    if not few or whitening >= 1:
        return None
    return (
        f"Few directions in effect: of the {num_subclasses} of a class, {', '.join(few)}, as the first hold nearly all"
        f" of the variance; try --whitening {0.5 if whitening < 0.5 else 1.0}."
    )


def few_texts_advice(rows: int, recipe: str | None, views: int) -> str | None:
    """Advise altered copies where a new student reads few texts.

    Args:
        rows: to learn from.
        recipe: that made the student, if one did.
        views: of each row that are made already.
    """
    if views or rows > FEW_TEXTS or recipe is None or not recipe.startswith("new:"):
        return None
    return f"Few texts for a new student ({rows:,}): try altered copies, which the teacher reads too, --views {VIEWS}."


def advice_of(trainer: LELPTrainer) -> list[str]:
    """Collect the lines of advice on a trained student's data and subclasses."""
    args, names = trainer.args, shown_names(trainer.model.config)
    found = []
    train = trainer.train_dataset
    if isinstance(train, Dataset) and "labels" in train.column_names:
        labels, origins = np.asarray(column_values(train.with_format("numpy"), "labels")), trainer.prepared.origins
        if origins is not None:  # a class of short texts has fewer views
            labels = labels[origins.own]
        counts = np.bincount(labels[labels != NO_LABEL], minlength=len(names)).tolist()
        found.append(rare_class_advice(dict(zip(names, counts, strict=True))))
    if isinstance(train, Dataset) and args.alpha < 1 and args.soft_label_columns is None:
        found.append(few_texts_advice(len(train), StudentInputs.of(trainer.model.config).recipe, args.views))
    if trainer.projections is not None and args.alpha < 1 and int(args.num_subclasses) > 1:
        subclasses = int(args.num_subclasses)
        found.append(few_subclasses_advice(trainer.projections, names, subclasses, args.whitening or 0.0))
    return [line for line in found if line is not None]
