"""Reads soft labels, such as an API, annotators or an ensemble gave, from columns of the data in place of a teacher."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
import xxhash
from datasets import Dataset
from numpy.typing import NDArray

from hf_lelp.classifiers import LinearHead
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN
from hf_lelp.data.rows import RowError

FLOOR = 1e-6  # of a probability: the logarithm of 0 is no target
TOLERANCE = 0.01  # by which a row's probabilities may miss 1, as rounded ones do; they are scaled to it


class SoftLabels:
    """Soft labels of the data, as a teacher: its logits are their logarithms, and so is its embedding.

    A probability below `FLOOR` counts as `FLOOR`. Logits stay as they are.

    Args:
        columns: one of lists or of numbers by class name, or one of numbers for each class.
        scores: what they hold: "probabilities", "log_probabilities" or "logits".
        classes: names of the C classes in the order of the columns, or how many there are.
        class_order: the index in that order of each class, to give them in another one.

    Attributes:
        head: C × C, the identity: nothing of these embeddings is outside what it reads.
        fingerprint: of columns, kind of scores, floor and order.

    Raises:
        ValueError: if there is no such kind of scores.
    """

    def __init__(
        self,
        columns: Sequence[str],
        scores: str,
        classes: Sequence[str] | int,
        class_order: Sequence[int] | None = None,
    ) -> None:
        if scores not in _LOGITS:
            raise ValueError(f"teacher_scores={scores!r}: one of {', '.join(_LOGITS)} is needed, nothing is guessed.")
        self.input_columns, self.scores = list(columns), scores
        self._classes = [str(index) for index in range(classes)] if isinstance(classes, int) else list(classes)
        self._named = not isinstance(classes, int)
        self.class_order = list(range(len(self._classes)) if class_order is None else class_order)
        self.fingerprint = xxhash.xxh3_128_hexdigest(
            repr(["soft labels", self.input_columns, scores, self._classes, self.class_order, FLOOR]).encode()
        )
        size = len(self.class_order)
        self.head = LinearHead(torch.eye(size), torch.zeros(size), self.fingerprint)

    @classmethod
    def of(cls, dataset: Dataset, columns: Sequence[str], scores: str | None) -> "SoftLabels":
        """Find the classes in a dataset: of several columns by their names, of one by its first row.

        Raises:
            ValueError: if `scores` is missing, or columns are; or if there are fewer than two classes.
        """
        missing = [name for name in columns if name not in dataset.column_names]
        if missing or not len(dataset):
            raise ValueError(
                f"soft_label_columns names {', '.join(missing) or 'columns'}, and the training data has {len(dataset)}"
                f" rows of {', '.join(dataset.column_names)}."
            )
        classes: list[str] | int = _without_common_start(columns)
        if len(columns) == 1:
            first = dataset.with_format(None)[0][columns[0]]
            classes = list(first) if isinstance(first, Mapping) else np.size(first)
        if (classes if isinstance(classes, int) else len(classes)) < 2:
            raise ValueError(
                f"soft_label_columns={list(columns)} gives one number a row, and two classes or more are needed. Name a"
                " column for each class, or one of lists. Of a single score z or p, make both: the other class has 0"
                " or 1 − p."
            )
        if len(columns) > 1 and classes == [str(index) for index in range(len(columns))]:
            classes = len(columns)
        return cls(columns, scores or "", classes)

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in `class_order`, or `None` where they have none."""
        numbers = [str(index) for index in range(len(self._classes))]
        if not self._named or self._classes == numbers:
            return None
        return [self._classes[index] for index in self.class_order]

    def reordered(self, class_order: Sequence[int]) -> "SoftLabels":
        """Return the same with its classes reordered: class i of the result is `class_order[i]` of this one."""
        classes = self._classes if self._named else len(self._classes)
        return SoftLabels(self.input_columns, self.scores, classes, [self.class_order[index] for index in class_order])

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Return `teacher_logits`, (n, C), and the same as `teacher_embedding`, of n rows.

        Raises:
            ValueError: if a row's soft labels are no such scores, naming the row and what it holds.
        """
        rows = self._rows(batch)
        values = np.full((len(rows), len(self._classes)), np.nan)
        for number, row in enumerate(rows):
            try:
                given = np.array([np.nan if value is None else value for value in row], dtype=np.float64)
            except (TypeError, ValueError):
                given = np.empty(0)
            if given.shape != values.shape[1:]:
                _refuse(number, row, f"{len(self._classes)} numbers are expected", self.scores)
            values[number] = given
        faults = _FAULTS[self.scores](values)
        for what, wrong in {"a value is missing or not finite": ~_usable(values, self.scores), **faults}.items():
            if wrong.any():
                number = int(wrong.argmax())
                _refuse(number, values[number].tolist(), what, self.scores)
        logits = _LOGITS[self.scores](values)[:, self.class_order].astype(np.float32)
        return {LOGITS_COLUMN: logits, EMBEDDING_COLUMN: logits}

    def _rows(self, batch: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Return each row's scores in the order of the columns."""
        if len(self.input_columns) > 1:
            return list(zip(*(batch[name] for name in self.input_columns), strict=True))
        rows = []
        for row in batch[self.input_columns[0]]:
            by_name = isinstance(row, Mapping)
            rows.append([row.get(name) for name in self._classes] if by_name else [] if row is None else row)
        return rows


def _refuse(row: int, found: Any, what: str, scores: str) -> NoReturn:
    shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in found) or "none"
    raise RowError(
        f"has the soft labels {shown}: {what} of {scores}. Repair or drop it, or set teacher_scores to what the columns"
        f" hold ({', '.join(_LOGITS)}).",
        row,
    )


def _usable(values: NDArray[np.float64], scores: str) -> NDArray[np.bool_]:
    """Whether each row is finite; the logarithm of 0 is, too."""
    allowed = np.isneginf(values) if scores == "log_probabilities" else False
    return np.asarray((np.isfinite(values) | allowed).all(-1))


def _of_probabilities(values: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    total = values.sum(-1)
    return {"one is negative": (values < 0).any(-1), "a sum of 1 is expected": ~(abs(total - 1) <= TOLERANCE)}


def _of_log_probabilities(values: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    with np.errstate(over="ignore"):  # logits, which these are not, may be large
        return {"a sum of 1 is expected of the probabilities": ~(abs(np.exp(values).sum(-1) - 1) <= TOLERANCE)}


def _logarithms(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.maximum(probabilities, FLOOR)
    return np.asarray(np.log(raised / raised.sum(-1, keepdims=True)))


_FAULTS = {
    "probabilities": _of_probabilities,
    "log_probabilities": _of_log_probabilities,
    "logits": lambda values: {},
}
_LOGITS = {
    "probabilities": _logarithms,
    "log_probabilities": lambda values: _logarithms(np.exp(values)),
    "logits": lambda values: values,
}


def _without_common_start(names: Sequence[str]) -> list[str]:
    """Drop what all names begin with, up to its last separator: p_negative and p_positive name the classes so."""
    same = itertools.takewhile(lambda signs: len({*signs}) == 1, zip(*names, strict=False))
    start = re.match(r"(.*[\W_])?", "".join(signs[0] for signs in same))
    return [name[start.end() if start else 0 :] for name in names]
