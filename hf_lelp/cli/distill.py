"""Runs distillation from arguments to results: data, teacher, a student by each method, a table."""

import copy
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub import upload_file

from hf_lelp.calibration.settled import (
    HELD_BACK,
    RECORD_NAME,
    check_settling,
    draw,
    hold_back,
    measured,
    settings_of,
    settle,
    summary_of,
)
from hf_lelp.calibration.threshold import Aim
from hf_lelp.cli.advice import advice_of
from hf_lelp.cli.data import (
    FILE_FORMATS,
    DataArguments,
    Names,
    TrainingDataArguments,
    expand,
    expand_all,
    load_data,
    load_unlabelled,
    one_or_several,
)
from hf_lelp.cli.groups import alignment_of, group_names
from hf_lelp.cli.options import Program
from hf_lelp.cli.results import publish, quality, say, stages_for
from hf_lelp.cli.speed import size_and_speed, teacher_size_and_speed
from hf_lelp.config import PREDICT_ALL_ROWS, LELPConfig, as_list, check_embeddings
from hf_lelp.data.columns import LOGITS_COLUMN, find_label_column, resolve_input_columns
from hf_lelp.data.encoding import Processor
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values
from hf_lelp.making.start import student_processor
from hf_lelp.overrides.card_facts import method_of
from hf_lelp.storage.files import check_writable
from hf_lelp.student.card import CARD_NAME, EvaluationData, StudentCard
from hf_lelp.student.checkpoints import last_checkpoint
from hf_lelp.teacher.class_order import AlignedTeacher, load_aligned_teacher, processor_of_teacher
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.kinds.combined import answers_rows
from hf_lelp.trainer import LELPTrainer
from hf_lelp.training.auto_settings import best_settings, reads_tokens
from hf_lelp.training.launch import common_settings
from hf_lelp.transfer.rows import without_rows_of

METHODS = ("direct", "kd", "lelp", "best")
LAST = "last"  # checkpoint


@dataclass
class DistillArguments(TrainingDataArguments):
    """Models, data and methods of a run. All settings of training are in `LELPConfig`.

    Raises:
        ValueError: if a model or the data is missing, or a method is unknown.
    """

    student_model: str | None = field(
        default=None,
        metadata={"help": "Hub id, folder, or one made: new:2x128, layers:2, static."},
    )
    teacher_model: Names | None = field(
        default=None,
        metadata={
            "help": "The fine-tuned teacher: Hub id or folder; of several, the mean. Not needed for direct, or with"
            " --soft_label_columns."
        },
    )
    method: list[str] = field(
        default_factory=lambda: ["lelp"],
        metadata={
            "help": "One or more of direct (labels alone), kd (plain distillation), lelp, and best: what validation"
            " rows support of the two."
        },
    )
    group_column: str | None = field(
        default=None,
        metadata={"help": "Finer groups: do the pseudo-subclasses follow them?"},
    )

    held_back: float | None = field(
        default=None,
        metadata={
            "help": "Share of the training rows, drawn at random, that no student trains on (default: a tenth with"
            " calibrate or threshold)."
        },
    )
    calibrate: bool = field(
        default=False, metadata={"help": "Fit one temperature on the rows held back; fold it into the final layer."}
    )
    threshold: str | None = field(
        default=None,
        metadata={"help": "For two classes, chosen on the rows held back: f1, recall=R, precision=P or costs=A:M."},
    )

    def __post_init__(self) -> None:
        if self.threshold is not None:
            Aim.parse(self.threshold)
        if self.held_back is None and (self.calibrate or self.threshold is not None):
            self.held_back = HELD_BACK
        self.method = as_list(self.method)
        self.teacher_model = one_or_several(self.teacher_model)
        unknown = [name for name in self.method if name not in METHODS]
        if unknown or not self.method:
            raise ValueError(f"method={' '.join(self.method)}: one or more of {', '.join(METHODS)} are possible.")
        if self.student_model is None:
            raise ValueError("student_model is missing: a Hub id or folder.")
        super().__post_init__()


