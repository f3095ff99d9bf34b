"""What tests of the search need: settings, the teacher's columns, and trials of which it is known how they end."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from datasets import Dataset

from hf_lelp import LELPConfig
from hf_lelp.config import MOST_SUBCLASSES

AUTO = {"num_subclasses": "auto", "temperature": "auto", "subclass_temperature": "auto"}
ROWS = 100
FOLDERS = (f"out {number}" for number in count())


def config(**settings: Any) -> LELPConfig:
    """Each in a folder of its own, or one would find another's trials."""
    given = {"student_head": "auxiliary", **AUTO, **settings}
    return LELPConfig(**{"output_dir": next(FOLDERS), "report_to": "none", "use_cpu": True, **given})


def columns(
    rows: int = ROWS, labelled: Callable[[int], bool] = lambda row: True, directions: int = MOST_SUBCLASSES
) -> Dataset:
    """The teacher errs on every tenth row; `row` tells which one it is."""
    labels = [row % 2 for row in range(rows)]
    classes = [label if row % 10 else 1 - label for row, label in enumerate(labels)]
    return Dataset.from_dict(
        {
            "row": list(range(rows)),
            "labels": [label if labelled(row) else -100 for row, label in enumerate(labels)],
            "teacher_logits": [[float(c == 0), float(c == 1)] for c in classes],
            "teacher_projections": np.zeros((rows, 2, directions), dtype=np.float32),
        }
    )


class Fit:
    """In place of a training: answers as many validation rows rightly as `right` says of the settings, of the first."""

    def __init__(self, right: Callable[[Any], int]) -> None:
        self.right, self.calls = right, []  # type: ignore[var-annotated]

    def __call__(self, trial: LELPConfig, train: Dataset, validation: Dataset) -> np.ndarray:
        self.calls.append((trial, train, validation))
        truth = np.array([row % 2 for row in validation["row"]])
        answers = np.where(np.arange(len(truth)) < self.right(trial), truth, 1 - truth)
        return np.eye(2)[answers]

    @property
    def tried(self) -> list[tuple[Any, Any, Any]]:
        assert {trial.num_train_epochs for trial, _, _ in self.calls} <= {3.0}
        return [(t.num_subclasses, t.temperature, t.subclass_temperature) for t, _, _ in self.calls]


def kd(temperature: float) -> tuple[Any, ...]:
    return 1, temperature, 1.0


def untimed(tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in tried]
