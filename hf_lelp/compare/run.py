"""Trains one student, measures it and keeps the result, or reads a result that was kept."""

import json
import logging
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import TrainingArguments, set_seed

from hf_lelp.compare.methods import BEST, Method, build_trainer, rows_of_method, train_student
from hf_lelp.compare.task import Task
from hf_lelp.config import AUTO, SILENT_RUN, LELPConfig, effective_settings
from hf_lelp.data.columns import LOGITS_COLUMN, TEACHER_COLUMNS
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values, content_hash, split_rows, transform_of
from hf_lelp.metrics import few_class_metrics
from hf_lelp.storage.files import read_json, write_atomically, write_json
from hf_lelp.storage.shards import SHARD_ROWS
from hf_lelp.student.heads import saved_parameters
from hf_lelp.training.student_inputs import OnTheFly
from hf_lelp.training.trials import SEARCH_VERSION
from hf_lelp.transfer.origins import KINDS, ROW, Origins

logger = logging.getLogger(__name__)

# Raise it when a loss or a maker of subclasses changes by more than rounding: earlier runs are then not read.
RESULTS_VERSION = 1
# None of these changes a result; every other setting does.
RUN_SETTINGS: dict[str, Any] = {**SILENT_RUN, "dataloader_pin_memory": False}
# These settings change the columns alone, or nothing; a task's fingerprint covers its columns.
COLUMN_SETTINGS = {item.name for item in fields(LELPConfig) if item.metadata.get("changes") in ("columns", "nothing")}
# Of the settings of TrainingArguments, a run's name holds only those that the task or the method sets.
EXCLUDED_SETTINGS = {item.name for item in fields(TrainingArguments)} | COLUMN_SETTINGS


@dataclass(frozen=True)
class Run:
    """One student trained and measured.

    Attributes:
        method: as the user wrote it.
        seed: of the student's weights, the order of the rows and the rotation.
        figures: accuracy and other metrics, training time, parameters, the settings in force.
        logits: of the evaluation rows, (N, C), float32.
        labels: of the evaluation rows, (N,).
    """

    method: str
    seed: int
    figures: dict[str, Any]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each evaluation row was answered correctly, (N,); rows without a label are left out."""
        labelled = self.labels != NO_LABEL
        return np.asarray(self.logits.argmax(-1)[labelled] == self.labels[labelled])


def run_or_read(task: Task, task_hash: str, method: str, seed: int, runs_dir: Path) -> Run:
    """Read a run if it was kept before; else do it and keep it.

    Args:
        task: to train on.
        task_hash: its `task_fingerprint`.
        method: see `Method.parse`.
        seed: of the run.
        runs_dir: where runs are kept.
    """
    return _run_or_read(task, task_hash, Method.parse(method), seed, runs_dir)


def _run_or_read(task: Task, task_hash: str, method: Method, seed: int, runs_dir: Path) -> Run:
    config = method.config(task, **RUN_SETTINGS, seed=seed, output_dir="unused")
    # All settings of this library: the same method with other defaults is another run.
    ours = {item.name: getattr(config, item.name) for item in fields(config) if item.name not in EXCLUDED_SETTINGS}
    given = {name: value for name, value in {**task.settings, **method.settings}.items() if name not in COLUMN_SETTINGS}
    settings = {**given, **ours, "kind": "lelp" if method.kind == BEST else method.kind}
    if config.auto:
        settings["search"] = SEARCH_VERSION
        if task.reads_tokens:
            settings["search starts from"] = "kd, and tries the paper's form"
    else:
        settings.pop("budget", None)
    named = effective_settings(settings)
    if settings["num_subclasses"] == 1 and "baseline" not in settings:
        named = {**named, "kind": "kd"}  # whatever the method's name: there are no subclasses
    if len(rows_of_method(task.train, config)) < len(task.train):
        named["rows"] = "with labels"
    # Settings that are not set are not named: a later version can add one that defaults to None, and runs keep names.
    named = {name: value for name, value in named.items() if value is not None}
    key = xxhash.xxh3_128(f"{task_hash} {seed} {json.dumps(named, sort_keys=True)}".encode()).hexdigest()
    file = runs_dir / f"v{RESULTS_VERSION}-{key}.safetensors"
    if file.exists():
        try:
            run = _read(file, method.name, seed)
            if settings["num_subclasses"] == 1:  # another method's name may stand for the same run
                own = {name: value for name, value in _final_settings(settings, config).items() if value != AUTO}
                run.figures["settings"] |= own
            return run
        except ValueError as error:
            logger.warning(f"The run {method.name} with seed {seed} is made again: {error}")
    if config.auto:
        run = _with_chosen(task, method, config, settings, task_hash, runs_dir)
    else:
        run = _train(task, method, config, settings)
    text = json.dumps(run.figures)
    metadata = {"figures": text, "checksum": _checksum(text, run.logits, run.labels)}
    tensors: dict[str, NDArray[Any]] = {"logits": run.logits, "labels": run.labels}
    write_atomically(file, lambda path: save_file(tensors, path, metadata))
    return run


def row_counts(task: Task) -> dict[str, Any]:
    """Count the data's own rows, `train_rows`, and where there are any those made or added, `added_rows` by kind."""
    _, origins = Origins.taken_from(task.train)
    added = {} if origins is None else origins.count()
    own = added.pop(KINDS[ROW], len(task.train))
    return {"train_rows": own, **({"added_rows": added} if added else {})}


