"""Gathers what teacher and students say of the rows that are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image
from numpy.typing import NDArray
from scipy.special import softmax

from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.subclass_scores import SubclassScores
from hf_lelp.student.answers import Answers

READ_ROWS = 1024  # in memory at once


@dataclass(frozen=True)
class Explored:
    """N rows that nobody trained on, and what teacher and students say of them.

    Attributes:
        classes: names of the C classes.
        labels: (N,), −100 for none.
        teacher: logits, (N, C).
        directions: each row's projections on the K leading directions of its own class, (N, K).
        scores: of its own class's pseudo-subclasses, (N, S).
        projections: the ones that gave both.
        students: by name.
        texts: of the rows; `None` where they are no texts.
        images: of the rows, of Pillow, by number; `None` where they are none.
        groups: finer groups that no model saw; `None` if not known.
    """

    classes: list[str]
    labels: NDArray[np.int64]
    teacher: NDArray[np.floating]
    directions: NDArray[np.floating]
    scores: NDArray[np.floating]
    projections: ClassProjections
    students: dict[str, Answers] = field(default_factory=dict)
    texts: Sequence[str] | None = None
    images: Any = None
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Whether a row has a label, (N,)."""
        return self.labels != NO_LABEL

    @cached_property
    def class_of(self) -> NDArray[np.int64]:
        """Class of each row, (N,): its label, or the teacher's answer where it has none."""
        return own_class(self.labels, self.teacher)

    @cached_property
    def subclass_of(self) -> NDArray[np.int64]:
        """Pseudo-subclass of each row within its class, (N,): the one of the largest score."""
        return np.asarray(self.scores.argmax(-1))

    @property
    def logits(self) -> dict[str, NDArray[np.floating]]:
        """Of each model, (N, C); the teacher comes first."""
        return {"teacher": self.teacher, **{name: student.logits for name, student in self.students.items()}}

    @cached_property
    def answers(self) -> dict[str, NDArray[np.int64]]:
        """The class that each model gives each row, (N,); the teacher comes first."""
        return {name: values.argmax(-1) for name, values in self.logits.items()}

    @cached_property
    def probabilities(self) -> dict[str, NDArray[np.floating]]:
        """The class probabilities of each model, (N, C)."""
        return {name: softmax(values.astype(np.float64), axis=-1) for name, values in self.logits.items()}

    @cached_property
    def numbered_groups(self) -> tuple[list[str], NDArray[np.int64]] | None:
        """The names of the groups, in their order, and the number of each row's, (N,); `None` without groups."""
        if self.groups is None:
            return None
        names, numbers = np.unique(np.asarray(self.groups), return_inverse=True)
        return [str(name) for name in names], numbers


def own_class(labels: NDArray[np.int64], logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the class of each row, (N,): its label, or the teacher's answer where it has none."""
    return np.where(labels == NO_LABEL, logits.argmax(-1), labels)


def explored_rows(
    columns: Dataset,
    labels: NDArray[np.int64],
    classes: list[str],
    projections: ClassProjections,
    scores: SubclassScores,
    **known: Any,
) -> Explored:
    """Project the teacher's columns, and keep of every row what concerns its own class.

    Args:
        columns: the teacher's, N rows.
        labels: (N,), −100 for none.
        classes: names of the C classes.
        projections: fitted on other rows of this teacher.
        scores: makes the scores of the pseudo-subclasses of `projections`.
        **known: `students`, `texts`, `images` and `groups` of `Explored`.

    Raises:
        ValueError: if the rows have no embeddings.
    """
    if EMBEDDING_COLUMN not in columns.column_names:
        raise ValueError(
            f"These rows were kept without {EMBEDDING_COLUMN} (they have {', '.join(columns.column_names)}), and their"
            " subclasses come from it. Run the teacher over the rows again."
        )
    columns = columns.with_format("numpy")
    logits = np.asarray(column_values(columns, LOGITS_COLUMN))
    own = own_class(labels, logits)
    directions, of_subclasses = [], []
    for start in range(0, len(columns), READ_ROWS):
        projected = projections(columns[start : start + READ_ROWS])[PROJECTIONS_COLUMN]
        place = np.arange(len(projected)), own[start : start + len(projected)]
        directions.append(projected[place])
        of_subclasses.append(scores(torch.from_numpy(projected)).numpy()[place])
    return Explored(
        classes, labels, logits, np.concatenate(directions), np.concatenate(of_subclasses), projections, **known
    )


def texts_of(dataset: Dataset, columns: Sequence[str]) -> list[str] | None:
    """Return the text of each row, two texts joined by a bar; `None` where the columns are no texts."""
    values = [column_values(dataset.with_format(None), name) for name in columns]
    if not all(isinstance(value, str) for of_column in values for value in of_column[:1]):
        return None
    return [" | ".join(map(str, row)) for row in zip(*values, strict=True)]


def images_of(dataset: Dataset, columns: Sequence[str]) -> Any:
    """Return the rows' images, decoded when they are asked for by number; `None` where the column holds none."""
    if not isinstance(dataset.features[columns[0]], Image):
        return None
    return dataset.with_format(None).select_columns(list(columns[:1]))[columns[0]]
