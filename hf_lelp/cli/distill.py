"""One run from arguments to results: data, teacher, a student by each method, a table. Used by run_distill.py."""

import copy
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub import upload_file

from hf_lelp.classifiers import load_processor
from hf_lelp.cli.data import FILE_FORMATS, DataArguments, expand, load_data
from hf_lelp.cli.groups import _alignment, _group_names
from hf_lelp.cli.results import _publish, _say, _size_and_speed
from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import LOGITS_COLUMN, resolve_input_columns
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values
from hf_lelp.metrics import few_class_metrics
from hf_lelp.storage.files import check_writable
from hf_lelp.student.card import CARD_NAME, EvaluationData, StudentCard
from hf_lelp.student.checkpoints import last_checkpoint
from hf_lelp.teacher.class_order import load_aligned_teacher
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.teacher import Teacher
from hf_lelp.trainer import LELPTrainer

METHODS = ("direct", "kd", "lelp")
LAST = "last"  # checkpoint


@dataclass
class DistillArguments(DataArguments):
    """What is distilled: models, data and methods. All settings of training are in `LELPConfig`.

    Raises:
        ValueError: if a model or the data is missing, or a method is unknown.
    """

    student_model: str | None = field(default=None, metadata={"help": "The student: Hub id or folder."})
    teacher_model: str | None = field(
        default=None, metadata={"help": "The fine-tuned teacher: Hub id or folder. Not needed for the method direct."}
    )
    method: list[str] = field(
        default_factory=lambda: ["lelp"],
        metadata={"help": "One or more of direct (labels alone), kd (plain distillation) and lelp."},
    )
    group_column: str | None = field(
        default=None,
        metadata={"help": "A column of finer groups, for the report only: do the pseudo-subclasses follow them?"},
    )

    def __post_init__(self) -> None:
        method: Any = self.method
        self.method = [method] if isinstance(method, str) else method  # YAML may have one as text
        unknown = [name for name in self.method if name not in METHODS]
        if unknown or not self.method:
            raise ValueError(f"method={' '.join(self.method)}: one or more of {', '.join(METHODS)} are possible.")
        if self.student_model is None:
            raise ValueError("student_model is missing: a Hub id or folder.")
        if self.teacher_model is None and set(self.method) != {"direct"}:
            raise ValueError("teacher_model is missing: a Hub id or folder of a fine-tuned classifier.")
        super().__post_init__()


