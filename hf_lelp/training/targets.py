"""Builds the teacher's side of the training columns: its logits, and its projections for the subclasses."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from datasets import Dataset, IterableDataset, Value
from numpy.typing import NDArray

from hf_lelp.config import AUTO, LELPConfig, check_embeddings
from hf_lelp.data.checks import check_directions, check_mark, check_numbers
from hf_lelp.data.columns import (
    EMBEDDING_COLUMN,
    LOGITS_COLUMN,
    PROJECTIONS_COLUMN,
    PROJECTIONS_MARK,
    TEACHER_MARK,
    find_label_column,
)
from hf_lelp.data.labels import NO_LABEL, Classes
from hf_lelp.data.rows import column_names, column_values, transform_of, with_columns
from hf_lelp.projections.cache import fit_projections, projection_columns
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.teacher.class_order import check_teacher
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.kinds.soft_labels import SoftLabels
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.training.sampled_fit import fitted_rows, sampled_columns
from hf_lelp.transfer.origins import Origins

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


@dataclass(frozen=True)
class Targets:
    """Training data with the teacher's columns.

    Attributes:
        dataset: the data, with `teacher_logits` and, for S > 1, `teacher_projections`.
        embeddings: `teacher_embedding` of the same rows, to project again; `None` where they were not kept.
        projections: the ones that made `teacher_projections`, where known.
        args: settings of the run, which say where columns are kept and in which dtype.
    """

    dataset: Dataset
    embeddings: Dataset | None
    projections: ClassProjections | None
    args: LELPConfig

    def projected_by(self, projections: ClassProjections, dataset: Dataset) -> Dataset:
        """Give `dataset` (the same rows) the projections of other fitted directions."""
        assert self.embeddings is not None
        columns = projection_columns(
            self.embeddings, projections, self.args.columns_cache_dir, dtype=self.args.columns_dtype
        )
        return with_columns(dataset, columns)


def check_marks(dataset: AnyDataset, teacher: TeacherLike | None, projections: ClassProjections | None) -> AnyDataset:
    """Refuse prepared columns of another teacher or other projections; return the data without marks.

    Of a stream only the first row is read.

    Raises:
        ValueError: see `check_mark`; also if a column of marks is no text, or its rows have several makers.
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


def make_targets(
    dataset: Dataset,
    teacher: TeacherLike | None,
    args: LELPConfig,
    classes: Classes,
    projections: ClassProjections | None = None,
) -> Targets:
    """Run the teacher, fit projections and project, each only where the dataset lacks the column.

    Args:
        dataset: training data, raw or with columns of the teacher. The teacher sees the rows as they are stored. Only
            the student sees a transform of the dataset, which may augment them.
        teacher: gives its classes in the data's order; `None` if the columns are there.
        args: settings of the run.
        classes: of the data.
        projections: fitted before, to use instead of fitting.

    Raises:
        ValueError: if missing columns cannot be made; if columns do not fit the classes, the teacher or each other; if
            the teacher is below the majority baseline; if alpha asks for labels and there are none.
    """
    transform = transform_of(dataset)
    dataset = check_marks(dataset.with_format(None), teacher, projections)
    present = dataset.column_names
    labels = _labels_of(dataset, args, classes)
    if teacher is not None and projections is not None and projections.teacher != teacher.head.fingerprint:
        raise ValueError(
            f"These class projections were fitted for the teacher {projections.teacher}, and this one is"
            f" {teacher.head.fingerprint} (other weights, data type or order of classes). Fit them for this teacher."
        )
    if args.num_subclasses != 1 and isinstance(teacher, SoftLabels):
        check_embeddings(args)
    sample = fitted_rows(len(dataset), args.fit_rows)
    if sample is not None and teacher is not None and LOGITS_COLUMN not in present:
        columns, projections = sampled_columns(dataset, teacher, labels, args, projections)
        dataset, embeddings = with_columns(dataset, columns), None
    else:
        dataset, embeddings = _with_logits(dataset, teacher, args)
    _check_logits(dataset, labels, args, classes)
    dataset = dataset if transform is None else dataset.with_transform(transform)
    if args.num_subclasses == 1:
        return Targets(dataset, embeddings, projections, args)
    if PROJECTIONS_COLUMN in dataset.column_names:
        _check_projections(dataset, args, classes)
        return Targets(dataset, embeddings, projections, args)
    if embeddings is None or (projections is None and teacher is None):
        raise ValueError(
            f"The training data has no column {PROJECTIONS_COLUMN} (it has {', '.join(present)}). Pass teacher_model,"
            " or add it: dataset.map(ClassProjections.fit(dataset, teacher.head), batched=True)."
        )
    if projections is None and teacher is not None:
        projections = fit_projections(
            embeddings if sample is None else embeddings.select(sample),
            labels if sample is None or labels is None else labels[sample],
            teacher.head,
            args.directions,
            at_least=args.fewest_directions,
            null_space=args.null_space,
            cache_dir=args.columns_cache_dir,
        )
    assert projections is not None
    if args.num_subclasses != AUTO:
        check_directions(projections.num_directions, int(args.num_subclasses))
    targets = Targets(dataset, embeddings, projections, args)
    return replace(targets, dataset=targets.projected_by(projections, dataset))


