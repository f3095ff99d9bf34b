"""The classes of a run, settled between teacher, data and student; the teacher, loaded to give them in order."""

import logging
import os
from functools import cache
from typing import Any

from datasets import Dataset, IterableDataset
from transformers import AutoConfig, PreTrainedModel

from hf_lelp.config import LELPConfig
from hf_lelp.data.checks import check_numbers
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.encoding import Processor, column_names, resolve_input_columns, transform_of
from hf_lelp.data.labels import Classes, UnknownClasses, resolve_classes
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.teacher import Teacher, class_names, load_processor

_warn_once = cache(logging.getLogger(__name__).warning)


def settle_teacher(
    teacher_model: PreTrainedModel | TeacherLike | str | None,
    processing_class: Processor | None,
    args: LELPConfig,
    dataset: Any,
    student: Any,
) -> tuple[TeacherLike | None, Classes]:
    """Load the teacher, settle the classes with the data, and have the teacher give them in the data's order.

    Args:
        teacher_model: id, folder, model or `TeacherLike`; left alone where `args.alpha` is 1 or there is no dataset.
        processing_class: its tokenizer, image processor or feature extractor, `None` for the one saved with it.
        args: settings of the run.
        dataset: training data or `None`.
        student: the student's model, whose classes stand where neither teacher nor data tell.

    Raises:
        ValueError: see `resolve_classes`; and if a model comes without its processing class, the data's columns were
            made by this teacher in another order of the classes, a teacher that cannot be reordered has another, or a
            stream lacks the teacher's columns.
    """
    if isinstance(dataset, IterableDataset) and args.alpha < 1:
        _check_stream(dataset, args)
    teacher = None
    if teacher_model is not None and args.alpha < 1 and dataset is not None:
        teacher = _load_teacher(teacher_model, processing_class, args, dataset)
    classes = _settle_classes(args, dataset, teacher, student)
    if teacher is None or classes.teacher_order == list(range(len(teacher.head.weight))):
        return teacher, classes
    assert classes.teacher_order is not None
    if not isinstance(teacher, Teacher):
        raise ValueError(
            f"The data's classes are {', '.join(classes.names or [])}, in the order {classes.teacher_order} of the"
            f" teacher's. A {type(teacher).__name__} must give its logits and class_names in the data's order."
        )
    if not isinstance(dataset, Dataset) or LOGITS_COLUMN in dataset.column_names:
        raise ValueError(
            f"The teacher's classes are in another order than the data's ({', '.join(classes.names or [])}), and the"
            " data's columns were made in the teacher's. Make them with"
            f" Teacher(..., class_order={classes.teacher_order})."
        )
    return teacher.reordered(classes.teacher_order), classes


def _check_stream(dataset: IterableDataset, args: LELPConfig) -> None:
    present = column_names(dataset)
    needed = [LOGITS_COLUMN] if args.num_subclasses == 1 else [LOGITS_COLUMN, PROJECTIONS_COLUMN]
    missing = [name for name in needed if name not in present]
    if missing:
        raise ValueError(
            f"The training data is a stream without {', '.join(missing)} (it has {', '.join(present)}), and only the"
            " rows of a datasets.Dataset are kept after the teacher ran over them. Load the data without"
            " streaming=True; or make the columns as the stream goes, with the teacher run anew in every pass:\n"
            "    stream = stream.map(teacher, batched=True)  # teacher = Teacher.from_pretrained(...)\n"
            "    projections = ClassProjections.fit(stream, teacher.head)\n"
            "    stream = stream.map(projections, batched=True)\n"
            "    LELPTrainer(..., train_dataset=stream, projections=projections)"
        )


def _load_teacher(
    teacher_model: PreTrainedModel | TeacherLike | str,
    processing_class: Processor | None,
    args: LELPConfig,
    dataset: Any,
) -> TeacherLike:
    if isinstance(teacher_model, TeacherLike):
        return teacher_model
    if processing_class is None and isinstance(teacher_model, str):
        processing_class = load_processor(teacher_model)
    if processing_class is None:
        raise ValueError(
            "teacher_model is a model, not an id: pass its tokenizer, image processor or feature extractor as"
            " teacher_processing_class."
        )
    # A teacher that will not run, but tells its classes and its final layer, needs no input columns.
    columns = ["text"]
    if isinstance(dataset, Dataset) and LOGITS_COLUMN not in dataset.column_names:
        named = args.teacher_input_columns or args.input_columns
        columns = resolve_input_columns(dataset, named, args.label_column, processing_class)
    settings: dict[str, Any] = {
        "input_columns": columns,
        "max_length": args.teacher_max_length,
        "batch_size": args.teacher_batch_size,
        "device": args.device,
    }
    if isinstance(teacher_model, str):
        return Teacher.from_pretrained(teacher_model, processing_class, dtype=args.teacher_dtype, **settings)
    return Teacher(teacher_model, processing_class, **settings)


def _settle_classes(args: LELPConfig, dataset: Any, teacher: TeacherLike | None, model: Any) -> Classes:
    """The classes of data and teacher, or where neither tells, those of the student or of the prepared columns."""
    column = find_label_column(dataset, args)
    if column is None and isinstance(dataset, Dataset):
        _tell_unlabelled(dataset, args)
    try:
        return resolve_classes(
            dataset if column is not None and isinstance(dataset, Dataset) else None,
            column or args.label_column,
            teacher_names=teacher.class_names if teacher else None,
            num_teacher_classes=len(teacher.head.weight) if teacher else None,
            teacher_class_order=args.teacher_class_order if teacher else None,
        )
    except UnknownClasses:
        if dataset is None and isinstance(model, str):
            config = AutoConfig.from_pretrained(os.path.expanduser(model), trust_remote_code=False)
            if "Classification" in (config.architectures or [""])[0]:  # to be evaluated as it is
                return Classes(config.num_labels, class_names(config), None)
        if hasattr(model, "config"):
            return Classes(model.config.num_labels, class_names(model.config), None)
        if isinstance(dataset, Dataset) and args.alpha == 1:
            raise ValueError(
                f"alpha=1, the method direct, learns from labels alone, and the training data has none in"
                f" {args.label_column!r} (its columns: {', '.join(dataset.column_names)}). Set label_column."
            ) from None
        if isinstance(dataset, Dataset) and LOGITS_COLUMN in dataset.column_names:
            return Classes(check_numbers(dataset, LOGITS_COLUMN, 1)[0], None, None)
        raise


def _tell_unlabelled(dataset: Dataset, args: LELPConfig) -> None:
    """Say that there is no column of labels, which may be a slip; refuse it where one was named."""
    if transform_of(dataset) is not None:
        return  # which may make it
    found = f"The training data has no column {args.label_column!r} (it has {', '.join(dataset.column_names)})"
    if args.label_column != LELPConfig.label_column:
        raise ValueError(f"{found}. Set label_column to the one of the labels, or leave it out if there are none.")
    if args.alpha < 1:
        _warn_once(
            f"{found}: all rows count as unlabelled, and the teacher is not checked. Set label_column if one is."
        )


def find_label_column(dataset: Any, args: LELPConfig) -> str | None:
    """The label column that the dataset has: the one named, or the "labels" of a prepared dataset."""
    present = column_names(dataset) if isinstance(dataset, Dataset | IterableDataset) else []
    return next((name for name in (args.label_column, "labels") if name in present), None)