def distill(arguments: DistillArguments, config: LELPConfig) -> dict[str, Any]:
    """Distil a student by each method, evaluate all on the same rows, save everything, print one table.

    With one method `config.output_dir` holds the student; with several, a folder of the method's name in it does.
    `all_results.json` in `config.output_dir` holds the results, and every student's card shows all of them. On the Hub
    each of several methods has a repository of its own, `config.hub_model_id` with the method's name at the end.
    `config.resume_from_checkpoint` is a checkpoint, or "last": the last whole one in each method's folder, or the start
    where there is none, so that the same command goes on wherever it was stopped. With several methods it is always
    "last".

    Args:
        arguments: models, data and methods.
        config: settings of training; `alpha` and `num_subclasses` are set by the methods direct and kd.

    Returns:
        The results as in `all_results.json`: a dictionary of figures for "teacher" and each method.

    Raises:
        ValueError: if settings and methods contradict each other, or see `LELPTrainer`.
    """
    if config.alpha == 1 and set(arguments.method) != {"direct"}:
        raise ValueError("alpha=1 leaves nothing to distil: it is the method direct. Lower alpha, or drop kd and lelp.")
    if config.num_subclasses == 1 and "lelp" in arguments.method:
        raise ValueError("num_subclasses=1 is plain distillation, the method kd. Use 2 or more for lelp, or drop it.")
    output_dir = Path(config.output_dir or "out")
    check_writable(output_dir)
    if config.columns_cache_dir is not None:
        check_writable(Path(config.columns_cache_dir))
    train, evaluation = load_data(arguments, config.seed)
    student = expand(arguments.student_model or "")
    processing_class = load_processor(student)
    input_columns = resolve_input_columns(train, config.input_columns, config.label_column, processing_class)
    if arguments.group_column not in (None, *train.column_names):
        raise ValueError(f"group_column={arguments.group_column}; the data has {', '.join(train.column_names)}.")
    _say(f"data: {len(train):,} training and {len(evaluation):,} evaluation rows of {', '.join(input_columns)}")
    config = copy.deepcopy(config)
    teacher = None
    if arguments.teacher_model is not None:
        teacher, _ = load_aligned_teacher(expand(arguments.teacher_model), None, config, train, None)
    if teacher is not None:
        # From here on it gives its classes in the data's order.
        config.teacher_class_order = list(range(len(teacher.head.weight)))

    results: dict[str, dict[str, Any]] = {}
    logits: dict[str, Any] = {}
    cards: dict[str, tuple[StudentCard, Path, str | None]] = {}
    alignment = labels = None
    for method in arguments.method:
        settings = copy.deepcopy(config)
        settings.output_dir = str(output_dir / method if len(arguments.method) > 1 else output_dir)
        if len(arguments.method) > 1 and config.hub_model_id is not None:
            settings.hub_model_id = f"{config.hub_model_id}-{method}"
        if method == "direct":
            settings.alpha = 1.0
        elif method == "kd":
            settings.num_subclasses = 1
        trainer = LELPTrainer(
            model=student,
            args=settings,
            train_dataset=train,
            eval_dataset=evaluation,
            processing_class=processing_class,
            teacher_model=teacher,
        )
        start = time.perf_counter()
        resume = config.resume_from_checkpoint
        if resume is not None and (len(arguments.method) > 1 or resume in (LAST, True)):  # true as YAML has it
            resume = last_checkpoint(Path(settings.output_dir))
        trainer.train(resume_from_checkpoint=resume)
        seconds = time.perf_counter() - start
        # Of a run that went on from a checkpoint the whole time is not known.
        results[method] = {"train_seconds": seconds} if resume is None else {}
        trainer.save_model()
        trainer.save_state()
        cards[method] = (trainer.student_card(), Path(settings.output_dir), trainer.hub_model_id)
        went_on = "" if resume is None else f" from {Path(resume).name} on"
        _say(f"{method}: trained{went_on} in {seconds:.0f} s, saved in {settings.output_dir}")
        prediction = trainer.predict(evaluation)
        logits[method], labels = prediction.predictions, prediction.label_ids
        results[method] |= _size_and_speed(
            trainer.model, processing_class, evaluation, input_columns, config.max_length
        )
        if method == "lelp" and arguments.group_column is not None:
            alignment = _alignment(trainer, _group_names(train, arguments.group_column))
    if teacher is not None:
        columns = teacher_columns(evaluation, teacher, config.columns_cache_dir, dtype=config.columns_dtype)
        logits["teacher"] = column_values(columns.with_format("numpy"), LOGITS_COLUMN)
        assert isinstance(teacher, Teacher)  # as it was loaded here
        size = _size_and_speed(
            teacher.model, teacher.processing_class, evaluation, teacher.input_columns, teacher.max_length
        )
        results = {"teacher": size, **results}
    labels = np.full(len(evaluation), NO_LABEL) if labels is None else labels
    for name, result in results.items():
        result |= few_class_metrics(logits[name], labels, None if name == "teacher" else logits.get("teacher"))
    data = _evaluation_data(arguments, evaluation)
    for method, (card, folder, repo) in cards.items():
        datasets = [data.kind] if arguments.dataset_name is not None and data.kind is not None else []
        card = replace(card, row=method, results=results, evaluation=data, datasets=datasets)
        if PartialState().is_main_process:
            card.save(folder / CARD_NAME)
            if repo is not None:
                message = "Add the figures of all methods to the card"
                upload_file(
                    path_or_fileobj=str(folder / CARD_NAME),
                    path_in_repo=CARD_NAME,
                    repo_id=repo,
                    token=config.hub_token,
                    commit_message=message,
                )
    return _publish(results, alignment, len(evaluation), output_dir)


def _evaluation_data(arguments: DataArguments, evaluation: Dataset) -> EvaluationData:
    """The evaluation rows by the name that the Hub has for them, or that of their file."""
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
