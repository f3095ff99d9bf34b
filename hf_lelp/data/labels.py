"""Settles the classes of a run: whether data and teacher share them, and in which order."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, IterableDataset, Value
from numpy.typing import NDArray

from hf_lelp.data.columns import LOGITS_COLUMN
from hf_lelp.data.rows import column_values

NO_LABEL = -100


class UnknownClasses(ValueError):
    """Raised where neither teacher nor data tell what the classes are."""


@dataclass(frozen=True)
class Classes:
    """The C classes in the data's order, which is also the student's.

    Attributes:
        num_labels: C.
        names: of the classes, or `None` where neither data nor teacher has any.
        teacher_order: the teacher's index of each class; `None` without a teacher.
    """

    num_labels: int
    names: list[str] | None
    teacher_order: list[int] | None

    def encode(self, labels: Iterable[Any]) -> list[int]:
        """Convert labels of the data to class indices; a missing one (None, −1, −100, NaN) becomes −100.

        Raises:
            ValueError: if a label is none of the classes.
        """
        index = {name: position for position, name in enumerate(self.names or [])}
        encoded = []
        for label in labels:
            if isinstance(label, str):
                if label not in index:
                    raise ValueError(f"The label {label!r} is none of the classes ({_listed(self.names)}).")
                encoded.append(index[label])
                continue
            number = _whole(label)
            if number is None or not (number == NO_LABEL or 0 <= number < self.num_labels):
                raise ValueError(
                    f"The label {label!r} is no class index: with {self.num_labels} classes they go from 0 to"
                    f" {self.num_labels - 1}, and {NO_LABEL} stands for no label."
                )
            encoded.append(number)
        return encoded


def in_order_of(names: list[str] | None, feature: Any) -> list[int] | None:
    """Return the index in `names` of each class of a `ClassLabel`.

    `None` where one of them names no classes, or both have the same order.

    Raises:
        ValueError: if the names cannot be matched.
    """
    own = list(feature.names) if isinstance(feature, ClassLabel) else None
    if names is None or own is None or own == [str(index) for index in range(len(own))] or own == names:
        return None
    try:
        return match_names(own, names)
    except ValueError as error:
        raise ValueError(
            f"This dataset's classes ({_listed(own)}) are not those of the run ({_listed(names)}). Rename or map them."
        ) from error


def resolve_classes(
    dataset: Dataset | None,
    label_column: str,
    *,
    teacher_names: list[str] | None = None,
    num_teacher_classes: int | None = None,
    teacher_class_order: Sequence[int] | None = None,
) -> Classes:
    """Settle the classes and their order between data and teacher.

    The data's order wins. Names are matched without regard to case: in full, else by the start of one (neg and
    NEGATIVE). Where either side has no names, the orders are assumed to be the same. Labels of text may lack some of
    the teacher's classes.

    Args:
        dataset: labelled training data; `None`, or data without the column, leaves the teacher's classes.
        label_column: its label column.
        teacher_names: `None` where there is no teacher, or it has no names.
        num_teacher_classes: `None` where there is no teacher.
        teacher_class_order: the order that the user set, for classes that names cannot match.

    Raises:
        ValueError: if the numbers of classes differ, or names cannot settle the order, or labels are no classes.
    """
    data_names, num_labels = _data_classes(dataset, label_column) if dataset is not None else (None, None)
    if num_teacher_classes is None:
        if num_labels is None:
            raise UnknownClasses(f"Neither a teacher nor labels in a column {label_column!r}: the classes are unknown.")
        return Classes(num_labels, data_names, None)
    if (
        num_labels is not None
        and num_labels < num_teacher_classes
        and data_names
        and teacher_names
        and teacher_class_order is None
        and dataset is not None
        and not isinstance(dataset.features[label_column], ClassLabel)
    ):  # labels of text, of which some classes have none
        found = _candidates(data_names, teacher_names)
        spelling = {indices[0]: name for indices, name in zip(found, data_names, strict=True) if len(indices) == 1}
        if len(spelling) == num_labels:
            names = [spelling.get(index, name) for index, name in enumerate(teacher_names)]
            return Classes(num_teacher_classes, names, list(range(num_teacher_classes)))
    if num_labels is not None and num_labels != num_teacher_classes:
        raise ValueError(
            f"The teacher has {num_teacher_classes} classes ({_listed(teacher_names)}) and the data {num_labels}"
            f" ({_listed(data_names)}) in its column {label_column!r}. Teacher and data must share their classes: use a"
            " teacher fine-tuned on them, or map the labels first."
        )
    identity = list(range(num_teacher_classes))
    if teacher_class_order is not None:
        if sorted(teacher_class_order) != identity:
            raise ValueError(
                f"teacher_class_order={list(teacher_class_order)} must hold each of the teacher's classes"
                f" 0 to {num_teacher_classes - 1} once."
            )
        ordered_names = [teacher_names[index] for index in teacher_class_order] if teacher_names else None
        return Classes(num_teacher_classes, data_names or ordered_names, list(teacher_class_order))
    if data_names is not None and teacher_names is not None:
        return Classes(num_teacher_classes, data_names, match_names(data_names, teacher_names))
    if data_names is not None and dataset is not None and not isinstance(dataset.features[label_column], ClassLabel):
        raise ValueError(
            f"The labels are text ({_listed(data_names)}) and the teacher does not name its classes, so their"
            " order is unknown. Set teacher_class_order: the teacher's index of each of these, in this order."
        )
    return Classes(num_teacher_classes, data_names or teacher_names, identity)


def given_names(feature: ClassLabel) -> list[str] | None:
    """Return the names of the classes, or `None` for those that ClassLabel(num_classes=C) gives: "0", "1", …."""
    names = list(feature.names)
    return None if names == [str(index) for index in range(len(names))] else names


def _data_classes(dataset: Dataset, label_column: str) -> tuple[list[str] | None, int | None]:
    """Return the names and the number of classes that the data's labels show; `None` for what they do not."""
    if label_column not in dataset.column_names:
        return None, None
    feature = dataset.features[label_column]
    if isinstance(feature, ClassLabel):
        return given_names(feature), len(feature.names)
    # `unique` takes no lists; one row is enough to refuse them.
    values = dataset.unique(label_column) if isinstance(feature, Value) else dataset[:1][label_column]
    present = [label for label in values if isinstance(label, str) or _whole(label) != NO_LABEL]
    if all(isinstance(label, str) for label in present):
        _check_several(present, label_column)
        return (sorted(present), len(present)) if present else (None, None)
    soft = [label for label in present if isinstance(label, str) or _whole(label) is None]
    if soft:
        raise ValueError(
            f"The column {label_column!r} holds {soft[0]!r}: class labels are integers or text. Soft labels and"
            " regression targets do not belong there; the teacher's logits have a column of their own."
        )
    classes = sorted(int(label) for label in present)
    if not classes:
        return None, None
    _check_several(classes, label_column)
    if classes[0] < 0 or classes != list(range(len(classes))):
        raise ValueError(
            f"The labels in {label_column!r} are {_listed(classes)}; with {len(classes)} classes they must be 0 to"
            f" {len(classes) - 1} ({NO_LABEL} for no label). Renumber them, or store the column as a ClassLabel."
        )
    return None, len(classes)


