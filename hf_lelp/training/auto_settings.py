"""Chooses τ, S and β on a validation part of the training data, from the teacher's columns that are there already.

1. Train plain distillation at each temperature τ, and keep the best τ.
2. Train LELP at that τ; the paper's head takes τ = 1, because it learns badly at others. S is 32, or as many as the
   projections have directions, and β and γ are 0.5, each where it is not set. LELP is taken unless plain distillation
   has more rows right.

A student that reads tokens starts from plain distillation at τ = 1 instead, for such students gain nothing from LELP in
the mean. Another τ, or LELP, is taken only if the validation rows show it: where, row by row, it is ahead by more than
two standard errors. A difference below that is said to be within the noise, and changes nothing.

Every trial trains in full on the other part: after shorter trainings the accuracies differ by other amounts
(docs/evidence.md, which also says why S, β and γ are not searched for). The teacher is not run, and the test data is
not touched. The cost is that of about three trainings.

Each trial is kept in `auto.json` in the run's folder as soon as it is done. A run that starts again there, for instance
to resume, does not repeat it. Other forms of LELP in the same folder share the trials of plain distillation.
"""

import copy
import json
import logging
import tempfile
import time
from collections.abc import Callable
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

from hf_lelp.config import AUTO, MOST_SUBCLASSES, SILENT_RUN, LELPConfig, effective_settings, what_changes
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.labels import classes_of
from hf_lelp.data.rows import column_values, transform_of
from hf_lelp.storage.files import read_json, write_json
from hf_lelp.training.student_inputs import OnTheFly
from hf_lelp.transfer.origins import ROW, Origins

logger = logging.getLogger(__name__)

TEMPERATURES = (1.0, 2.0, 4.0)
SUBCLASS_TEMPERATURE, WHITENING = 0.5, 0.5
ERRORS = 2.0  # standard errors of a paired difference, beyond which it is more than noise
VALIDATION_SHARE = 0.2
MOST_VALIDATION_ROWS = 5000
SEARCH_VERSION = 5  # raise it whenever the search changes: earlier trials and runs are then not read

TRIALS_NAME = "auto.json"
RIGHT = "right"  # in a trial: which validation rows were, as bits
# Takes settings, rows to train on and rows to predict; returns the logits of the latter, (n, C).
Fit = Callable[[LELPConfig, Dataset, Dataset], NDArray[np.floating]]


def choose_settings(
    args: LELPConfig,
    dataset: Any,
    fit: Fit,
    student: str = "",
    projections: str = "",
    origins: Origins | None = None,
    reads_tokens: bool = False,
) -> list[dict[str, Any]]:
    """Choose what is "auto" in `args`, and set it there.

    Args:
        args: changed in place; the trials are kept in its `output_dir`.
        dataset: training data with the teacher's columns and, where there are any, labels.
        fit: trains a student and gives its logits.
        student: identifies the student: trials of another one are not used for it.
        projections: fingerprint of the projections that made the dataset's column.
        origins: of the rows; `None` where all are the data's own. Rows are held back with all that was made of them.
        reads_tokens: whether the student does; it starts from plain distillation then.

    Returns:
        The trials, in order: settings, validation accuracy and the seconds that it took. The accuracy is against the
        labels, or the teacher's class where a row has none. "within_noise" marks a trial that was ahead of another, but
        not by enough. The last one, with `"chosen": True`, was taken. Empty with `alpha` 1, which has no use for these
        settings.

    Raises:
        ValueError: if the data is no `datasets.Dataset`, so that no part can be held back.
    """
    if args.alpha == 1:
        args.num_subclasses, args.temperature, args.subclass_temperature = 1, 1.0, 1.0
        return []
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f'Settings that are "auto" are chosen on a part of the training data, which is a {type(dataset).__name__}'
            " and not a datasets.Dataset. Set numbers instead."
        )
    train, validation = _split(dataset, origins, args.seed)
    key = partial(_key, data=_hash_of(dataset), student=student, projections=projections)
    trials = _Trials(args, fit, train, validation, key, reads_tokens)
    fall_back = args.num_subclasses == AUTO
    temperatures = TEMPERATURES if args.temperature == AUTO else (float(args.temperature),)
    at_1 = args.student_head == "subclass" and args.temperature == AUTO
    if at_1 and not fall_back and args.num_subclasses != 1:
        temperatures = (1.0,)  # plain distillation will not be taken
    candidates = [
        {"num_subclasses": 1, "temperature": temperature, "subclass_temperature": 1.0} for temperature in temperatures
    ]
    chosen = candidates[0]
    for candidate in candidates[1:]:
        chosen = candidate if trials.ahead(candidate, chosen) else chosen
    subclasses = min(_directions(dataset), MOST_SUBCLASSES) if fall_back else int(args.num_subclasses)
    if subclasses > 1:
        beta = SUBCLASS_TEMPERATURE if args.subclass_temperature == AUTO else float(args.subclass_temperature)
        lelp = {**chosen, "num_subclasses": subclasses, "subclass_temperature": beta}
        if at_1:
            lelp["temperature"] = 1.0
        if fall_back and args.whitening is None:
            lelp["whitening"] = WHITENING
        if fall_back:
            trials.run(chosen)
        # Of equals, and within the noise, what such students start from is kept.
        if not fall_back or (trials.ahead(lelp, chosen) if reads_tokens else not trials.ahead(chosen, lelp)):
            chosen = lelp
    for name, value in chosen.items():
        setattr(args, name, value)
    tried = [*trials.tried.values(), {**chosen, "chosen": True}]
    if len(tried) > 1:
        # Not a problem, but a warning shows what "auto" chose even where logging is not set up.
        near = [_summary(trial) for trial in tried if trial.get("within_noise")]
        more = f"; ahead within the noise: {', '.join(near)}" if near else ""
        logger.warning(f"auto: {_summary(tried[-1])} was chosen on {len(trials.truth):,} validation rows{more}")
    return tried