def distill(arguments: DistillArguments, config: LELPConfig) -> dict[str, Any]:
    """Distil a student by each method, evaluate all on the same rows, save everything and print one table.

    With one method, `config.output_dir` holds the student. With several, each student has a folder in it with the
    method's name. `all_results.json` in `config.output_dir` holds the results, and every student's card shows all of
    them. On the Hub each of several methods has its own repository: `config.hub_model_id` with the method's name at
    the end.

    `config.resume_from_checkpoint` is a checkpoint, or "last". "last" is the last whole checkpoint in each method's
    folder, or the start if there is none. So the same command resumes wherever it was stopped. With several methods any
    value means "last".

    Args:
        arguments: models, data and methods.
        config: settings of training; `alpha` and `num_subclasses` are set by the methods direct and kd.

    Returns:
        The results as in `all_results.json`: a dictionary of figures for "teacher" and each method.

    Raises:
        ValueError: if settings and methods contradict each other; see also `LELPTrainer`.
    """
    check_methods(arguments, config)
    config = common_settings(config)  # the seed decides which rows are drawn
    output_dir = Path(config.output_dir or "out")
    check_writable(output_dir)
    # A cache that holds columns may be complete: then nothing is written to it.
    if config.columns_cache_dir is not None and not (Path(config.columns_cache_dir) / "teacher").is_dir():
        check_writable(Path(config.columns_cache_dir))
    inputs = _load(arguments, config)
    # A sampled fit is made once: the method that may need most directions comes first.
    order = sorted(arguments.method, key=lambda method: config.fit_rows is not None and method != "best")
    trained = {method: _train(method, arguments, config, inputs, output_dir) for method in order}
    students = {method: trained[method] for method in arguments.method}

    results = {method: student.figures for method, student in students.items()}
    logits = {method: student.logits for method, student in students.items()}
    labels = next(iter(students.values())).labels
    teacher = inputs.aligned.teacher if inputs.aligned is not None else None
    if teacher is not None and answers_rows(teacher, inputs.evaluation):
        columns = teacher_columns(inputs.evaluation, teacher, config.columns_cache_dir, dtype=config.columns_dtype)
        logits["teacher"] = column_values(columns.with_format("numpy"), LOGITS_COLUMN)
        alike = next(student.max_length for student in students.values())
        results = {"teacher": teacher_size_and_speed(teacher, inputs.evaluation, alike), **results}
    labels = np.full(len(inputs.evaluation), NO_LABEL) if labels is None else labels
    for name, result in results.items():
        result |= quality(name, logits[name], labels, None if name == "teacher" else logits.get("teacher"))
    data = _evaluation_data(arguments, inputs.evaluation)
    datasets = [data.kind] if arguments.dataset_name is not None and data.kind is not None else []
    for method, student in students.items():
        learned = "unlabelled" in student.figures.get("learned_from", {})
        settings = {"training data": _training_data(arguments, unlabelled=learned), **student.card.settings}
        card = replace(student.card, row=method, results=results, evaluation=data, datasets=datasets, settings=settings)
        _save_card(card, student, config.hub_token)
    alignment = next((student.alignment for student in students.values() if student.alignment is not None), None)
    coded = [student.folder for student in students.values() if student.card.num_subclasses > 1]
    how = "pipeline(..., trust_remote_code=True) loads {0}; hf-lelp export {0} --to plain makes a plain model of it."
    advice = list(dict.fromkeys(line for student in students.values() for line in student.advice))
    return publish(results, alignment, len(inputs.evaluation), output_dir, [*advice, *map(how.format, coded)])


def check_methods(arguments: DistillArguments, config: LELPConfig) -> None:
    """Refuse settings that contradict the methods.

    Raises:
        ValueError: saying which, and what to do.
    """
    if config.alpha == 1 and set(arguments.method) != {"direct"}:
        raise ValueError("alpha=1 leaves nothing to distil: it is the method direct. Lower alpha, or drop kd and lelp.")
    if config.budget is not None and not config.auto and "best" not in arguments.method:
        raise ValueError(
            f'budget={config.budget} is of a search, and there is none: add the method best, or set "auto", or drop it.'
        )
    if arguments.teacher_model is None and config.soft_label_columns is None and set(arguments.method) != {"direct"}:
        raise ValueError(
            "teacher_model is missing: a Hub id or folder of a fine-tuned classifier; or name columns of soft labels in"
            " soft_label_columns."
        )
    for method in {"lelp", "best"} & {*arguments.method}:
        check_embeddings(config, f"The method {method}")
    if config.num_subclasses == 1 and "lelp" in arguments.method:
        raise ValueError("num_subclasses=1 is plain distillation, the method kd. Use 2 or more for lelp, or drop it.")


@dataclass(frozen=True)
class _Inputs:
    """What all methods share: the rows (and a record of those held back), the student's name, and the teacher."""

    train: Dataset
    held_back: Dataset | None
    record: dict[str, Any] | None
    evaluation: Dataset
    columns: list[str]
    student: str
    processing_class: Processor
    aligned: AlignedTeacher | None
    unlabelled: Dataset | None


@dataclass(frozen=True)
class _Student:
    """A trained student: its figures, logits, (N, C), and labels, (N,), of the evaluation rows, and its place."""

    figures: dict[str, Any]
    logits: Any
    labels: Any
    card: StudentCard
    folder: Path
    repo: str | None
    alignment: dict[str, Any] | None
    max_length: int | None
    advice: list[str]


