"""Combines teachers that keep their columns by themselves: the mean of several, or soft labels and an encoder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from datasets import Dataset
from numpy.typing import NDArray

from hf_lelp.classifiers import LinearHead
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN
from hf_lelp.teacher.kinds.soft_labels import SoftLabels
from hf_lelp.teacher.protocol import TeacherLike

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class CombinedTeacher:
    """A `TeacherLike` whose columns are made of those of its parts.

    Attributes:
        parts: teachers; each one's columns are kept under its own fingerprint.
        combine: from the columns of each part, of the same rows, to those of the whole.
        head: the linear map.
        class_names: of the C classes in the data's order; `None` where they have none.
        weights: of each part's logits, where the logits are a mean of them; `None` of soft labels with an encoder.
    """

    parts: tuple[TeacherLike, ...]
    combine: Callable[[Sequence[Columns]], dict[str, NDArray[np.float32]]]
    head: LinearHead
    class_names: list[str] | None
    weights: tuple[float, ...] | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of all that a row's results depend on but the row."""
        return self.head.fingerprint

    @property
    def input_columns(self) -> list[str]:
        """The columns that the parts read, each once."""
        return list(dict.fromkeys(name for part in self.parts for name in part.input_columns))

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Run all parts over a batch of n rows; see `TeacherLike`."""
        return self.combine([part(batch) for part in self.parts])


def mean_of(
    teachers: Sequence[TeacherLike], weights: Sequence[float], scales: Sequence[float], class_names: list[str] | None
) -> CombinedTeacher:
    """Combine teachers into one: the weighted mean of their logits, their embeddings side by side.

    With weights w and scales s the embedding is [h₁ / s₁, h₂ / s₂, …], and its final layer [w₁ s₁ W₁, w₂ s₂ W₂, …]:
    the logits are again a linear map, Σ w (h Wᵀ + b).

    Args:
        teachers: of the same C classes in the same order.
        weights: one each, with a sum of 1.
        scales: one each, positive.
        class_names: of the C classes.
    """
    layers = [teacher.head for teacher in teachers]
    factors = list(zip(layers, weights, scales, strict=True))
    weight = torch.cat([layer.weight * (share * scale) for layer, share, scale in factors], dim=1)
    bias = torch.stack([layer.bias * share for layer, share, _ in factors]).sum(0)
    key = repr([[teacher.fingerprint for teacher in teachers], list(weights), list(scales)])

    def combine(columns: Sequence[Columns]) -> dict[str, NDArray[np.float32]]:
        logits = sum(share * _array(of, LOGITS_COLUMN) for share, of in zip(weights, columns, strict=True))
        side_by_side = [_array(of, EMBEDDING_COLUMN) / scale for scale, of in zip(scales, columns, strict=True)]
        embedding = np.concatenate(side_by_side, axis=1).astype(np.float32)
        return {LOGITS_COLUMN: np.asarray(logits, dtype=np.float32), EMBEDDING_COLUMN: embedding}

    head = LinearHead(weight, bias, xxhash.xxh3_128_hexdigest(f"mean of {key}".encode()))
    return CombinedTeacher(tuple(teachers), combine, head, class_names, tuple(weights))


def soft_labels_beside(
    soft: SoftLabels, encoder: TeacherLike, weight: NDArray[np.floating], bias: NDArray[np.floating]
) -> CombinedTeacher:
    """Combine soft labels with the embeddings of an encoder; the logits are the soft labels' own.

    Args:
        soft: of C classes.
        encoder: gives embeddings, (n, D); its logits are not read.
        weight: (C, D), of a linear probe from these embeddings to the soft labels.
        bias: (C,), likewise.
    """

    def combine(columns: Sequence[Columns]) -> dict[str, NDArray[np.float32]]:
        of_soft, of_encoder = columns
        return {
            LOGITS_COLUMN: _array(of_soft, LOGITS_COLUMN).astype(np.float32),
            EMBEDDING_COLUMN: _array(of_encoder, EMBEDDING_COLUMN).astype(np.float32),
        }

    # The probe is fitted to the columns of both on the training rows. It rounds otherwise elsewhere: leave it out.
    key = f"soft labels {soft.fingerprint} beside {encoder.fingerprint}"
    layer = (torch.from_numpy(weight).float(), torch.from_numpy(bias).float())
    head = LinearHead(*layer, xxhash.xxh3_128_hexdigest(key.encode()))
    return CombinedTeacher((soft, encoder), combine, head, soft.class_names)


def parts_of(teacher: TeacherLike) -> tuple[TeacherLike, ...]:
    """Return the parts of a combined teacher; any other one is its own only part."""
    return teacher.parts if isinstance(teacher, CombinedTeacher) else (teacher,)


def answers_rows(teacher: TeacherLike, dataset: Dataset) -> bool:
    """Whether a teacher can answer the rows of a dataset: soft labels are of those alone that have their columns."""
    soft = [part for part in parts_of(teacher) if isinstance(part, SoftLabels)]
    return all({*part.input_columns} <= {*dataset.column_names} for part in soft)


def _array(columns: Columns, name: str) -> NDArray[np.floating]:
    values = np.asarray(columns[name])
    return values if values.dtype == np.float64 else values.astype(np.float32)