def check_labels(dataset: Any, label_column: str) -> None:
    """Refuse labels that are no single class, in data that is not looked through before it is trained on.

    Args:
        dataset: of another library, whose first row is read; or a stream, whose columns may tell.
        label_column: of a stream.

    Raises:
        ValueError: see `check_single`.
    """
    if isinstance(dataset, IterableDataset):
        feature = (dataset.features or {}).get(label_column)
        if feature is not None and not isinstance(feature, ClassLabel | Value):
            check_single([[0]], f"The column {label_column!r}")
    elif hasattr(dataset, "__getitem__") and not isinstance(dataset, Dataset | str | Mapping) and len(dataset):
        first = dataset[0]
        for name in {"labels", "label", "label_ids"} & ({*first} if isinstance(first, Mapping) else set()):
            check_single(first[name][None] if hasattr(first[name], "dtype") else [first[name]], "The first row")


def check_single(labels: Any, where: str) -> None:
    """Refuse labels of which each is several numbers, or a fraction: a model would be trained on them with softmax.

    Args:
        labels: of some rows, a tensor or a list.
        where: they were found; begins the message.

    Raises:
        ValueError: naming shape and type.
    """
    values = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if values.ndim != 1 or "float" in str(values.dtype):
        raise ValueError(
            f"{where} has labels of shape {tuple(values.shape[1:])} and type {values.dtype}: one class index per row is"
            " expected. Several labels per row, soft labels and regression targets are other problems than LELP's."
        )