@dataclass
class _Trials:
    """Trials of one search: each is trained once, kept in the run's folder, and found there again.

    Attributes:
        args: settings of the run.
        fit: trains a student and gives its logits.
        train: rows to train on.
        validation: rows to judge by, n of them.
        key: identifies a trial by its settings.
        reads_tokens: whether to ask for a difference beyond the noise.
        tried: so far, by key, in order.
    """

    args: LELPConfig
    fit: Fit
    train: Dataset
    validation: Dataset
    key: Callable[[LELPConfig], str]
    reads_tokens: bool
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.truth = classes_of(self.validation)
        self._file = Path(self.args.output_dir or ".") / TRIALS_NAME
        self._known = _read(self._file)

    def ahead(self, challenger: dict[str, Any], other: dict[str, Any]) -> bool:
        """Whether a trial has more rows right; where the student reads tokens, beyond the noise."""
        before, key = self.run(other), self.run(challenger)
        gain = self._right(key).astype(int) - self._right(before)
        if not self.reads_tokens or gain.sum() <= 0:
            return bool(gain.sum() > 0)
        beyond = bool(gain.mean() > ERRORS * gain.std() / np.sqrt(len(gain)))
        if not beyond:
            self.tried[key]["within_noise"] = True
        return beyond

    def run(self, settings: dict[str, Any]) -> str:
        """Train with these settings unless it was done before, and return the trial's key."""
        trial = _trial(self.args, settings)
        # All processes take the main one's key: `local_rank` is one of the settings.
        key: str = broadcast_object_list([self.key(trial)])[0]
        if key not in self._known:
            start = time.perf_counter()
            logits = self.fit(trial, self.train, self.validation)
            seconds = time.perf_counter() - start
            right = logits.argmax(-1) == self.truth
            measured = {"accuracy": float(right.mean()), "seconds": seconds}
            self._known[key] = {**settings, **measured, RIGHT: np.packbits(right).tobytes().hex()}
            if PartialState().is_main_process:
                write_json(self._file, {"trials": self._known})
        if key not in self.tried:
            found = {**self._known[key], **settings}  # a trial from the file may name fewer settings
            self.tried[key] = {name: value for name, value in found.items() if name != RIGHT}
            logger.info(f"auto: {_summary(self.tried[key])}")
        return key

    def _right(self, key: str) -> NDArray[np.bool_]:
        """Which validation rows a trial had right, (n,)."""
        bits = np.frombuffer(bytes.fromhex(self._known[key][RIGHT]), dtype=np.uint8)
        return np.unpackbits(bits, count=len(self.truth)).astype(bool)


def _split(dataset: Dataset, origins: Origins | None, seed: int) -> tuple[Dataset, Dataset]:
    """Split training data into rows to train on, and rows of the data itself to validate on."""
    own = len(dataset) if origins is None else int((origins.kinds == ROW).sum())
    rows = max(min(round(VALIDATION_SHARE * own), MOST_VALIDATION_ROWS), 1)
    if origins is None:
        parts = dataset.train_test_split(test_size=rows, seed=seed)
        return parts["train"], parts["test"]
    train, validation = origins.split(rows, seed)
    return dataset.select(train), dataset.select(validation)


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


def _directions(dataset: Dataset) -> int:
    """K, the number of directions in the column of projections."""
    row = dataset.with_format(None).select_columns([PROJECTIONS_COLUMN])[0]
    return len(row[PROJECTIONS_COLUMN][0])


def _hash_of(dataset: Dataset) -> str:
    """Hash the rows' classes and the teacher's logits."""
    digest = xxhash.xxh3_128(classes_of(dataset).tobytes())
    digest.update(np.ascontiguousarray(column_values(dataset.with_format("numpy"), LOGITS_COLUMN)).tobytes())
    return digest.hexdigest()


def _key(trial: LELPConfig, data: str, student: str, projections: str) -> str:
    """Hash everything that a trial's result depends on, except the student's own weights and its inputs."""
    settings = effective_settings(trial.to_dict())
    kept = {name: value for name, value in settings.items() if what_changes(name) != "nothing"}
    for name in ("fit_rows", "class_weights"):  # trials of versions that had no such setting are found
        if kept.get(name) is None:
            kept.pop(name, None)
    of = [SEARCH_VERSION, kept, data, student, projections if trial.num_subclasses != 1 else ""]
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


def _summary(trial: dict[str, Any]) -> str:
    name = "plain distillation"
    if trial["num_subclasses"] > 1:
        name = f"LELP with S={trial['num_subclasses']}, β={trial['subclass_temperature']:g}"
        name += f", γ={trial['whitening']:g}" if "whitening" in trial else ""
    measured = f": {trial['accuracy']:.4f}" if "accuracy" in trial else ""
    return f"{name}, τ={trial['temperature']:g}{measured}"