def _with_logits(dataset: Dataset, teacher: TeacherLike | None, args: LELPConfig) -> tuple[Dataset, Dataset | None]:
    """Add the teacher's logits; also return the teacher's columns, or `None` where they lack embeddings."""
    present = dataset.column_names
    if LOGITS_COLUMN in present:
        kept = EMBEDDING_COLUMN in present
        return dataset, dataset.select_columns([LOGITS_COLUMN, EMBEDDING_COLUMN]) if kept else None
    if teacher is None:
        raise ValueError(
            f"The training data has no column {LOGITS_COLUMN} (it has {', '.join(present)}) and no teacher was"
            " given. Pass teacher_model, or run one over the data: dataset.map(teacher, batched=True)."
        )
    columns = teacher_columns(dataset, teacher, args.columns_cache_dir, dtype=args.columns_dtype)
    return with_columns(dataset, columns.select_columns([LOGITS_COLUMN])), columns


def _labels_of(dataset: Dataset, args: LELPConfig, classes: Classes) -> NDArray[np.int64] | None:
    """Return the rows' class indices, (N,), or `None` without a label column; check that alpha has labels to weigh."""
    column = find_label_column(dataset, args.label_column)
    labels = np.array(classes.encode(column_values(dataset, column))) if column is not None else None
    if args.alpha > 0 and (labels is None or (labels == NO_LABEL).all()):
        raise ValueError(
            f"alpha={args.alpha} gives weight to labels, and the training data has none in {args.label_column!r}."
            " Set alpha=0, or label_column."
        )
    return labels


def _check_logits(dataset: Dataset, labels: NDArray[np.int64] | None, args: LELPConfig, classes: Classes) -> None:
    """Check the teacher's logits, and by them and the labels the teacher."""
    (width,) = check_numbers(dataset, LOGITS_COLUMN, 1)
    if width != classes.num_labels:
        raise ValueError(
            f"{LOGITS_COLUMN} has {width} classes and the data {classes.num_labels}: another teacher made the column."
        )
    if args.check_teacher and labels is not None:
        origins = Origins.taken_from(dataset)[1]
        if origins is not None:  # a view has its row's label, and may not say enough to tell it
            labels = np.where(origins.own, labels, NO_LABEL)
        check_teacher(column_values(dataset.with_format("numpy"), LOGITS_COLUMN), labels, classes)


def _check_projections(dataset: Dataset, args: LELPConfig, classes: Classes) -> None:
    """Refuse a prepared column with another number of classes, or with fewer directions than subclasses."""
    shape = check_numbers(dataset, PROJECTIONS_COLUMN, 2)
    if shape[0] != classes.num_labels:
        raise ValueError(
            f"{PROJECTIONS_COLUMN} has shape {shape} per row and the data {classes.num_labels} classes: other"
            " projections made the column. Make it again."
        )
    if args.num_subclasses != AUTO:
        check_directions(shape[1], int(args.num_subclasses))