def _check_several(classes: Sequence[Any], label_column: str) -> None:
    """Refuse labels of one class: they mostly come from a part cut from data that is sorted by class."""
    if len(classes) == 1:
        raise ValueError(
            f"All labels in {label_column!r} are {classes[0]!r}, and a classifier needs two classes or more. If these"
            " rows are a part of more, shuffle before you cut, or store the column as a ClassLabel: it knows them all."
        )


def _whole(label: Any) -> int | None:
    """Return a label as an integer, a missing one as −100, anything else as `None`."""
    # ClassLabel writes a missing label as −1; a Parquet or CSV file as null.
    try:
        if label is None or label != label or int(label) == -1 == label:
            return NO_LABEL
        return int(label) if int(label) == label else None
    except (TypeError, ValueError, OverflowError):  # of lists, times, bytes, infinity
        return None


def match_names(data_names: list[str], teacher_names: list[str]) -> list[int]:
    """Return the teacher's index of each of the data's names, matched without regard to case, or by the start of one.

    Raises:
        ValueError: if they cannot be matched one to one.
    """
    order = [found[0] for found in _candidates(data_names, teacher_names) if len(found) == 1]
    if sorted(order) != list(range(len(teacher_names))):
        raise ValueError(
            f"The data's classes ({_listed(data_names)}) and the teacher's ({_listed(teacher_names)}) cannot be matched"
            " by name, so their order is unknown. Rename them, or set teacher_class_order: the teacher's index of"
            f" each of the data's classes, {list(range(len(teacher_names)))} if the order is the same."
        )
    return order


def _candidates(data_names: list[str], teacher_names: list[str]) -> list[list[int]]:
    """Return the teacher's indices that each of the data's names may stand for."""
    ours, theirs = (
        [re.sub(r"[\W_]+", " ", name).strip().casefold() for name in names] for names in (data_names, teacher_names)
    )

    def candidates(name: str) -> list[int]:
        exact = [index for index, other in enumerate(theirs) if other == name]
        return exact or [i for i, other in enumerate(theirs) if other.startswith(name) or name.startswith(other)]

    return [candidates(name) for name in ours]


def _listed(names: Sequence[Any] | None, most: int = 10) -> str:
    if names is None:
        return "unnamed"
    shown = ", ".join(str(name) for name in names[:most])
    return shown + (f", … {len(names) - most} more" if len(names) > most else "")


def classes_of(dataset: Dataset) -> NDArray[np.int64]:
    """Return the class of each prepared row, (N,): its label, or the teacher's argmax where it has none."""
    columns = dataset.with_format("numpy")
    classes = np.asarray(column_values(columns, LOGITS_COLUMN)).argmax(-1)
    if "labels" in dataset.column_names:
        labels = np.asarray(column_values(columns, "labels"))
        classes = np.where(labels == NO_LABEL, classes, labels)
    return np.asarray(classes, dtype=np.int64)
