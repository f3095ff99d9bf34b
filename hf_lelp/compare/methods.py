"""The methods that can be compared: their names, what each sets, and one student trained by one of them."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, get_args

import numpy as np
import torch
import yaml
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray
from transformers import PrinterCallback, set_seed

from hf_lelp.compare.baselines import clusterings, directions
from hf_lelp.compare.baselines.trainer import Baseline, BaselineConfig, BaselineTrainer
from hf_lelp.compare.task import Task
from hf_lelp.config import AUTO, LELPConfig
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.labels import classes_of
from hf_lelp.data.rows import column_values, with_columns
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.trainer import LELPTrainer

SUBCLASS_DISTILLATION = "subclass_distillation"
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
# Scores of these are taken as they are: the logarithms of the subclasses' probabilities.
_AS_THEY_ARE = {"random_rotation": False, "scale_projections": False, "whitening": 0.0, "subclass_temperature": 1.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "direct": {"alpha": 1.0},
    "kd": {"num_subclasses": 1},
    "lelp": {},
    "lelp_no_null_space": {"null_space": False},
    "lelp_no_rotation": {"random_rotation": False},
    **{name: {} for name in DIRECTIONS},
    **{name: _AS_THEY_ARE for name in (*CLUSTERINGS, "oracle", SUBCLASS_DISTILLATION)},
    **{name: {"baseline": name, "num_subclasses": 1} for name in get_args(Baseline)},
}


@dataclass(frozen=True)
class Method:
    """One way to train a student.

    Attributes:
        name: as it was asked for, like "lelp:temperature=4,num_subclasses=16".
        kind: a key of `SETTINGS`.
        settings: of `LELPConfig` or `BaselineConfig`: those of the kind, and those asked for.
    """

    name: str
    kind: str
    settings: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Read a kind, followed by settings where some are not the task's: `kind` or `kind:setting=value,…`.

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
        """Check the method's own settings, and with a task's those together, before any training.

        Raises:
            ValueError: if a setting is out of its range, or "auto" where it cannot be.
        """
        config = self.config(task)
        if config.num_subclasses == AUTO and self.kind in CLUSTERINGS:
            raise ValueError(f"method {self.name!r}: num_subclasses must be a number, only LELP's can be chosen.")
        if config.auto and self.kind == SUBCLASS_DISTILLATION:
            raise ValueError(f"method {self.name!r}: its teacher has the subclasses, for one temperature; set numbers.")

    def config(self, task: Task | None, **settings: Any) -> LELPConfig:
        """The configuration of a run on the task; `settings` go before all others.

        Raises:
            TypeError: if a setting's name is unknown.
            ValueError: if a setting is out of its range.
        """
        together = {"output_dir": "unused", **(task.settings if task else {}), **self.settings, **settings}
        return BaselineConfig(**together) if "baseline" in together else LELPConfig(**together)


def _value(text: str) -> Any:
    """As YAML has it, and 1e-3 as a number too."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def train_student(
    task: Task, method: Method, config: LELPConfig, trainer_class: type[LELPTrainer] = LELPTrainer
) -> LELPTrainer:
    """Train a fresh student of the task by the method: `build_trainer`, after training."""
    trainer = build_trainer(task, method, config, trainer_class)
    trainer.train()
    return trainer


def build_trainer(
    task: Task, method: Method, config: LELPConfig, trainer_class: type[LELPTrainer] = LELPTrainer
) -> LELPTrainer:
    """A trainer of a fresh student of the task by the method.

    Args:
        task: with the teacher's columns.
        method: how.
        config: of `method.config`; what is "auto" is settled in the trainer's own copy of it.
        trainer_class: of all methods but the baselines, which have their own.

    Raises:
        ValueError: if the task lacks what the method needs; see also `LELPTrainer`.
    """
    train, projections = task.train, None
    if config.alpha < 1 and config.num_subclasses != 1:
        train, projections = _with_subclasses(task, method, config)
    set_seed(config.seed)
    kind: Any = BaselineTrainer if isinstance(config, BaselineConfig) else trainer_class
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
    """The training data ready for the method's subclasses: with scores of its own, or projections to fit."""
    seed = config.seed_of_rotations
    weight = task.head.weight if config.null_space else None
    columns, classes = task.train.with_format("numpy"), classes_of(task.train)
    if method.kind == "oracle":
        if task.fine_column is None:
            raise ValueError("The oracle needs the true subclasses: name their column (fine_column).")
        fine = np.asarray(column_values(columns, task.fine_column))
        return _with_scores(task.train, clusterings.oracle(fine, classes, len(task.head.weight)), config)
    if method.kind == SUBCLASS_DISTILLATION:
        return _with_retrained_teacher(task.train, config)
    embedding = np.asarray(column_values(columns, EMBEDDING_COLUMN))
    if method.kind in CLUSTERINGS:
        logits = np.asarray(column_values(columns, LOGITS_COLUMN))
        scores = CLUSTERINGS[method.kind](
            embedding, logits, classes, num_subclasses=int(config.num_subclasses), seed=seed, weight=weight
        )
        return _with_scores(task.train, scores, config)
    fitted = ClassProjections.fit(
        task.train, task.head, config.directions, at_least=config.fewest_directions, null_space=config.null_space
    )
    if method.kind in DIRECTIONS:
        fitted = DIRECTIONS[method.kind](fitted, embedding, classes, seed=seed, weight=weight)
    return task.train, fitted


def _with_retrained_teacher(train: Dataset, config: LELPConfig) -> tuple[Dataset, None]:
    """The training data with the logits and the subclasses of a teacher that was retrained to have them."""
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
