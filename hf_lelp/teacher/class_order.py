"""Settles the classes of a run between teacher, data and student, and loads the teacher in their order."""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, IterableDataset, Value
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from transformers import PreTrainedModel

from hf_lelp.classifiers import check_model, class_names, load_config, load_processor, processor_part
from hf_lelp.config import LELPConfig
from hf_lelp.data.checks import check_numbers
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN, find_label_column, resolve_input_columns
from hf_lelp.data.encoding import Processor
from hf_lelp.data.labels import NO_LABEL, Classes, UnknownClasses, given_names, match_names, resolve_classes
from hf_lelp.data.rows import column_names, transform_of
from hf_lelp.teacher.kinds.combined import CombinedTeacher
from hf_lelp.teacher.kinds.encoder import Encoder
from hf_lelp.teacher.kinds.fitting import mean_of_teachers, with_encoder
from hf_lelp.teacher.kinds.soft_labels import SoftLabels
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.teacher import Teacher

logger = logging.getLogger(__name__)
_warn_once = cache(logger.warning)


class AlignedTeacher(NamedTuple):
    """A teacher that gives its classes in the data's order, and these classes; `LELPTrainer` takes it as it is.

    Attributes:
        teacher: `None` where none is run.
        classes: in the data's order.
    """

    teacher: TeacherLike | None
    classes: Classes


class TeacherModel(NamedTuple):
    """A teacher's model, which a student may be made of.

    Attributes:
        model: any classifier of transformers; it is not to be changed.
        class_order: class i of the data is its class `class_order[i]`.
        processing_class: its tokenizer or the like, if it is known.
    """

    model: PreTrainedModel
    class_order: Sequence[int]
    processing_class: Processor | None = None


def load_aligned_teacher(
    teacher_model: Any,
    processing_class: Any,
    args: LELPConfig,
    dataset: Any,
    student: Any,
    evaluated: Iterable[Any] = (),
) -> AlignedTeacher:
    """Load the teacher, settle the classes with the data, and put the teacher in the data's order of classes.

    Args:
        teacher_model: id, folder, model or `TeacherLike`, or a list of several, which become their mean; unused where
            `args.alpha` is 1 or there is no dataset. An `AlignedTeacher` comes back as it is. `None` where soft labels
            of the data, which `args` names, stand for one.
        processing_class: its tokenizer, image processor or feature extractor, `None` for the one saved with it; of
            several teachers a list.
        args: settings of the run.
        dataset: training data or `None`.
        student: the student's model; its classes count where neither teacher nor data tell.
        evaluated: evaluation datasets. Where the training data has no labels, theirs tell the names of the classes.

    Raises:
        ValueError: see `resolve_classes`. Also if a model comes without its processing class; if the data's columns
            have this teacher's classes in another order; if a teacher that cannot be reordered has another order; or
            if a stream lacks the teacher's columns; see also `mean_of_teachers` and `SoftLabels`.
    """
    aligned = isinstance(teacher_model, AlignedTeacher)
    if args.soft_label_columns is not None and teacher_model is not None and not aligned:
        raise ValueError(
            f"soft_label_columns={args.soft_label_columns} stand for a teacher, and teacher_model names one too. Give"
            " one of them."
        )
    if isinstance(dataset, IterableDataset) and args.alpha < 1:
        _check_stream(dataset, args)
    if isinstance(teacher_model, AlignedTeacher):
        return teacher_model if args.alpha < 1 else teacher_model._replace(teacher=None)
    teacher: TeacherLike | None = None
    if args.alpha < 1 and dataset is not None:
        if isinstance(teacher_model, list | tuple):
            return _several(teacher_model, processing_class, args, dataset, student, evaluated)
        if teacher_model is not None:
            teacher = _load_teacher(teacher_model, processing_class, args, dataset)
        elif args.soft_label_columns is not None and LOGITS_COLUMN not in column_names(dataset):
            teacher = SoftLabels.of(dataset, args.soft_label_columns, args.teacher_scores)
    classes = _settle_classes(args, dataset, teacher, student, evaluated)
    if teacher is None or classes.teacher_order == list(range(len(teacher.head.weight))):
        return AlignedTeacher(_beside_encoder(teacher, args, dataset), classes)
    assert classes.teacher_order is not None
    if not isinstance(teacher, Teacher | SoftLabels):
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
    return AlignedTeacher(_beside_encoder(teacher.reordered(classes.teacher_order), args, dataset), classes)