def _load(arguments: DistillArguments, config: LELPConfig) -> _Inputs:
    train, evaluation = load_data(arguments, config.seed)
    student = expand(arguments.student_model or "")
    teacher = expand_all(arguments.teacher_model)
    told = teacher or expand_all(config.embedding_model)
    processing_class = student_processor(student, partial(processor_of_teacher, told, None))
    columns = resolve_input_columns(train, config.input_columns, config.label_column, processing_class)
    if arguments.group_column not in (None, *train.column_names):
        raise ValueError(f"group_column={arguments.group_column}; the data has {', '.join(train.column_names)}.")
    held, record, told = None, None, ""
    if arguments.held_back is not None:
        fitted = arguments.calibrate or arguments.threshold is not None
        if fitted and find_label_column(train, config.label_column) is None:
            raise ValueError(
                f"The training data has no labels in {config.label_column!r}, and temperature and threshold are fitted"
                " to them. Set label_column, or leave calibrate and threshold out."
            )
        all_rows = len(train)
        train, held = hold_back(train, arguments.held_back, config.seed, columns)
        record = {"share": arguments.held_back, "seed": config.seed, "rows": all_rows}
        told = f" ({len(held):,} more are held back)"
    say(f"data: {len(train):,} training{told} and {len(evaluation):,} evaluation rows of {', '.join(columns)}")
    if find_label_column(evaluation, config.label_column) is None:
        found = ", ".join(evaluation.column_names)
        say(f"No accuracy: the evaluation data has no labels in {config.label_column!r} (it has {found})")
    aligned = None
    if teacher is not None or (config.soft_label_columns is not None and set(arguments.method) != {"direct"}):
        aligned = load_aligned_teacher(teacher, None, config, train, None, [evaluation])
    unlabelled = load_unlabelled(arguments)
    if unlabelled is not None and held is not None:
        unlabelled = without_rows_of(unlabelled, held, columns)
    return _Inputs(train, held, record, evaluation, columns, student, processing_class, aligned, unlabelled)


def _settings_for(method: str, config: LELPConfig, output_dir: Path, several: bool, tokens: bool) -> LELPConfig:
    """Return the settings of one method's run; of several, each has its own folder and repository."""
    settings = copy.deepcopy(config)
    settings.output_dir = str(output_dir / method if several else output_dir)
    if several and config.hub_model_id is not None:
        settings.hub_model_id = f"{config.hub_model_id}-{method}"
    if method == "direct":
        settings.alpha = 1.0
    elif method == "kd":
        settings.num_subclasses = 1
        if config.fit_rows is not None:  # what this pass keeps must do for the other methods
            settings.num_directions = config.directions
    elif method == "best":
        for name, value in best_settings(tokens).items():
            setattr(settings, name, value)
    return settings


def _train(method: str, arguments: DistillArguments, config: LELPConfig, inputs: _Inputs, output_dir: Path) -> _Student:
    """Train a student by one method, or resume it; save it; predict the evaluation rows."""
    several = len(arguments.method) > 1
    settings = _settings_for(method, config, output_dir, several, reads_tokens(inputs.processing_class))
    trainer = LELPTrainer(
        model=inputs.student,
        args=settings,
        train_dataset=inputs.train,
        eval_dataset=inputs.evaluation,
        processing_class=inputs.processing_class,
        teacher_model=inputs.aligned,
        transfer_dataset=inputs.unlabelled,
    )
    _check_held_back(trainer, arguments, inputs)
    if vars(config)["learning_rate"] is None:
        say(f"{method}: learning rate {trainer.args.learning_rate:g}, by the student's size")
    stages_for(trainer, method)
    start = time.perf_counter()
    resume = config.resume_from_checkpoint
    if resume is not None and (several or resume in (LAST, True)):  # YAML may give true
        resume = last_checkpoint(Path(str(settings.output_dir)))
    trainer.train(resume_from_checkpoint=resume)
    seconds = time.perf_counter() - start
    for name, value in PREDICT_ALL_ROWS.items():
        setattr(trainer.args, name, value)
    trainer.save_model()
    trainer.save_state()
    settled = _settle(trainer, arguments, inputs)
    card = trainer.student_card()
    went_on = "" if resume is None else f" from {Path(resume).name} on"
    say(f"{method}: trained{went_on} in {seconds:.0f} s, saved in {settings.output_dir}")
    prediction = trainer.predict(inputs.evaluation)
    # The total time of a resumed run is not known.
    figures: dict[str, Any] = {"train_seconds": seconds} if resume is None else {}
    if trainer.prepared.origins is not None:
        figures["learned_from"] = trainer.prepared.origins.count()
    cut = trainer.prepared.max_length
    figures |= size_and_speed(trainer.model, inputs.processing_class, inputs.evaluation, inputs.columns, cut, cut)
    with_groups = method_of(trainer.args) == "lelp" and arguments.group_column is not None
    alignment = alignment_of(trainer, group_names(inputs.train, str(arguments.group_column))) if with_groups else None
    folder = Path(str(settings.output_dir))
    if settled:
        settled = _told(settled, method, trainer, prediction, folder)
        figures["calibration"] = settled
        card = replace(card, settings=card.settings | settings_of(settled))
    return _Student(
        figures,
        prediction.predictions,
        prediction.label_ids,
        card,
        folder,
        trainer.hub_model_id,
        alignment,
        cut,
        advice_of(trainer),
    )


