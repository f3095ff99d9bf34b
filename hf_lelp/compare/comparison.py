"""Compares methods on your own data: `python -m hf_lelp.compare --config FILE`, or with options.

The teacher runs once. Every method trains a student from the teacher's columns with every seed. Finished runs are kept
and not repeated, so the same command resumes where it was stopped. Report and plots follow the last run.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset
from transformers import PreTrainedTokenizerBase

from hf_lelp.classifiers import load_processor
from hf_lelp.cli.data import (
    Names,
    TrainingDataArguments,
    expand,
    expand_all,
    load_data,
    load_unlabelled,
    one_or_several,
)
from hf_lelp.cli.options import Program
from hf_lelp.compare.methods import ORACLE, SUBCLASS_DISTILLATION, SUBCLASS_LOGITS_COLUMN, Method
from hf_lelp.compare.report import publish
from hf_lelp.compare.run import RUN_SETTINGS, row_counts
from hf_lelp.compare.runs import run_all
from hf_lelp.compare.task import Task
from hf_lelp.config import LELPConfig, check_embeddings, check_own_run
from hf_lelp.data.columns import KIND_COLUMN, LOGITS_COLUMN, ORIGIN_COLUMN, PROJECTIONS_COLUMN, RunColumns
from hf_lelp.data.encoding import Processor, longest
from hf_lelp.data.rows import column_values, with_columns
from hf_lelp.data.text import set_pad_token, vocabulary_size
from hf_lelp.making.recipes import SourceMaker, is_recipe
from hf_lelp.making.start import new_student, student_processor
from hf_lelp.padding import with_fitting_side
from hf_lelp.storage.files import check_writable
from hf_lelp.student.learning_rate import starting_rate
from hf_lelp.teacher.class_order import load_aligned_teacher, model_of_teacher, processor_of_teacher
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.kinds.combined import answers_rows
from hf_lelp.training.prepared_run import with_transfer_rows
from hf_lelp.training.sampled_fit import fitted_rows
from hf_lelp.training.student_inputs import student_columns
from hf_lelp.training.targets import make_targets
from hf_lelp.transfer.origins import Origins

logger = logging.getLogger(__name__)

FEWEST_SEEDS = 3


@dataclass(kw_only=True)
class CompareArguments(TrainingDataArguments):
    """Methods, models and data of a comparison. Settings of training for all methods are in `LELPConfig`.

    Raises:
        ValueError: if a model or the data is missing, or a method is unknown.
    """

    teacher_model: Names | None = field(
        default=None,
        metadata={
            "help": "The fine-tuned teacher: Hub id or folder; of several, their mean teaches. Not needed with"
            " --soft_label_columns."
        },
    )
    student_model: str | None = field(
        default=None,
        metadata={"help": "The student: Hub id, folder, or new:2x128, layers:2 or static to have one made."},
    )
    methods: list[str] = field(
        default_factory=lambda: ["direct", "kd", "lelp"],
        metadata={
            "help": "Methods, with settings where wanted: kd:temperature=4 lelp:num_subclasses=16. A wrong name"
            " shows them all."
        },
    )
    seeds: int = field(default=3, metadata={"help": "Runs of each method, with seeds from `seed` on."})
    reference: str | None = field(
        default=None, metadata={"help": "The method that others are compared to (default: the first kd)."}
    )
    train_sizes: list[int] | None = field(
        default=None, metadata={"help": "Compare also on so many training rows, drawn at random."}
    )
    fine_column: str | None = field(
        default=None, metadata={"help": "Column of finer classes, for the method oracle alone."}
    )
    processes: int = field(default=1, metadata={"help": "Students to train at once, each on its share of the cores."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.teacher_model = one_or_several(self.teacher_model)
        if self.student_model is None:
            raise ValueError("student_model is missing: a Hub id or folder.")
        for name in ("seeds", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed.")
        if any(size < 1 for size in self.train_sizes or ()):
            raise ValueError(f"train_sizes={self.train_sizes}: at least 1 row is needed.")
        choose_reference(self.methods, self.reference)
        oracle = _has_kind(self.methods, ORACLE)
        if oracle and self.fine_column is None:
            raise ValueError("The method oracle needs the true subclasses: name their column in fine_column.")
        if oracle and self.unlabelled_file is not None:
            raise ValueError("The method oracle needs each row's true subclass, and rows of unlabelled_file have none.")


def compare(arguments: CompareArguments, config: LELPConfig) -> dict[str, Any]:
    """Run the teacher once, train every student, write `comparison.json`, `comparison.md` and, with matplotlib, plots.

    Args:
        arguments: models, data, methods and seeds.
        config: settings of training for all methods; a method's own settings override them.

    Returns:
        What comparison.json holds: `summarise` of each task.

    Raises:
        ValueError: see `check_own_run`, `run_all`, `load_data` and `load_aligned_teacher`.
    """
    if config.alpha == 1:
        raise ValueError("alpha=1 leaves nothing to distil: that is the method direct, beside which others are shown.")
    if arguments.teacher_model is None and config.soft_label_columns is None:
        raise ValueError("teacher_model is missing: a Hub id or folder; or name columns of soft labels.")
    check_own_run(config)
    for name in arguments.methods:
        if Method.parse(name).reads_embeddings(_training_settings(config)):
            check_embeddings(config, f"method {name!r}:")
    if config.fit_rows is not None:
        if arguments.train_sizes:
            raise ValueError("train_sizes fits on the rows of each size, and fit_rows on one sample: give one of them.")
        for method in arguments.methods:
            Method.parse(method).check_without_embeddings(config, _training_settings(config))
    if arguments.seeds < FEWEST_SEEDS:
        logger.warning(
            f"seeds={arguments.seeds}: fewer than {FEWEST_SEEDS} say little of what other seeds would show. The runs of"
            f" this command are kept: --seeds {FEWEST_SEEDS} adds to them."
        )
    output_dir = Path(config.output_dir or "out")
    check_writable(output_dir)
    sizes = [None, *(arguments.train_sizes or [])]
    loaders = {_size_name(size): partial(load_task, arguments, config, size) for size in sizes}
    first = loaders[_size_name(None)]()  # the teacher runs here, before there are several processes
    rows = row_counts(first)["train_rows"]
    too_many = [size for size in sizes if size is not None and size > rows]
    if too_many:
        raise ValueError(f"train_sizes={too_many}: the training data has {rows} rows.")
    for method in arguments.methods:
        Method.parse(method).check(first)
    seeds = range(config.seed, config.seed + arguments.seeds)
    runs = run_all(loaders, arguments.methods, seeds, output_dir / "runs", processes=arguments.processes)
    reference = choose_reference(arguments.methods, arguments.reference)
    return publish(runs, arguments.methods, reference, output_dir)


def load_task(arguments: CompareArguments, config: LELPConfig, size: int | None = None) -> Task:
    """Load the data with the teacher's columns, ready for any method.

    Args:
        arguments: models and data.
        config: settings of training.
        size: rows to take at random; `None` is all.
    """
    train, evaluation = load_data(arguments, config.seed)
    if config.label_column not in evaluation.column_names:
        raise ValueError(
            f"The evaluation data has no labels in {config.label_column!r} (it has"
            f" {', '.join(evaluation.column_names)}): there is nothing to compare by. Set label_column."
        )
    if arguments.fine_column not in (None, *train.column_names):
        raise ValueError(f"fine_column={arguments.fine_column}; the data has {', '.join(train.column_names)}.")
    teacher, classes = load_aligned_teacher(
        expand_all(arguments.teacher_model), None, config, train, None, [evaluation]
    )
    assert teacher is not None
    name = expand(str(arguments.student_model))
    processing_class = student_processor(name, partial(processor_of_teacher, teacher, None))
    shared = processing_class if is_recipe(name) else None
    student = partial(_student, name, classes.num_labels, shared, partial(model_of_teacher, teacher))
    example = student()
    processing_class = with_fitting_side(processing_class, example)
    run_columns = _columns_of(arguments, config, (train, evaluation), processing_class)
    max_length = longest(processing_class, example, config.max_length)
    settings: dict[str, Any] = {"columns": run_columns, "max_length": max_length}
    of_student = {**settings, "processing_class": processing_class, "teacher": teacher}
    train = with_transfer_rows(train, load_unlabelled(arguments), [evaluation], config, **of_student)
    if vars(config)["learning_rate"] is None:
        config.learning_rate = starting_rate(example)
        logger.info(f"learning rate {config.learning_rate:g}, by the student's size")
    settings |= {"classes": classes, "vocabulary": vocabulary_size(example)}
    tokens = [student_columns(dataset, processing_class, **settings) for dataset in (train, evaluation)]
    projections = None
    if fitted_rows(len(train), config.fit_rows) is None:
        columns = teacher_columns(train, teacher, config.columns_cache_dir, dtype=config.columns_dtype)
        columns = columns if config.has_embeddings else columns.select_columns([LOGITS_COLUMN])
    else:
        targets = make_targets(train, teacher, config, classes)
        columns = targets.dataset.with_format(None).select_columns([LOGITS_COLUMN, PROJECTIONS_COLUMN])
        projections = targets.projections
    evaluated, told = tokens[1], None
    if answers_rows(teacher, evaluation):
        of_rows = teacher_columns(evaluation, teacher, config.columns_cache_dir, dtype=config.columns_dtype)
        evaluated, told = with_columns(tokens[1], of_rows.select_columns([LOGITS_COLUMN])), of_rows._fingerprint
    prepared = _with_fine_labels(with_columns(tokens[0], columns), train, arguments)
    _, origins = Origins.taken_from(train)
    if origins is not None:
        prepared = with_columns(prepared, train.select_columns([ORIGIN_COLUMN, KIND_COLUMN]))
    if size is not None:
        prepared = _sample(prepared, origins, size, config.seed)
    return Task(
        train=prepared,
        evaluation=evaluated,
        head=teacher.head,
        student=student,
        processing_class=processing_class,
        settings=_training_settings(config),
        fine_column="fine_label" if arguments.fine_column is not None else None,
        projections=projections,
        # The fingerprints of `teacher_columns` are made of the rows' hashes, not of what the teacher said.
        columns=None
        if projections is not None
        else f"{columns._fingerprint} {told} {(size, config.seed) if size is not None else ''}",
    )


def _columns_of(
    arguments: CompareArguments, config: LELPConfig, data: Sequence[Dataset], processing_class: Processor | None
) -> RunColumns:
    """Find the columns of the comparison, with that of a retrained teacher where a method reads it."""
    retrained = (SUBCLASS_LOGITS_COLUMN,) if _has_kind(arguments.methods, SUBCLASS_DISTILLATION) else ()
    return RunColumns.of(data, config.input_columns, config.label_column, processing_class, retrained)


def _sample(prepared: Dataset, origins: Origins | None, size: int, seed: int) -> Dataset:
    """Draw rows of the data itself, with all that was made of them."""
    if origins is None:
        return prepared.shuffle(seed=seed).select(range(size))
    return prepared.select(origins.sample(size, seed))


def _with_fine_labels(prepared: Dataset, train: Dataset, arguments: CompareArguments) -> Dataset:
    """Number the finer classes of the training rows, for the oracle; where there is no oracle, −1 is none."""
    column = arguments.fine_column
    if column is None:
        return prepared
    values = column_values(train, column)
    known = np.array([value is not None for value in values])
    if not known.all() and _has_kind(arguments.methods, ORACLE):
        raise ValueError(f"fine_column={column}: {(~known).sum():,} of {len(train):,} rows hold no finer class.")
    given = [value for value in values if value is not None]
    fine = np.full(len(values), -1)
    fine[known] = given if isinstance(train.features[column], ClassLabel) else np.unique(given, return_inverse=True)[1]
    return with_columns(prepared, Dataset.from_dict({"fine_label": fine}))


def _training_settings(config: LELPConfig) -> dict[str, Any]:
    """Select the settings that are not defaults and can change a result."""
    defaults = LELPConfig(output_dir=config.output_dir).to_dict()
    place = {*RUN_SETTINGS, "seed", "columns_cache_dir", "logging_dir"}  # older transformers have logging_dir
    place |= {"windows", "views", "view_kinds"}  # made already
    return {
        name: value
        for name, value in config.to_dict().items()
        if value != defaults.get(name) and name not in place and not name.startswith(("hub_", "push_"))
    }


def _student(name: str, num_labels: int, processing_class: Processor | None, source: SourceMaker) -> Any:
    model = new_student(name, num_labels, processing_class, source)
    processing_class = load_processor(name) if processing_class is None else processing_class
    if isinstance(processing_class, PreTrainedTokenizerBase):
        set_pad_token(processing_class, model)
    return model


def _size_name(size: int | None) -> str:
    return "all rows" if size is None else f"{size:,} rows"


def _has_kind(methods: Sequence[str], kind: str) -> bool:
    """Tell whether a kind of method is among the methods."""
    return any(Method.parse(method).kind == kind for method in methods)


def choose_reference(methods: Sequence[str], reference: str | None) -> str:
    """Choose the method that the others are compared to: the one named, or the first kd, or the first.

    Raises:
        ValueError: if a method is unknown or named twice, or the reference is none of them.
    """
    parsed = [Method.parse(method) for method in methods]
    if not parsed or len(set(methods)) < len(methods):
        raise ValueError(f"methods={' '.join(methods)}: one or more different ones are needed.")
    if reference is None:
        return next((method.name for method in parsed if method.kind == "kd"), methods[0])
    if reference not in methods:
        raise ValueError(f"reference={reference!r} is none of the methods: {', '.join(methods)}.")
    return reference


PROGRAM = Program(
    compare,
    (CompareArguments, LELPConfig),
    "Compare methods of distillation on your data, over several seeds.",
    rate_by_size=True,
)