def _beside_encoder(teacher: TeacherLike | None, args: LELPConfig, dataset: Any) -> TeacherLike | None:
    """Give soft labels the embeddings of `args.embedding_model`, if there is one; any other teacher stays."""
    if not isinstance(teacher, SoftLabels) or args.embedding_model is None:
        return teacher
    tokenizer = load_processor(args.embedding_model)
    named = args.teacher_input_columns or args.input_columns
    encoder = Encoder.from_pretrained(
        args.embedding_model,
        dtype=args.teacher_dtype,
        input_columns=resolve_input_columns(dataset, named, args.label_column, tokenizer),
        max_length=args.teacher_max_length,
        batch_size=args.teacher_batch_size,
        device=args.device,
    )
    return with_encoder(teacher, encoder, dataset, args.columns_cache_dir, dtype=args.columns_dtype)


def _several(
    models: Sequence[Any],
    processing_classes: Any,
    args: LELPConfig,
    dataset: Any,
    student: Any,
    evaluated: Iterable[Any],
) -> AlignedTeacher:
    """Align each of several teachers, and return their mean; the first one's classes are the run's."""
    if not isinstance(dataset, Dataset) or LOGITS_COLUMN in dataset.column_names:
        raise ValueError(
            f"{len(models)} teachers are combined by their columns of raw rows of a datasets.Dataset. This training"
            f" data is a {type(dataset).__name__} of {', '.join(column_names(dataset))}. Pass raw rows; or make the"
            " columns with hf_lelp.teacher.kinds.fitting.mean_of_teachers."
        )
    processors = [None] * len(models) if processing_classes is None else processing_classes
    if not models or not isinstance(processors, list | tuple) or len(processors) != len(models):
        raise ValueError(
            f"teacher_model names {len(models)} teachers, and teacher_processing_class is a"
            f" {type(processors).__name__}: pass a list with one for each, or leave it out where all are ids or"
            " folders."
        )
    pairs = zip(models, processors, strict=True)
    aligned = [load_aligned_teacher(*pair, args, dataset, student, evaluated) for pair in pairs]
    classes = aligned[0].classes
    teachers = [_in_order_of(classes.names, of.teacher) for of in aligned if of.teacher is not None]
    cache, dtype = args.columns_cache_dir, args.columns_dtype
    return AlignedTeacher(mean_of_teachers(teachers, dataset, args.teacher_weights, cache, dtype=dtype), classes)


def _in_order_of(names: list[str] | None, teacher: TeacherLike) -> TeacherLike:
    """Put a teacher's classes in the order of another's names, where data without names left it in its own."""
    own = teacher.class_names
    if names is None or own is None or not isinstance(teacher, Teacher):
        return teacher
    try:
        order = match_names(names, own)
    except ValueError:  # they are other classes: `mean_of_teachers` says so
        return teacher
    return teacher if order == sorted(order) else teacher.reordered(order)


def processor_of_teacher(teacher_model: Any, processing_class: Any) -> Processor | None:
    """Return what makes a teacher's inputs, given what `load_aligned_teacher` takes; `None` where nothing tells.

    Of several teachers it is the first one's.
    """
    if processing_class is not None:
        return processing_class[0] if isinstance(processing_class, list | tuple) else processing_class
    for each in _each(teacher_model):
        if isinstance(each, str):
            return load_processor(each)
        if isinstance(each, Teacher | Encoder):
            return each.processing_class
    return None


