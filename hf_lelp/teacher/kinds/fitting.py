"""Makes combined teachers, which depend on their parts' columns of the training rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import softmax

from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN
from hf_lelp.data.labels import match_names
from hf_lelp.data.rows import column_values
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.kinds.combined import CombinedTeacher, mean_of, soft_labels_beside
from hf_lelp.teacher.kinds.encoder import Encoder
from hf_lelp.teacher.kinds.linear_probe import fit_linear
from hf_lelp.teacher.kinds.soft_labels import SoftLabels
from hf_lelp.teacher.protocol import TeacherLike

READ_ROWS = 4096  # of embeddings at a time


def mean_of_teachers(
    teachers: Sequence[TeacherLike],
    dataset: Dataset,
    weights: Sequence[float] | None = None,
    cache_dir: str | Path | None = None,
    *,
    dtype: str = "float32",
) -> CombinedTeacher:
    """Combine teachers into one, whose embeddings of these rows have a mean variance of 1 from each; see `mean_of`.

    Args:
        teachers: two or more of the same classes in the same order.
        dataset: training rows, which each teacher is run over.
        weights: of the teachers, as shares of their sum; `None` weighs all alike.
        cache_dir: see `teacher_columns`, as for `dtype`.
        dtype: of the columns.

    Raises:
        ValueError: if the teachers' classes differ, or there are not as many positive weights as teachers.
    """
    first = teachers[0]
    for teacher in teachers[1:]:
        if not _same_classes(first, teacher):
            ours, theirs = (
                ", ".join(each.class_names or [f"{len(each.head.weight)} without names"]) for each in (first, teacher)
            )
            raise ValueError(
                f"The teachers have other classes, or another order of them: {ours}; and {theirs}. Several teachers"
                " must share their classes: leave out those of another task, or give their class names in the same"
                " words."
            )
    weights = [1.0] * len(teachers) if weights is None else list(weights)
    if len(weights) != len(teachers) or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(
            f"teacher_weights={weights} for {len(teachers)} teachers: as many positive numbers are needed."
        )
    columns = [teacher_columns(dataset, teacher, cache_dir, dtype=dtype) for teacher in teachers]
    names = next((teacher.class_names for teacher in teachers if teacher.class_names is not None), None)
    return mean_of(teachers, [weight / sum(weights) for weight in weights], list(map(_deviation, columns)), names)


def with_encoder(
    soft: SoftLabels, encoder: Encoder, dataset: Dataset, cache_dir: str | Path | None = None, *, dtype: str = "float32"
) -> CombinedTeacher:
    """Give soft labels the embeddings of an encoder, and the linear probe from these to them; see `soft_labels_beside`.

    Args:
        soft: of the training rows.
        encoder: of the texts.
        dataset: training rows.
        cache_dir: see `teacher_columns`, as for `dtype`.
        dtype: of the columns.
    """
    logits, embedding = (
        column_values(teacher_columns(dataset, part, cache_dir, dtype=dtype).with_format("numpy"), name)
        for part, name in ((soft, LOGITS_COLUMN), (encoder, EMBEDDING_COLUMN))
    )
    weight, bias = fit_linear(embedding, softmax(logits.astype(np.float64), axis=1))
    return soft_labels_beside(soft, encoder, weight, bias)


def _deviation(columns: Dataset) -> float:
    """Return the root of the mean variance of a teacher's embeddings, to four digits: more would tell its rounding."""
    count, total, squares = 0, 0.0, 0.0
    shift: Any = None  # without it the difference of two large sums would lose the variance
    for batch in columns.select_columns([EMBEDDING_COLUMN]).with_format("numpy").iter(READ_ROWS):
        rows = np.asarray(batch[EMBEDDING_COLUMN], dtype=np.float64)
        shift = rows.mean(0) if shift is None else shift
        count, total = count + len(rows), total + (rows - shift).sum(0)
        squares = squares + np.square(rows - shift).sum(0)
    variance = float(np.mean(squares / count - np.square(total / count)))
    return float(f"{variance**0.5:.4g}") if variance > 0 else 1.0


def _same_classes(first: TeacherLike, other: TeacherLike) -> bool:
    """Whether two teachers have as many classes, and by name the same in the same order; names may be missing."""
    count = len(first.head.weight)
    if first.class_names is None or other.class_names is None or count != len(other.head.weight):
        return count == len(other.head.weight)
    try:
        return match_names(first.class_names, other.class_names) == list(range(count))
    except ValueError:
        return False
