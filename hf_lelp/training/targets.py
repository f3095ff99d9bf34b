"""What a run needs made before the student trains: the columns of both sides."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from accelerate import PartialState
from datasets import Dataset, IterableDataset, Value, concatenate_datasets
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from hf_lelp.config import AUTO, LELPConfig
from hf_lelp.data.checks import check_directions, check_mark, check_numbers
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN, PROJECTIONS_MARK, TEACHER_MARK
from hf_lelp.data.encoding import (
    OnTheFly,
    Processor,
    column_names,
    encode,
    input_name,
    resolve_input_columns,
    transform_of,
)
from hf_lelp.data.labels import NO_LABEL, Classes, check_teacher, in_order_of
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.teacher.class_order import find_label_column
from hf_lelp.teacher.columns import fit_projections, projection_columns, teacher_columns
from hf_lelp.teacher.protocol import TeacherLike

TEACHER_COLUMNS = (LOGITS_COLUMN, EMBEDDING_COLUMN, PROJECTIONS_COLUMN)

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


@dataclass(frozen=True)
class TeacherData:
    """Training data with the teacher's columns.

    Attributes:
        dataset: the data, with `teacher_logits` and, for S > 1, `teacher_projections`.
        embeddings: `teacher_embedding` of the same rows, to project again; `None` where they were not kept.
        projections: that made `teacher_projections`, where known.
        args: settings of the run: where columns are kept, and their data type.
    """

    dataset: Dataset
    embeddings: Dataset | None
    projections: ClassProjections | None
    args: LELPConfig

    def projected_by(self, projections: ClassProjections, dataset: Dataset) -> Dataset:
        """`dataset` (the same rows) with the projections of other fitted directions."""
        assert self.embeddings is not None
        columns = projection_columns(
            self.embeddings, projections, self.args.columns_cache_dir, dtype=self.args.columns_dtype
        )
        return beside(dataset, columns)


def check_marks(dataset: AnyDataset, teacher: TeacherLike | None, projections: ClassProjections | None) -> AnyDataset:
    """Refuse prepared columns that are not the teacher's or the projections' at hand; returns the data without marks.

    Of a stream only the first row is read.

    Raises:
        ValueError: see `check_mark`; and if the rows are not all of one maker.
    """
    known_teacher = teacher.head.fingerprint if teacher else projections.teacher if projections else None
    known = {TEACHER_MARK: known_teacher, PROJECTIONS_MARK: projections.fingerprint if projections else None}
    marks = [name for name in known if name in column_names(dataset)]
    for name in marks:
        maker = "teacher" if name == TEACHER_MARK else "projections"
        if dataset.features is not None and dataset.features[name] != Value("string"):
            raise ValueError(
                f"The column {name} holds {dataset.features[name]}; under that name the fingerprint of the {maker} is"
                " expected. Rename the column if it is something else."
            )
        found = dataset.unique(name) if isinstance(dataset, Dataset) else [next(iter(dataset))[name]]
        check_mark(found, known[name] or found[0], maker)
    return dataset.remove_columns(marks) if marks else dataset


def add_teacher_columns(
    dataset: Dataset,
    teacher: TeacherLike | None,
    args: LELPConfig,
    classes: Classes,
    projections: ClassProjections | None = None,
) -> TeacherData:
    """Run the teacher, fit and project, each only where the dataset has no such column yet.

    Args:
        dataset: training data, raw or with columns of the teacher. The teacher sees the rows as they are stored; a
            transform of the dataset, which may augment them, is the student's alone.
        teacher: that gives its classes in the data's order; `None` if the columns are there.
        args: settings of the run.
        classes: of the data.
        projections: fitted before, to be used instead of fitting.

    Raises:
        ValueError: if columns are missing that cannot be made, or do not fit the classes, the teacher or each other;
            if the teacher is below the majority baseline; if alpha asks for labels and there are none.
    """
    transform = transform_of(dataset)
    dataset = check_marks(dataset.with_format(None), teacher, projections)
    present = dataset.column_names
    embeddings = None
    if LOGITS_COLUMN not in present:
        if teacher is None:
            raise ValueError(
                f"The training data has no column {LOGITS_COLUMN} (it has {', '.join(present)}) and no teacher was"
                " given. Pass teacher_model, or run one over the data: dataset.map(teacher, batched=True)."
            )
        columns = teacher_columns(dataset, teacher, args.columns_cache_dir, dtype=args.columns_dtype)
        dataset = beside(dataset, columns.select_columns([LOGITS_COLUMN]))
        embeddings = columns
    elif EMBEDDING_COLUMN in present:
        embeddings = dataset.select_columns([LOGITS_COLUMN, EMBEDDING_COLUMN])

    (width,) = check_numbers(dataset, LOGITS_COLUMN, 1)
    if width != classes.num_labels:
        raise ValueError(
            f"{LOGITS_COLUMN} has {width} classes and the data {classes.num_labels}: another teacher made the column."
        )
    column = find_label_column(dataset, args)
    labels = np.array(classes.encode(column_values(dataset, column))) if column is not None else None
    if args.alpha > 0 and (labels is None or (labels == NO_LABEL).all()):
        raise ValueError(
            f"alpha={args.alpha} gives weight to labels, and the training data has none in {args.label_column!r}."
            " Set alpha=0, or label_column."
        )
    if args.check_teacher and labels is not None:
        check_teacher(column_values(dataset.with_format("numpy"), LOGITS_COLUMN), labels, classes)
    if teacher is not None and projections is not None and projections.teacher != teacher.head.fingerprint:
        raise ValueError(
            f"These class projections were fitted for the teacher {projections.teacher}, and this one is"
            f" {teacher.head.fingerprint} (other weights, data type or order of classes). Fit them for this teacher."
        )

    dataset = dataset if transform is None else dataset.with_transform(transform)
    if args.num_subclasses == 1:
        return TeacherData(dataset, embeddings, projections, args)
    if PROJECTIONS_COLUMN in present:
        shape = check_numbers(dataset, PROJECTIONS_COLUMN, 2)
        if shape[0] != classes.num_labels:
            raise ValueError(
                f"{PROJECTIONS_COLUMN} has shape {shape} per row and the data {classes.num_labels} classes: other"
                " projections made the column. Make it again."
            )
        if args.num_subclasses != AUTO:
            check_directions(shape[1], int(args.num_subclasses))
        return TeacherData(dataset, embeddings, projections, args)
    if embeddings is None or (projections is None and teacher is None):
        raise ValueError(
            f"The training data has no column {PROJECTIONS_COLUMN} (it has {', '.join(present)}). Pass teacher_model,"
            " or add it: dataset.map(ClassProjections.fit(dataset, teacher.head), batched=True)."
        )
    if projections is None and teacher is not None:
        projections = fit_projections(
            embeddings,
            labels,
            teacher,
            args.directions,
            at_least=args.fewest_directions,
            null_space=args.null_space,
            cache_dir=args.columns_cache_dir,
        )
    assert projections is not None
    if args.num_subclasses != AUTO:
        check_directions(projections.num_directions, int(args.num_subclasses))
    data = TeacherData(dataset, embeddings, projections, args)
    return replace(data, dataset=data.projected_by(projections, dataset))


def student_columns(
    dataset: AnyDataset,
    processing_class: Processor | None,
    *,
    input_columns: Sequence[str] | None,
    label_column: str,
    max_length: int | None,
    classes: Classes,
) -> AnyDataset:
    """Inputs of the student and `labels` as class indices; columns of the teacher stay, all others go.

    Texts become tokens once. Images, sound and the rows of a dataset with a transform become inputs whenever they are
    read: pixels of every image take far more space than the images, and a transform may augment, differently each time.
    A dataset that holds inputs already keeps its columns, and only its labels are encoded; so does any dataset where
    there is nothing to make inputs with.

    Raises:
        ValueError: if there is no telling which column to read, a text is no string, a label no class, or there are
            two columns of labels that differ.
    """
    transform = transform_of(dataset)
    if isinstance(transform, OnTheFly):
        return dataset
    present: list[str] = column_names(dataset)
    prepared = processing_class is None or input_name(processing_class) in present
    if prepared and transform is None:
        ready = label_column == "labels" and (not isinstance(dataset, Dataset) or _are_indices(dataset, classes))
        if ready or label_column not in present:
            return dataset
    columns: list[str] = (
        [] if prepared else resolve_input_columns(dataset, input_columns, label_column, processing_class)
    )
    if isinstance(dataset, Dataset) and {"labels", label_column} <= {*present} and transform is None:
        # `map` would write ours with the type of the column that is there, and −100 as a boolean is true.
        if label_column == "labels":
            label_column = "labels as they came"
            dataset = dataset.rename_column("labels", label_column)
        else:
            _check_same_labels(dataset, label_column, classes)
            dataset = dataset.remove_columns("labels")
        present = dataset.column_names
    order = in_order_of(classes.names, (dataset.features or {}).get(label_column))

    def encode_labels(values: Iterable[Any]) -> list[int]:
        return [label if order is None or label < 0 else order[label] for label in classes.encode(values)]

    def encode_rows(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        encoded: dict[str, Any] = {}
        if columns and processing_class is not None:
            try:
                encoded = encode(processing_class, batch, columns, max_length)
            except ValueError as error:
                raise ValueError(f"Rows {rows[0]} to {rows[-1]} of the dataset: {error}") from error
        return encoded | ({"labels": encode_labels(batch[label_column])} if label_column in batch else {})

    removed = [
        name for name in present if name not in ({*present} - {label_column} if prepared else {*TEACHER_COLUMNS})
    ]
    if isinstance(dataset, IterableDataset):
        return dataset.map(encode_rows, batched=True, with_indices=True, remove_columns=removed)
    dataset = dataset.with_format(None)
    if transform is None and (prepared or isinstance(processing_class, PreTrainedTokenizerBase)):
        # Without the teacher's columns: they would be copied, and another teacher's rows tokenized anew.
        teacher = [name for name in TEACHER_COLUMNS if name in present]
        removed = [name for name in removed if name not in teacher]
        with PartialState().main_process_first():
            own = dataset.remove_columns(teacher).map(
                encode_rows, batched=True, with_indices=True, remove_columns=removed, desc="Tokenizing"
            )
        return beside(own, dataset.select_columns(teacher)) if teacher else own
    if label_column in present:
        dataset = beside(dataset, Dataset.from_dict({"labels": encode_labels(column_values(dataset, label_column))}))
    kept: list[str] = [name for name in ("labels", *TEACHER_COLUMNS) if name in dataset.column_names]
    if transform is None:
        dataset = dataset.select_columns([*columns, *kept])
    return dataset.with_transform(OnTheFly(processing_class, columns, max_length, kept, transform))


def _check_same_labels(dataset: Dataset, label_column: str, classes: Classes) -> None:
    own, other = (classes.encode(column_values(dataset.with_format(None), name)) for name in (label_column, "labels"))
    if own != other:
        raise ValueError(
            f"The data has {label_column!r} and 'labels', and they differ. Drop or rename the column that is not meant,"
            " or set label_column."
        )


def _are_indices(dataset: Dataset, classes: Classes) -> bool:
    """Whether `labels` are class indices and −100 already."""
    values = dataset.unique("labels")
    return all(type(value) is int for value in values) and classes.encode(values) == values


def column_values(dataset: Dataset, column: str) -> Any:
    """A whole column at once, in the dataset's format: a `Column` would be read row by row."""
    return dataset.select_columns([column])[:][column]


def classes_of(dataset: Dataset) -> NDArray[np.int64]:
    """The class of each prepared row, (N,): its label, or where it has none the teacher's argmax."""
    columns = dataset.with_format("numpy")
    classes = np.asarray(column_values(columns, LOGITS_COLUMN)).argmax(-1)
    if "labels" in dataset.column_names:
        labels = np.asarray(column_values(columns, "labels"))
        classes = np.where(labels == NO_LABEL, classes, labels)
    return np.asarray(classes, dtype=np.int64)


def beside(dataset: Dataset, columns: Dataset) -> Dataset:
    """The dataset with further columns, row by row; columns of the same name are replaced, its format stays."""
    form = dataset.format
    own = dataset.with_format(None)
    replaced = [name for name in columns.column_names if name in own.column_names]
    joined = concatenate_datasets([own.remove_columns(replaced), columns.with_format(None)], axis=1)
    return joined.with_format(form["type"], **form["format_kwargs"])
