"""Prepares a run: makes everything that it needs before its student trains, once, from `LELPTrainer`'s arguments."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.classifiers import check_model, load_config, processor_part
from hf_lelp.config import LELPConfig
from hf_lelp.data.audio import fewest_samples
from hf_lelp.data.checks import check_rows, check_tokens
from hf_lelp.data.columns import KIND_COLUMN, RunColumns
from hf_lelp.data.encoding import Processor, input_name
from hf_lelp.data.labels import Classes, check_labels
from hf_lelp.data.rows import rows_of, transform_of
from hf_lelp.data.text import max_tokens, set_pad_token, vocabulary_size
from hf_lelp.making.recipes import is_recipe
from hf_lelp.making.start import new_student, student_processor
from hf_lelp.padding import tell_of_padding, with_fitting_side
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.student.card import hub_id
from hf_lelp.teacher.class_order import AlignedTeacher, load_aligned_teacher, model_of_teacher, processor_of_teacher
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.teacher import Teacher
from hf_lelp.training.signal import Signal, signal_of
from hf_lelp.training.student_inputs import check_prepared, student_columns
from hf_lelp.training.targets import Targets, check_marks, make_targets
from hf_lelp.training.trials import student_maker
from hf_lelp.transfer.origins import Origins, tell_of_confidence
from hf_lelp.transfer.rows import transfer_of, transfer_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRun:
    """What a student trains on and with.

    Attributes:
        args: settings of the run.
        classes: C, in the data's order.
        columns: which ones the student reads, in any data.
        processing_class: of the student.
        max_length: tokens, or samples, after which the student's inputs are cut.
        student: as given, or as loaded; `None` where `model_init` makes it.
        collated: whether the user's own data collator makes the batches; it may then make inputs too.
        vocabulary: how many tokens the student embeds, where known.
        fewest_samples: how many samples of a sound the student needs, where known.
        train: with the student's inputs, labels and the teacher's columns.
        evaluation: with the student's inputs and labels; a dataset, several by name, or none.
        targets: training data with the teacher's columns, made or given; `None` with `alpha` 1, or where the training
            data is no `datasets.Dataset`.
        projections: the ones that made the targets, where known.
        teacher: fingerprint of the teacher, where known.
        teacher_name: its Hub id, if it has one.
        signal: what the student learned from, where it is no single teacher; for its card.
        input_name: the student's first input; `None` where the user's own data collator may make inputs.
        origins: of which row each training row was made; `None` where all are the data's own.
    """

    args: LELPConfig
    classes: Classes
    columns: RunColumns
    processing_class: Processor | None
    max_length: int | None
    student: PreTrainedModel | None
    collated: bool
    vocabulary: int | None
    fewest_samples: int | None
    train: Any
    evaluation: Any
    targets: Targets | None
    projections: ClassProjections | None
    teacher: str | None
    teacher_name: str | None
    signal: Signal | None
    input_name: str | None
    origins: Origins | None

    def inputs_of(self, dataset: Any) -> Any:
        """Give a dataset the student's inputs and encoded labels; a dataset of another library counts as prepared.

        Raises:
            ValueError: see `student_columns`, `check_marks`, `check_rows`, `check_tokens` and `check_labels`.
        """
        dataset = rows_of(dataset)
        check_rows(dataset, self.input_name)
        check_labels(dataset, self.columns.label_of(dataset))
        if not isinstance(dataset, Dataset | IterableDataset):
            return dataset
        if not self.collated:
            check_tokens(dataset, self.vocabulary)
        return student_columns(
            check_marks(dataset, None, self.projections),
            self.processing_class,
            columns=self.columns,
            max_length=self.max_length,
            classes=self.classes,
            vocabulary=self.vocabulary,
            fewest_samples=self.fewest_samples,
        )


def prepare_run(
    args: LELPConfig,
    *,
    model: Any,
    model_init: Callable[..., Any] | None,
    train_dataset: Any,
    eval_dataset: Any,
    processing_class: Any,
    collated: bool,
    teacher_model: Any,
    teacher_processing_class: Any,
    projections: ClassProjections | None,
    transfer_dataset: Any = None,
    own_columns: tuple[str, ...] = (),
) -> PreparedRun:
    """Load teacher and student, run the teacher, make the targets and prepare the student's inputs, each once.

    Args:
        args: settings of the run.
        model: the student: id, folder or model.
        model_init: makes students in place of `model`.
        train_dataset: raw or prepared, or `None`.
        eval_dataset: likewise, or several by name.
        processing_class: of the student; `None` loads the one of `model`, if that is an id or folder.
        collated: whether the user's own data collator makes the batches; it may then make inputs too.
        teacher_model: see `load_aligned_teacher`.
        teacher_processing_class: likewise.
        projections: fitted before, to use instead of fitting.
        transfer_dataset: rows without labels to train on besides, raw, or `None`.
        own_columns: see `LELPTrainer.own_columns`.

    Raises:
        ValueError: if teacher, data and student do not fit together.
    """
    model, teacher_model = _as_name(model), _as_name(teacher_model)
    # An example to inspect, where `model_init` has yet to make the student.
    example: Any = model if model_init is None else student_maker(model, model_init)()
    named = args.embedding_model if teacher_model is None else teacher_model  # a compiled model has no truth value
    teachers = partial(processor_of_teacher, named, teacher_processing_class)
    processing_class = _own_processor(example, processing_class, teachers)
    evaluated = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
    train, evaluated = rows_of(train_dataset), {name: rows_of(dataset) for name, dataset in evaluated.items()}
    wanted = None if collated else _input_name(processing_class, example)
    for dataset in (train, *evaluated.values()):
        check_rows(dataset, wanted)
    aligned = load_aligned_teacher(teacher_model, teacher_processing_class, args, train, example, evaluated.values())
    teacher, classes = aligned.teacher, aligned.classes
    of_teacher = teacher_model if teacher is None else teacher, args.teacher_activation, teacher_processing_class
    source = partial(model_of_teacher, *of_teacher)
    student = new_student(model, classes.num_labels, processing_class, source) if isinstance(model, str) else model
    example = student if model_init is None else example
    processing_class, max_length = _fitted_to(example, processing_class, args.max_length)
    rows = (train, *evaluated.values())
    columns = RunColumns.of(rows, args.input_columns, args.label_column, processing_class, own_columns)
    of_student: dict[str, Any] = {"columns": columns, "processing_class": processing_class, "max_length": max_length}
    train = with_transfer_rows(train, transfer_dataset, evaluated.values(), args, teacher=teacher, **of_student)
    targets = None
    if isinstance(train, Dataset) and args.alpha < 1:
        targets = make_targets(train, teacher, args, classes, projections)
        train, projections = targets.dataset, targets.projections
    train, origins = Origins.taken_from(train) if isinstance(train, Dataset) else (train, None)
    if origins is not None and targets is not None:
        tell_of_confidence(train, origins)
    if not collated and example is not None and processing_class is None:
        check_prepared(train, example.main_input_name)
    run = PreparedRun(
        args=args,
        classes=classes,
        **of_student,
        student=student,
        train=None,
        evaluation=None,
        collated=collated,
        vocabulary=vocabulary_size(example) if hasattr(example, "config") else None,
        fewest_samples=fewest_samples(example),
        targets=targets,
        projections=projections,
        teacher=_fingerprint_of(teacher, projections),
        teacher_name=hub_id(teacher.model.name_or_path) if isinstance(teacher, Teacher) else None,
        signal=signal_of(teacher),
        input_name=wanted,
        origins=origins,
    )
    inputs = {
        name: _inputs_of(run, dataset, f"evaluation data{f' {name!r}' if name else ''}")
        for name, dataset in evaluated.items()
    }
    return replace(
        run,
        train=_in_form_of(train_dataset, _inputs_of(run, train, "training data"), processing_class),
        evaluation=inputs if isinstance(eval_dataset, dict) else inputs[""],
    )


def _own_processor(example: Any, processing_class: Any, teachers: Callable[[], Any]) -> Any:
    """Return what makes the student's inputs: the part of what was given, or what lies beside a student named by id.

    Args:
        example: the student: id, folder, recipe, model or `None`.
        processing_class: as given.
        teachers: gives the teacher's, for a recipe.
    """
    if example is None:
        return processing_class
    if not isinstance(example, str):
        check_model(example, "student")
        return processor_part(processing_class, example.config)
    if processing_class is None:
        processing_class = student_processor(example, teachers)
    return processing_class if is_recipe(example) else processor_part(processing_class, load_config(example))


def with_transfer_rows(
    train: Any,
    unlabelled: Any,
    evaluated: Iterable[Any],
    args: LELPConfig,
    *,
    columns: RunColumns,
    processing_class: Processor | None,
    max_length: int | None,
    teacher: TeacherLike | None,
) -> Any:
    """Put windows, views and unlabelled rows beside the training rows, as the settings ask for them.

    Args:
        train: raw; it comes back as it is where they ask for none.
        unlabelled: raw, or `None`. At `alpha` 1 it teaches nothing and is left out.
        evaluated: data whose rows the student must not learn from.
        args: settings of the run.
        columns: of the run.
        processing_class: of the student.
        max_length: tokens that it reads.
        teacher: or `None`.

    Raises:
        ValueError: if the training data is prepared or a stream; see also `transfer_of` and `transfer_rows`.
    """
    unlabelled = rows_of(unlabelled)
    nothing = unlabelled is None and args.windows == 1 and not args.views
    if nothing or train is None or (isinstance(train, Dataset) and not len(train)):
        return train
    reason = _why_not_raw(train, columns)
    if reason is not None:
        raise ValueError(
            "Windows, views and unlabelled rows are put beside raw rows of a datasets.Dataset, before the teacher is"
            f" run. {reason}. Leave windows, views and transfer_dataset out, or pass raw rows."
        )
    if not isinstance(unlabelled, Dataset | None):
        raise ValueError(
            f"transfer_dataset is a {type(unlabelled).__name__}, and a datasets.Dataset of raw rows is expected: one"
            " split of a DatasetDict, or Dataset.from_list(rows)."
        )
    if args.soft_label_columns is not None and unlabelled is not None and args.alpha < 1:
        raise ValueError(
            f"{', '.join(args.soft_label_columns)} hold soft labels of the data's own rows, and nothing says what an"
            " unlabelled row is. Leave unlabelled rows out, or give a teacher_model in place of soft_label_columns."
        )
    wanted = transfer_of(
        args,
        columns=columns.inputs or (),
        label_column=columns.label_of(train),
        processing_class=processing_class,
        max_length=max_length,
        teacher_columns=None if teacher is None else teacher.input_columns,
        mask_token=getattr(getattr(teacher, "processing_class", None), "mask_token", None),
    )
    given = [rows for rows in evaluated if rows is not None]
    known = [rows for rows in given if isinstance(rows, Dataset) and _are_alike(rows, train, wanted.columns)]
    if len(known) < len(given):
        logger.warning(
            f"Evaluation data without {', '.join(wanted.columns)}, such as a stream or tokens, cannot be compared with"
            " windows, views and unlabelled rows: see that none of these is an evaluation row."
        )
    with PartialState().main_process_first():
        return transfer_rows(train, wanted, unlabelled if args.alpha < 1 else None, known)


def _why_not_raw(train: Any, columns: RunColumns) -> str | None:
    """Say why no rows can be put beside the training data; `None` where they can."""
    if not isinstance(train, Dataset):
        return f"This training data is a {type(train).__name__}"
    found = [name for name in train.column_names if name in {*columns.of_loss, KIND_COLUMN}]
    if found:
        return f"This training data has {', '.join(found)} already, which the rows to be made would lack"
    if columns.inputs is None:
        return f"This training data ({', '.join(train.column_names)}) has tokens, or there is no processing class"
    return None


def _are_alike(one: Dataset, other: Dataset, columns: Sequence[str]) -> bool:
    """Tell whether a dataset has these columns of another, and values of the same kinds in them."""
    return all(type(one.features.get(name)) is type(other.features[name]) for name in columns)


def _inputs_of(run: PreparedRun, dataset: Any, role: str) -> Any:
    """Prepare a dataset of the run; an error says which one it is about."""
    try:
        return None if dataset is None else run.inputs_of(dataset)
    except ValueError as error:
        raise ValueError(f"The {role}: {error}") from error


def _fitted_to(
    student: Any, processing_class: Processor | None, max_length: int | None
) -> tuple[Processor | None, int | None]:
    """Return the processing class as the student needs it, padding and all, and where its inputs are cut."""
    known = hasattr(student, "config")
    if isinstance(processing_class, PreTrainedTokenizerBase):
        if known:
            set_pad_token(processing_class, student)
        max_length = max_tokens(processing_class, student, max_length)
    if processing_class is not None and known:
        processing_class = with_fitting_side(processing_class, student)
        tell_of_padding(processing_class, student)
    return processing_class, max_length


def _as_name(model: Any) -> Any:
    if isinstance(model, list | tuple) and not isinstance(model, AlignedTeacher):
        return [_as_name(each) for each in model]
    return os.fspath(model) if isinstance(model, os.PathLike) else model


def _input_name(processing_class: Processor | None, student: Any) -> str | None:
    """Name the first input that the student's rows hold; `None` where nothing tells."""
    if processing_class is not None:
        return input_name(processing_class)
    return getattr(student, "main_input_name", None)


def _fingerprint_of(teacher: TeacherLike | None, projections: ClassProjections | None) -> str | None:
    if teacher is not None:
        return teacher.head.fingerprint
    return projections.teacher if projections is not None else None


def _in_form_of(given: Any, prepared: Any, processing_class: Processor | None) -> Any:
    """Put prepared rows in torch format where the data came so: arrays are slow to read as lists of numbers."""
    form: dict[str, Any] = given.format if isinstance(given, Dataset) else {"type": None}
    if form["type"] != "torch" or processing_class is not None or transform_of(prepared) is not None:
        return prepared
    return prepared.with_format("torch", **form["format_kwargs"])
