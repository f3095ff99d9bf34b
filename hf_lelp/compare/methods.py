"""Defines the methods that can be compared, by name and settings, and trains a student by one of them."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
import yaml
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray
from transformers import PrinterCallback, set_seed

from hf_lelp.compare.baselines import clusterings, directions
from hf_lelp.compare.baselines.trainer import LELP_CRD, ON_EMBEDDINGS, Baseline, BaselineConfig, BaselineTrainer
from hf_lelp.compare.task import Task
from hf_lelp.config import AUTO, LELPConfig
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.labels import NO_LABEL, classes_of
from hf_lelp.data.rows import column_values, with_columns
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.trainer import LELPTrainer
from hf_lelp.training.auto_settings import best_settings
from hf_lelp.training.sampled_fit import fitted_rows
from hf_lelp.transfer.origins import Origins

BEST = "best"
ORACLE, SUBCLASS_DISTILLATION = "oracle", "subclass_distillation"
SUBCLASS_LOGITS_COLUMN = "retrained_teacher_logits"
CLUSTERINGS = {
    "kmeans": clusterings.kmeans,
    "agglomerative": clusterings.agglomerative,
    "tsne_kmeans": clusterings.tsne_kmeans,
    "random_partition": clusterings.random_partition,
}
DIRECTIONS = {
    "random_directions": directions.random_directions,
    "shared_directions": directions.shared_directions,
}
# These methods' scores are log-probabilities of the subclasses, to be used without rotation, scale or temperature.
_AS_THEY_ARE = {"random_rotation": False, "scale_projections": False, "whitening": 0.0, "subclass_temperature": 1.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "direct": {"alpha": 1.0},
    "kd": {"num_subclasses": 1},
    "lelp": {},
    BEST: dict.fromkeys(("num_subclasses", "temperature", "subclass_temperature"), AUTO),
    "lelp_no_null_space": {"null_space": False},
    "lelp_no_rotation": {"random_rotation": False},
    **{name: {} for name in DIRECTIONS},
    **{name: _AS_THEY_ARE for name in (*CLUSTERINGS, ORACLE, SUBCLASS_DISTILLATION)},
    **{name: {"baseline": name, "num_subclasses": 1} for name in get_args(Baseline)},
    LELP_CRD: {"baseline": LELP_CRD, "student_head": "auxiliary"},
}


@dataclass(frozen=True)
class Method:
    """One way to train a student.

    Attributes:
        name: as the user wrote it, like "lelp:temperature=4,num_subclasses=16".
        kind: a key of `SETTINGS`.
        settings: of `LELPConfig` or `BaselineConfig`: those of the kind, and the user's.
    """

    name: str
    kind: str
    settings: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Parse `kind` or `kind:setting=value,…`; the settings override the task's.

        Raises:
            ValueError: if there is no such kind or setting, or a setting has no value.
        """
        kind, _, rest = text.partition(":")
        pairs = [pair.partition("=") for pair in rest.split(",") if pair]
        if kind not in SETTINGS or any(not equals for _, equals, _ in pairs):
            raise ValueError(
                f"method {text!r}: one of {', '.join(SETTINGS)}, with settings as in"
                " lelp:num_subclasses=4,temperature=2."
            )
        given = {name.strip(): _value(value) for name, _, value in pairs}
        known = {field.name for field in fields(BaselineConfig if "baseline" in SETTINGS[kind] else LELPConfig)}
        for name in given.keys() - known:
            near = get_close_matches(name, known, n=1)
            raise ValueError(f"method {text!r}: no setting {name}{f'; did you mean {near[0]}?' if near else ''}.")
        return cls(text, kind, {**SETTINGS[kind], **given})

    def check(self, task: Task | None = None) -> None:
        """Check the method's settings, together with the task's if there is one, before any training.

        Raises:
            ValueError: if a setting is out of its range, or is "auto" and must be a number, or labels are missing.
        """
        config = self.config(task)
        if task is not None and config.alpha == 1 and "labels" not in task.train.column_names:
            raise ValueError(f"method {self.name!r} learns from labels alone, and the training data has none. Drop it.")
        if config.num_subclasses == AUTO and self.kind in CLUSTERINGS:
            raise ValueError(f"method {self.name!r}: num_subclasses must be a number, only LELP's can be chosen.")
        if config.auto and self.kind == SUBCLASS_DISTILLATION:
            raise ValueError(f"method {self.name!r}: its teacher has the subclasses, for one temperature; set numbers.")

    def reads_embeddings(self, settings: dict[str, Any]) -> bool:
        """Whether the method needs the teacher's embeddings, with settings of training for all methods."""
        config = self.config(None, **{**settings, **self.settings})
        if self.kind in (*CLUSTERINGS, *DIRECTIONS, *ON_EMBEDDINGS):
            return True
        return self.kind not in (ORACLE, SUBCLASS_DISTILLATION) and config.alpha < 1 and config.num_subclasses != 1

    def check_without_embeddings(self, kept: LELPConfig, settings: dict[str, Any]) -> None:
        """Refuse a method that reads embeddings, where a fit on a sample keeps projections alone.

        Args:
            kept: settings of the fit that made them.
            settings: of training, for all methods.

        Raises:
            ValueError: naming the method, and what it needs.
        """
        config = self.config(None, **{**settings, **self.settings})
        needs = ""
        if self.kind in (*CLUSTERINGS, *DIRECTIONS, *ON_EMBEDDINGS):
            needs = self.kind
        elif self.kind not in (ORACLE, SUBCLASS_DISTILLATION) and config.alpha < 1 and config.num_subclasses != 1:
            wanted = {"num_directions": config.directions > kept.directions}
            wanted |= {name: getattr(config, name) != getattr(kept, name) for name in ("null_space", "fit_rows")}
            needs = ", ".join(name for name, differs in wanted.items() if differs)
        if needs:
            raise ValueError(
                f"method {self.name!r}: {needs} needs embeddings, and fit_rows={kept.fit_rows} keeps none, but"
                f" projections on {kept.directions} directions with null_space={kept.null_space}. Drop the method, or"
                " leave fit_rows out."
            )

    def config(self, task: Task | None, **settings: Any) -> LELPConfig:
        """Make the configuration of a run on the task; `settings` override all others.

        Raises:
            TypeError: if a setting's name is unknown.
            ValueError: if a setting is out of its range.
        """
        own = self.settings
        if self.kind == BEST and task is not None:
            own = {**best_settings(task.reads_tokens), **own}
        together = {"output_dir": "unused", **(task.settings if task else {}), **own, **settings}
        if self.kind == LELP_CRD:  # a baseline has one subclass by default
            together.setdefault("num_subclasses", LELPConfig.num_subclasses)
        return BaselineConfig(**together) if "baseline" in together else LELPConfig(**together)