def model_of_teacher(
    teacher_model: Any, activation: str | None = None, processing_class: Any = None
) -> TeacherModel | None:
    """Return a teacher's model, given what `load_aligned_teacher` takes; `None` where it is none of transformers.

    Of several teachers it is the first one's.

    Args:
        teacher_model: see `load_aligned_teacher`.
        activation: of its output, see `Teacher`.
        processing_class: of a model, or a list, of several; a `Teacher` and a folder have their own.
    """
    processors = processing_class if isinstance(processing_class, list | tuple) else repeat(processing_class)
    for each, processor in zip(_each(teacher_model), processors, strict=False):
        if isinstance(each, str):
            each = Teacher.from_pretrained(each, activation=activation)
        if isinstance(each, Teacher):
            return TeacherModel(each.model, each.class_order, each.processing_class)
        if isinstance(each, PreTrainedModel):
            return TeacherModel(each, range(int(each.config.num_labels or 0)), processor)
    return None


def _each(teacher_model: Any) -> Sequence[Any]:
    """Return each of the teachers that `load_aligned_teacher` takes; mostly it is one."""
    if isinstance(teacher_model, AlignedTeacher):
        teacher_model = teacher_model.teacher
    if isinstance(teacher_model, CombinedTeacher):
        return teacher_model.parts
    return teacher_model if isinstance(teacher_model, list | tuple) else [teacher_model]


def _check_stream(dataset: IterableDataset, args: LELPConfig) -> None:
    present = column_names(dataset)
    needed = [LOGITS_COLUMN] if args.num_subclasses == 1 else [LOGITS_COLUMN, PROJECTIONS_COLUMN]
    missing = [name for name in needed if name not in present]
    if missing:
        raise ValueError(
            f"The training data is a stream without {', '.join(missing)} (it has {', '.join(present)}), and the"
            " teacher's columns are kept for the rows of a datasets.Dataset alone. Load the data without"
            " streaming=True; or make the columns on the fly, which runs the teacher in every pass:\n"
            "    stream = stream.map(teacher, batched=True)  # teacher = Teacher.from_pretrained(...)\n"
            "    projections = ClassProjections.fit(stream, teacher.head)\n"
            "    stream = stream.map(projections, batched=True)\n"
            "    LELPTrainer(..., train_dataset=stream, projections=projections)  # its args with max_steps"
        )


def _load_teacher(
    teacher_model: PreTrainedModel | TeacherLike | str,
    processing_class: Processor | None,
    args: LELPConfig,
    dataset: Any,
) -> TeacherLike:
    if isinstance(teacher_model, TeacherLike):
        return teacher_model
    if isinstance(teacher_model, str):
        processing_class = load_processor(teacher_model) if processing_class is None else processing_class
        config = load_config(teacher_model)
    else:
        check_model(teacher_model, "teacher")
        config = teacher_model.config
    processing_class = processor_part(processing_class, config)
    if processing_class is None:
        raise ValueError(
            "teacher_model is a model, not an id: pass its tokenizer, image processor or feature extractor as"
            " teacher_processing_class."
        )
    # Where only its classes and its final layer are needed, the teacher does not run and needs no input columns.
    columns = ["text"]
    if isinstance(dataset, Dataset) and LOGITS_COLUMN not in dataset.column_names:
        named = args.teacher_input_columns or args.input_columns
        columns = resolve_input_columns(dataset, named, args.label_column, processing_class)
    settings: dict[str, Any] = {
        "input_columns": columns,
        "max_length": args.teacher_max_length,
        "batch_size": args.teacher_batch_size,
        "device": args.device,
        "activation": args.teacher_activation,
    }
    if isinstance(teacher_model, str):
        return Teacher.from_pretrained(teacher_model, processing_class, dtype=args.teacher_dtype, **settings)
    return Teacher(teacher_model, processing_class, **settings)


