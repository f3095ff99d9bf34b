"""Trains the trials of a search, keeps each one, and says which of two is ahead.

A trial is kept in `auto.json` in the run's folder as soon as it is done. A run that starts again there, for instance to
resume, does not repeat it.
"""

import copy
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PrinterCallback, Trainer, set_seed
from transformers.trainer_utils import number_of_arguments

from hf_lelp.config import SILENT_RUN, LELPConfig, effective_settings, what_changes
from hf_lelp.data.columns import LOGITS_COLUMN
from hf_lelp.data.labels import classes_of
from hf_lelp.data.rows import column_values, transform_of
from hf_lelp.storage.files import read_json, write_json
from hf_lelp.training.student_inputs import OnTheFly
from hf_lelp.transfer.origins import Origins

logger = logging.getLogger(__name__)

ERRORS = 2.0  # standard errors of a paired difference, beyond which it is more than noise
VALIDATION_SHARE = 0.2
MOST_VALIDATION_ROWS = 5000
SEARCH_VERSION = 5  # raise it whenever the search changes: earlier trials and runs are then not read

TRIALS_NAME = "auto.json"
# Where these are not set, a trial of a version that had no such setting is found.
NEWER = (
    *("fit_rows", "class_weights", "soft_label_columns", "teacher_scores", "embedding_model"),
    *("teacher_activation", "teacher_weights"),
)
RIGHT = "right"  # in a trial: which validation rows were, as bits
# Takes settings, rows to train on and rows to predict; returns the logits of the latter, (n, C).
Fit = Callable[[LELPConfig, Dataset, Dataset], NDArray[np.floating]]
Part = tuple[Dataset, Dataset]  # rows to train on, and rows to judge by


@dataclass
class Trials:
    """Trials of one search: each is trained once on every part, kept in the run's folder, and found there again.

    Attributes:
        args: settings of the run.
        fit: trains a student and gives its logits.
        parts: rows to train on, and rows to judge by; n of the latter in all.
        key: identifies a trial by its settings and its part.
        beyond_noise: whether "ahead" means by more than the noise.
        tried: so far, by key, in order.
    """

    args: LELPConfig
    fit: Fit
    parts: Sequence[Part]
    key: Callable[[LELPConfig, int], str]
    beyond_noise: bool
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._truth = [classes_of(validation) for _, validation in self.parts]
        self._file = Path(self.args.output_dir or ".") / TRIALS_NAME
        self._known = _read(self._file)

    @property
    def validation_rows(self) -> int:
        """n, the rows that a trial is judged by."""
        return sum(map(len, self._truth))

    def ahead(self, challenger: dict[str, Any], other: dict[str, Any]) -> bool:
        """Whether a trial has more rows right; with `beyond_noise` by more than `ERRORS` standard errors."""
        before, after = self.run(other), self.run(challenger)
        gain = after.astype(int) - before
        if is_ahead(gain, ERRORS if self.beyond_noise else 0):
            return True
        if is_ahead(gain, 0):
            self.tried[self._key(challenger, 0)]["within_noise"] = True
        return False

    def run(self, settings: dict[str, Any]) -> NDArray[np.bool_]:
        """Train with these settings on every part unless it was done before; return which rows were right, (n,)."""
        keys = [self._key(settings, part) for part in range(len(self.parts))]
        right = np.concatenate([self._run(settings, part, key) for part, key in enumerate(keys)])
        if keys[0] not in self.tried:
            # A trial from the file may name fewer settings.
            found = {**self._known[keys[0]], **settings, "accuracy": float(right.mean())}
            found["seconds"] = sum(self._known[key]["seconds"] for key in keys)
            self.tried[keys[0]] = {name: value for name, value in found.items() if name != RIGHT}
            logger.info(f"auto: {summary_of(self.tried[keys[0]])}")
        return right

    def _run(self, settings: dict[str, Any], part: int, key: str) -> NDArray[np.bool_]:
        truth = self._truth[part]
        if key not in self._known:
            start = time.perf_counter()
            logits = self.fit(_trial(self.args, settings), *self.parts[part])
            seconds = time.perf_counter() - start
            right = logits.argmax(-1) == truth
            measured = {"accuracy": float(right.mean()), "seconds": seconds}
            self._known[key] = {**settings, **measured, RIGHT: np.packbits(right).tobytes().hex()}
            if PartialState().is_main_process:
                write_json(self._file, {"trials": self._known})
        bits = np.frombuffer(bytes.fromhex(self._known[key][RIGHT]), dtype=np.uint8)
        return np.unpackbits(bits, count=len(truth)).astype(bool)

    def _key(self, settings: dict[str, Any], part: int) -> str:
        # All processes take the main one's key: `local_rank` is one of the settings.
        return str(broadcast_object_list([self.key(_trial(self.args, settings), part)])[0])