def _value(text: str) -> Any:
    """Read a value as YAML does, and 1e-3 as a number too."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def train_student(
    task: Task, method: Method, config: LELPConfig, trainer_class: type[LELPTrainer] = LELPTrainer
) -> LELPTrainer:
    """Train a fresh student of the task by the method; return the trainer of `build_trainer`."""
    trainer = build_trainer(task, method, config, trainer_class)
    trainer.train()
    return trainer


def rows_of_method(train: Dataset, config: LELPConfig) -> Dataset:
    """Return the rows that a method learns from: for labels alone the data's own, and what was made with a label."""
    origins = Origins.taken_from(train)[1] if config.alpha == 1 else None
    if origins is None:
        return train
    labels = np.asarray(column_values(train.with_format("numpy"), "labels"))
    told = origins.own | (labels != NO_LABEL)
    return train if told.all() else train.select(np.flatnonzero(told))


def build_trainer(
    task: Task, method: Method, config: LELPConfig, trainer_class: type[LELPTrainer] = LELPTrainer
) -> LELPTrainer:
    """Build a trainer of a fresh student of the task by the method.

    Args:
        task: with the teacher's columns.
        method: to train by.
        config: of `method.config`; the trainer's own copy of it gets numbers in place of "auto".
        trainer_class: of all methods but the baselines, which have their own.

    Raises:
        ValueError: if the task lacks what the method needs; see also `LELPTrainer`.
    """
    train, projections = rows_of_method(task.train, config), None
    if config.alpha < 1 and config.num_subclasses != 1:
        train, projections = _with_subclasses(task, method, config)
    set_seed(config.seed)
    is_baseline = isinstance(config, BaselineConfig)
    kind: Any = partial(BaselineTrainer, head=task.head) if is_baseline else trainer_class
    trainer: LELPTrainer = kind(
        model=task.student(),
        args=config,
        train_dataset=train,
        processing_class=task.processing_class,
        projections=projections,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _with_subclasses(task: Task, method: Method, config: LELPConfig) -> tuple[Dataset, ClassProjections | None]:
    """Prepare the training data for the method's subclasses: add the method's scores, or fit projections."""
    seed = config.seed_of_rotations
    weight = task.head.weight if config.null_space else None
    columns, classes = task.train.with_format("numpy"), classes_of(task.train)
    if method.kind == ORACLE:
        if task.fine_column is None:
            raise ValueError("The oracle needs the true subclasses: name their column (fine_column).")
        fine = np.asarray(column_values(columns, task.fine_column))
        return _with_scores(task.train, clusterings.oracle(fine, classes, len(task.head.weight)), config)
    if method.kind == SUBCLASS_DISTILLATION:
        return _with_retrained_teacher(task.train, config)
    if task.projections is not None:
        return task.train, task.projections
    embedding = np.asarray(column_values(columns, EMBEDDING_COLUMN))
    if method.kind in CLUSTERINGS:
        logits = np.asarray(column_values(columns, LOGITS_COLUMN))
        scores = CLUSTERINGS[method.kind](
            embedding, logits, classes, num_subclasses=int(config.num_subclasses), seed=seed, weight=weight
        )
        return _with_scores(task.train, scores, config)
    sample = fitted_rows(len(task.train), config.fit_rows)
    rows = task.train if sample is None else task.train.select(sample)
    fitted = ClassProjections.fit(
        rows, task.head, config.directions, at_least=config.fewest_directions, null_space=config.null_space
    )
    if method.kind in DIRECTIONS:
        fitted = DIRECTIONS[method.kind](fitted, embedding, classes, seed=seed, weight=weight)
    return task.train, fitted


def _with_retrained_teacher(train: Dataset, config: LELPConfig) -> tuple[Dataset, None]:
    """Give the training data the logits and the subclasses of a teacher that was retrained to have them."""
    if SUBCLASS_LOGITS_COLUMN not in train.column_names:
        raise ValueError(
            f"Subclass Distillation needs a teacher retrained with subclasses of its own: their logits, (C, S), as the"
            f" column {SUBCLASS_LOGITS_COLUMN} (see hf_lelp.compare.baselines.clusterings.subclass_auxiliary_loss). The"
            f" training data has {', '.join(train.column_names)}."
        )
    outputs = torch.as_tensor(np.asarray(column_values(train.with_format("numpy"), SUBCLASS_LOGITS_COLUMN)))
    logits, scores = clusterings.teacher_subclasses(outputs, float(config.temperature))
    features = Features({LOGITS_COLUMN: List(Value("float32"), length=logits.shape[-1])})
    columns = Dataset.from_dict({LOGITS_COLUMN: logits.numpy()}, features=features)
    return _with_scores(with_columns(train.remove_columns(SUBCLASS_LOGITS_COLUMN), columns), scores.numpy(), config)


def _with_scores(train: Dataset, scores: NDArray[np.float32], config: LELPConfig) -> tuple[Dataset, None]:
    _, num_classes, num_subclasses = scores.shape
    config.num_subclasses = num_subclasses
    features = Features({PROJECTIONS_COLUMN: List(List(Value("float32"), length=num_subclasses), length=num_classes)})
    return with_columns(train, Dataset.from_dict({PROJECTIONS_COLUMN: scores}, features=features)), None