def _settle_classes(
    args: LELPConfig, dataset: Any, teacher: TeacherLike | None, model: Any, evaluated: Iterable[Any]
) -> Classes:
    """Return the classes of data and teacher; where neither tells, those of the student or the prepared columns."""
    column = find_label_column(dataset, args.label_column)
    labelled = dataset if column is not None and isinstance(dataset, Dataset) else None
    if isinstance(dataset, Dataset):
        others = [
            other for other in evaluated if isinstance(other, Dataset) and args.label_column in other.column_names
        ]
        if column is None:
            _tell_unlabelled(dataset, args, in_others=bool(others))
            labelled = next((other for other in others if _names_classes(other, args.label_column)), None)
        else:
            _tell_nulls(dataset, column, "training")
        for other in others:
            _tell_nulls(other, args.label_column, "evaluation")
    try:
        return resolve_classes(
            labelled,
            column or args.label_column,
            teacher_names=teacher.class_names if teacher else None,
            num_teacher_classes=len(teacher.head.weight) if teacher else None,
            teacher_class_order=args.teacher_class_order if teacher else None,
        )
    except UnknownClasses:
        if dataset is None and isinstance(model, str):
            config = load_config(model)
            if "Classification" in (config.architectures or [""])[0]:  # to be evaluated as it is
                return Classes(config.num_labels, class_names(config), None)
        if hasattr(model, "config"):
            return Classes(model.config.num_labels, class_names(model.config), None)
        if isinstance(dataset, IterableDataset):
            return _classes_of_stream(dataset, column or args.label_column)
        if isinstance(dataset, Dataset) and args.alpha == 1:
            raise ValueError(
                f"alpha=1, the method direct, learns from labels alone, and the training data has none in"
                f" {args.label_column!r} (its columns: {', '.join(dataset.column_names)}). Set label_column."
            ) from None
        if isinstance(dataset, Dataset) and LOGITS_COLUMN in dataset.column_names:
            return Classes(check_numbers(dataset, LOGITS_COLUMN, 1)[0], None, None)
        raise


def _classes_of_stream(stream: IterableDataset, label_column: str) -> Classes:
    """Return the classes that a stream names, or as many as its first row has logits of the teacher."""
    feature = (stream.features or {}).get(label_column)
    if isinstance(feature, ClassLabel):
        names = given_names(feature)
        return Classes(len(feature.names), names, None)
    first: dict[str, Any] = next(iter(stream), {})
    if LOGITS_COLUMN in first:
        return Classes(len(first[LOGITS_COLUMN]), None, None)
    raise ValueError(
        f"The training data is a stream that does not name the classes of its column {label_column!r}, and it cannot be"
        f" looked through. Name them: stream.cast_column({label_column!r}, ClassLabel(names=[...])); or pass a model"
        " with its num_labels."
    )


def _names_classes(dataset: Dataset, column: str) -> bool:
    """Whether a column of labels is of names: numbers that an evaluation happens to have do not tell the classes."""
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return given_names(feature) is not None
    return isinstance(feature, Value) and "string" in feature.dtype


def _tell_unlabelled(dataset: Dataset, args: LELPConfig, *, in_others: bool) -> None:
    """Warn that there is no label column, which may be a slip; raise an error if the user named one.

    Args:
        dataset: the training data.
        args: settings of the run.
        in_others: whether evaluation data has the column.
    """
    if transform_of(dataset) is not None:
        return  # which may make the column
    found = f"The training data has no column {args.label_column!r} (it has {', '.join(dataset.column_names)})"
    if in_others and args.alpha == 0:
        _warn_once(
            f"{found}, and the evaluation data has it: the student learns from the teacher alone, and is evaluated with"
            " these labels. The teacher is not checked."
        )
        return
    if args.label_column != LELPConfig.label_column and not (in_others and args.alpha < 1):
        raise ValueError(f"{found}. Set label_column to the one of the labels, or leave it out if there are none.")
    if args.alpha < 1:
        _warn_once(
            f"{found}: all rows count as unlabelled, and the teacher is not checked. Set label_column if one holds"
            " labels."
        )