def is_ahead(gain: NDArray[Any], errors: float) -> bool:
    """Whether the mean of paired differences, (n,), is above 0, and by more than so many of its standard errors."""
    return bool(gain.mean() > errors * gain.std() / np.sqrt(len(gain)))


def validation_parts(dataset: Dataset, origins: Origins | None, seed: int, parts: int) -> list[Part]:
    """Split training data several times into rows to train on, and rows of the data itself to validate on.

    Args:
        dataset: to split.
        origins: of its rows; `None` where all are the data's own. Rows are held back with all that was made of them.
        seed: of the choice.
        parts: how many, where there are rows for so many; no row of the data is held back in two of them.
    """
    own = len(dataset) if origins is None else int(origins.own.sum())
    rows = max(min(round(VALIDATION_SHARE * own), MOST_VALIDATION_ROWS), 1)
    parts = min(parts, own // rows)
    if origins is not None:
        halves = [origins.split(rows, seed, part) for part in range(parts)]
    else:
        order = np.random.default_rng(seed).permutation(own)
        places = [np.arange(part * rows, (part + 1) * rows) for part in range(parts)]
        halves = [(np.delete(order, held_back), order[held_back]) for held_back in places]
    return [(dataset.select(train), dataset.select(validation)) for train, validation in halves]


def student_maker(model: Any, model_init: Callable[..., Any] | None) -> Callable[[], Any]:
    """Return a function that makes untrained students: it copies `model`, or calls `model_init` without a trial."""
    if model_init is None:
        return partial(copy.deepcopy, model)
    return partial(model_init, *[None] * number_of_arguments(model_init))


def fit_student(
    make_trainer: Callable[[LELPConfig, Dataset], Trainer], args: LELPConfig, train: Dataset, validation: Dataset
) -> NDArray[np.floating]:
    """Train a student of a trial; bound to the first argument it is a `Fit`.

    Args:
        make_trainer: makes a student, and its trainer from a trial's settings and rows.
        args: of the trial.
        train: prepared rows to train on.
        validation: n prepared rows to predict.

    Returns:
        Logits of `validation`, (n, C).
    """
    transform = transform_of(validation)
    if isinstance(transform, OnTheFly) and transform.columns and transform.processing_class is not None:
        validation = validation.with_transform(replace(transform, transform=None))  # reads rows as they are stored
    set_seed(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        args.output_dir = scratch
        trainer = make_trainer(args, train)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return np.asarray(trainer.predict(validation).predictions)


def _trial(args: LELPConfig, settings: dict[str, Any]) -> LELPConfig:
    """Copy the settings for a run whose student is thrown away."""
    trial = copy.deepcopy(args)
    for name, value in {**SILENT_RUN, **settings}.items():
        setattr(trial, name, value)
    trial.check_teacher = False  # checked already, on all rows
    return trial


def hash_of(dataset: Dataset) -> str:
    """Hash the rows' classes and the teacher's logits."""
    digest = xxhash.xxh3_128(classes_of(dataset).tobytes())
    digest.update(np.ascontiguousarray(column_values(dataset.with_format("numpy"), LOGITS_COLUMN)).tobytes())
    return digest.hexdigest()


def key_of(trial: LELPConfig, part: int, data: str, student: str, projections: str) -> str:
    """Hash everything that a trial's result depends on, except the student's own weights and its inputs."""
    settings = effective_settings(trial.to_dict())
    kept = {name: value for name, value in settings.items() if what_changes(name) != "nothing"}
    kept.pop("budget", None)  # says how many trials there are, not what one finds
    for name in NEWER:
        if kept.get(name) is None:
            kept.pop(name, None)
    of: list[Any] = [SEARCH_VERSION, kept, data, student, projections if trial.num_subclasses != 1 else ""]
    of += [part] if part else []
    return xxhash.xxh3_128(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """Read the trials in the file, by key. Every process gets what the main one finds."""
    found: list[dict[str, dict[str, Any]]] = [{}]
    if PartialState().is_main_process and file.exists():
        try:
            saved = dict(read_json(file)["trials"])
            measured = ("accuracy", "seconds")
            trials = {key: {**trial, **{name: float(trial[name]) for name in measured}} for key, trial in saved.items()}
            # A trial of before does not say which rows were right, and is trained anew.
            found = [{key: trial for key, trial in trials.items() if RIGHT in trial}]
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            logger.warning(f"{file} cannot be read ({error}); its trials are run again")
    return broadcast_object_list(found)[0]


def summary_of(trial: dict[str, Any]) -> str:
    """Write a trial down in a few words: its form, τ and, where it was measured, its accuracy."""
    name = "plain distillation"
    if trial["num_subclasses"] > 1:
        name = f"LELP with S={trial['num_subclasses']}, β={trial['subclass_temperature']:g}"
        name += f", γ={trial['whitening']:g}" if "whitening" in trial else ""
    measured = f": {trial['accuracy']:.4f}" if "accuracy" in trial else ""
    return f"{name}, τ={trial['temperature']:g}{measured}"