def _check_held_back(trainer: LELPTrainer, arguments: DistillArguments, inputs: _Inputs) -> None:
    """Refuse rows held back that temperature and threshold cannot be fitted to, before anything is trained."""
    if inputs.held_back is None or not (arguments.calibrate or arguments.threshold is not None):
        return
    classes = trainer.prepared.classes
    column = find_label_column(inputs.held_back, trainer.args.label_column)
    labels = np.array(classes.encode(column_values(inputs.held_back, str(column))))
    check_settling(classes.num_labels, labels, calibrate=arguments.calibrate, threshold=arguments.threshold)


def _settle(trainer: LELPTrainer, arguments: DistillArguments, inputs: _Inputs) -> dict[str, Any]:
    """Fit temperature and threshold on the rows held back, as asked for, and save the student again."""
    if inputs.held_back is None:
        return {}
    setattr(trainer.model.config, RECORD_NAME, inputs.record)
    settled: dict[str, Any] = {}
    if arguments.calibrate or arguments.threshold is not None:
        held = trainer.predict(inputs.held_back)
        trainer.forget_figures()  # those measured in training are of other probabilities
        logits, labels = np.asarray(held.predictions), np.asarray(held.label_ids)
        settled = settle(trainer.model, logits, labels, calibrate=arguments.calibrate, threshold=arguments.threshold)
    trainer.save_model()  # again: an aim that is out of reach must not cost the student
    return settled


def _told(settled: dict[str, Any], method: str, trainer: LELPTrainer, prediction: Any, folder: Path) -> dict[str, Any]:
    """Measure, draw and print what temperature and threshold do on the evaluation rows."""
    if prediction.label_ids is not None:
        shown = np.asarray(prediction.predictions), np.asarray(prediction.label_ids), trainer.model.config
        settled = measured(settled, *shown)
        if PartialState().is_main_process:
            draw(settled, *shown, folder.with_name(f"{folder.name}-calibrated"))
    say(summary_of(method, settled))
    return settled


def _save_card(card: StudentCard, student: _Student, token: str | None) -> None:
    """Write a card with the figures of all methods, from the main process, and upload it beside a published student."""
    if not PartialState().is_main_process:
        return
    card.save(student.folder / CARD_NAME)
    if student.repo is not None:
        upload_file(
            path_or_fileobj=str(student.folder / CARD_NAME),
            path_in_repo=CARD_NAME,
            repo_id=student.repo,
            token=token,
            commit_message="Add the figures of all methods to the card",
        )


def _training_data(arguments: DistillArguments, unlabelled: bool) -> str:
    """Name the training rows, and unlabelled ones that a student learned from, without the folder of a file."""
    name = arguments.train_file or str(arguments.dataset_name)
    drawn = "" if arguments.max_train_samples is None else f" (at most {arguments.max_train_samples:,} rows)"
    is_path = arguments.train_file is not None or Path(expand(name)).exists()
    more = f", and {Path(str(arguments.unlabelled_file)).name} without labels" if unlabelled else ""
    return f"{Path(name).name if is_path else name}{drawn}{more}"


def _evaluation_data(arguments: DataArguments, evaluation: Dataset) -> EvaluationData:
    """Name the evaluation rows as the Hub does, or by their file."""
    rows, kind, config, split = len(evaluation), None, None, None
    if arguments.train_file is not None:
        path = Path(arguments.eval_file or arguments.train_file)
        name, kind, held_out = path.name, FILE_FORMATS[path.suffix], arguments.eval_file is None
    else:
        assert arguments.dataset_name is not None
        name, split = arguments.dataset_name, str(evaluation.split)
        held_out = split == arguments.train_split
        if Path(expand(name)).exists():
            name = Path(expand(name)).resolve().name
        else:
            kind, config = name, arguments.dataset_config
    parts = (["a tenth held out"] if held_out else []) + (
        [f"first {rows:,} rows"] if rows == arguments.max_eval_samples else []
    )
    return EvaluationData(rows, f"{name} ({', '.join(parts)})" if parts else name, kind, config, split)


PROGRAM = Program(
    distill,
    (DistillArguments, LELPConfig),
    "Distil a classifier into a smaller one by LELP, plain distillation or labels alone.",
    rate_by_size=True,
)