def _tell_nulls(dataset: Dataset, column: str, role: str) -> None:
    """Warn of labels that are null: a reader of CSV makes so of "None", "NA" and the like, which may be names."""
    nulls = sum(chunk.null_count for chunk in dataset.with_format("arrow").select_columns([column])[:][column].chunks)
    if nulls:
        _warn_once(
            f"{nulls:,} of {len(dataset):,} {role} rows have no label in {column!r}. If it came from a CSV file, texts"
            " such as None and NA were read so: load it with keep_default_na=False if they are names of classes."
        )


def check_teacher(teacher_logits: NDArray[np.floating], labels: NDArray[np.integer], classes: Classes) -> None:
    """Refuse a teacher that knows less than the labels' frequencies do, or knows more in another order of its classes.

    One that gives all rows one answer is warned of.

    Args:
        teacher_logits: (N, C), in the order of `classes`.
        labels: (N,); −100 is no label.
        classes: of the data.

    Raises:
        ValueError: if the accuracy is below the majority baseline, or it takes some classes for each other, each
            clearly more often than not. The message has the confusion matrix and, where another order explains it,
            that order.
    """
    labelled = labels != NO_LABEL
    if not labelled.any():
        return
    labels, predicted = labels[labelled], teacher_logits[labelled].argmax(-1)
    accuracy = float((predicted == labels).mean())
    majority = float(np.bincount(labels).max() / len(labels))
    from sklearn.metrics import confusion_matrix  # slow to import

    identity = np.arange(classes.num_labels)
    confusion = confusion_matrix(labels, predicted, labels=identity)
    best = linear_sum_assignment(confusion, maximize=True)[1]
    if accuracy >= majority and not _in_each_others_place(confusion, best):
        _warn_of_one_answer(labels, predicted, classes)
        return
    best_accuracy = float(confusion[identity, best].sum() / len(labels))
    advice = "Use a teacher fine-tuned on this task, or set check_teacher=False if it is meant to be this weak."
    if best_accuracy > majority and (best != identity).any():
        order = [(classes.teacher_order or identity)[index] for index in best]
        advice = (
            f"With its classes in the order teacher_class_order={[int(index) for index in order]} the accuracy would be"
            f" {best_accuracy:.3f}: if that is the right order, set it; if not, check_teacher=False."
        )
    found = (
        f"below the {majority:.3f} of always answering the commonest class"
        if accuracy < majority
        else "and it takes some classes for each other more often than not"
    )
    raise ValueError(
        f"The teacher's accuracy on the {len(labels)} labelled examples is {accuracy:.3f}, {found}. Confusion (rows:"
        f" labels, columns: the teacher):\n{confusion}\n{advice}"
    )


def _warn_of_one_answer(labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: Classes) -> None:
    """Warn where a teacher gives rows of several classes, (N,), one answer, as one of rare classes may."""
    answers, known = np.unique(predicted), len(np.unique(labels))
    if len(answers) == 1 and known > 1:
        name = answers[0] if classes.names is None else repr(classes.names[answers[0]])
        logger.warning(
            f"The teacher gives all {len(labels):,} labelled rows the class {name}, and they have {known} classes: it"
            " has little to teach. Train it on rows with as many of each class, or weigh its classes."
        )


def _in_each_others_place(confusion: NDArray[np.integer], order: NDArray[np.integer]) -> bool:
    """Whether some classes form a cycle of `order`, each answered as the next class rather than as itself.

    "Rather" means by three standard errors of the rows in question, and by more where there are many classes.

    Args:
        confusion: (C, C), rows by label, columns by answer.
        order: (C,), the answer that fits each label best.
    """
    identity = np.arange(len(order))
    swapped, own = confusion[identity, order], confusion[identity, identity]
    clear = swapped - own > np.sqrt((9 + 2 * np.log(len(order))) * (swapped + own))
    while (clear & ~clear[order]).any():
        clear &= clear[order]
    return bool(clear.any())