def _train(task: Task, method: Method, config: LELPConfig, settings: dict[str, Any]) -> Run:
    """Do a run without any "auto" setting."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        config.output_dir = scratch
        trainer = train_student(task, method, config)
        seconds = time.perf_counter() - start
        prediction = trainer.predict(task.evaluation)
    logits = np.array(prediction.predictions, dtype=np.float32)
    labels = np.asarray(prediction.label_ids, dtype=np.int64)
    diverged = ~np.isfinite(logits).all(-1)
    logits[diverged] = 0.0  # such a student tells no class from another: it counts, as its method's risk
    figures = {
        **few_class_metrics(logits, labels, _teacher_logits(task)),
        "train_seconds": seconds,
        "parameters": saved_parameters(trainer.model),
        **row_counts(task),
        "auto_trials": [],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": str(config.device),
        "settings": _final_settings(settings, trainer.args),
    }
    if diverged.any():
        figures["rows_not_finite"] = int(diverged.sum())
        logger.warning(f"{method.name} with seed {config.seed} diverged: its logits are NaN or infinite.")
    return Run(method.name, config.seed, figures, logits, labels)


def _with_chosen(
    task: Task, method: Method, config: LELPConfig, settings: dict[str, Any], task_hash: str, runs_dir: Path
) -> Run:
    """Choose numbers for "auto", and read or do the run with them.

    Another method may have made that run or its trials already: all methods of a task and seed share them. The time
    reported is what the run would have taken alone.
    """
    settled = [name for name, value in settings.items() if value == AUTO]
    config.output_dir = str(runs_dir / f"v{RESULTS_VERSION}-trials-{task_hash}-{config.seed}")
    trainer = build_trainer(task, method, config)
    args, trials = trainer.args, trainer.auto_trials
    del trainer  # and the student that it would have trained
    chosen = {name: getattr(args, name) for name in (*settled, "whitening")}
    run = _run_or_read(task, task_hash, replace(method, settings={**method.settings, **chosen}), config.seed, runs_dir)
    figures = {
        **run.figures,
        "train_seconds": run.figures["train_seconds"] + sum(t.get("seconds", 0) for t in trials),
        "auto_trials": trials,
        "settings": _final_settings(settings, args),
    }
    return replace(run, figures=figures)


def _final_settings(settings: dict[str, Any], args: LELPConfig) -> dict[str, Any]:
    """Return the settings in force, with the numbers chosen in place of "auto"."""
    return {
        name: getattr(args, name, value) for name, value in settings.items() if name not in {*RUN_SETTINGS, "budget"}
    }


def _read(file: Path, method: str, seed: int) -> Run:
    """Read a run from its file.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        with safe_open(file, framework="np") as stored:
            metadata = stored.metadata()
            text, logits, labels = metadata["figures"], stored.get_tensor("logits"), stored.get_tensor("labels")
        # Files of earlier versions have no checksum.
        if metadata.keys() != {"figures"} and metadata.get("checksum") != _checksum(text, logits, labels):
            raise ValueError("its contents have changed")
        return Run(method, seed, json.loads(text), logits, labels)
    except (KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {error})") from error


def _checksum(figures: str, logits: NDArray[Any], labels: NDArray[Any]) -> str:
    """Hash what a run's file holds."""
    digest = xxhash.xxh3_128(figures.encode())
    for array in (logits, labels):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def known_fingerprint(task: Task, runs_dir: Path) -> str:
    """Return the `task_fingerprint` under which a task's runs are kept.

    It hashes the teacher's columns as they are stored, and a pass over other rows together rounds them otherwise. So
    the first one is kept under the hash of what tells the columns, and holds for all tasks that differ in rounding.
    """
    if task.columns is None:
        return task_fingerprint(task)
    key = xxhash.xxh3_128_hexdigest(f"{task.columns} {task_fingerprint(task, without=TEACHER_COLUMNS)}".encode())
    file = runs_dir / f"task-{key}.json"
    try:
        return str(read_json(file)["fingerprint"])
    except (FileNotFoundError, KeyError, ValueError):
        fingerprint = task_fingerprint(task)
        write_json(file, {"fingerprint": fingerprint})
        return fingerprint


def task_fingerprint(task: Task, *, without: Collection[str] = ()) -> str:
    """Hash the rows of both datasets, the teacher's final layer and a student made with a fixed seed.

    Args:
        task: the data, and how to make the student.
        without: columns that are left out.
    """
    digest = xxhash.xxh3_128(task.head.fingerprint.encode())
    for dataset in (task.train, task.evaluation):
        dataset = dataset.remove_columns([name for name in without if name in dataset.column_names])
        for part in split_rows(dataset, SHARD_ROWS):
            digest.update(content_hash(part).encode())
    set_seed(0)
    student = task.student()
    student.config._name_or_path = ""  # the same weights in another place are the same student
    digest.update(student.config.to_json_string(use_diff=False).encode())
    if isinstance(transform_of(task.train), OnTheFly) and task.processing_class is not None:
        digest.update(str(task.processing_class.to_dict()).encode())
    for tensor in student.state_dict().values():
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _teacher_logits(task: Task) -> NDArray[np.float32] | None:
    if LOGITS_COLUMN not in task.evaluation.column_names:
        return None
    return np.asarray(column_values(task.evaluation.with_format("numpy"), LOGITS_COLUMN))
