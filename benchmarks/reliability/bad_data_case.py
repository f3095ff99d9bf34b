"""A dataset with what must come of it, and whether LELPTrainer does that; what every kind of dataset is drawn from."""

import math
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import runs
from datasets import Dataset
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from hf_lelp import LELPTrainer, Teacher
from hf_lelp.cli.options import is_library_error

ROWS = 32
SIZE = 16  # of the teacher's embedding
SURE = 8  # first rows that no strategy touches: four of each class
ONE_ROW = st.integers(0, ROWS - 1)
CORRECT, REFUSED = "correct", "refused"


@dataclass(frozen=True)
class Case:
    """A dataset and what must come of it.

    Attributes:
        name: of the kind of data, for the counts.
        dataset: to train on.
        labels: encoded, that a correct run learns on (−100 is none); `None` where the run must be refused.
        words: that the message of a refusal has.
        either: a refusal with these words would be right too.
        options: of `LELPConfig`.
        arguments: of `LELPTrainer`.
    """

    name: str
    dataset: Dataset
    labels: list[int] | None = None
    words: str = ""
    either: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)


def outcome(case: Case) -> str:
    """Run the case; "correct" or "refused".

    Raises:
        AssertionError: if it is neither, or not what the case says.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {"max_steps": 1, "check_teacher": False, "logging_strategy": "no"} | case.options
        defaults: dict[str, Any] = {"teacher_model": teacher(), "teacher_processing_class": None}
        arguments = defaults | {"train_dataset": case.dataset} | case.arguments
        try:
            run = runs.trainer(runs.config(Path(folder), **options), **arguments)
        except Exception as error:
            assert is_our_own(error), f"{case.name}: {type(error).__name__}: {error}"
            assert case.labels is None or case.either, f"{case.name}: refused good data: {error}"
            assert case.words in str(error), f"{case.name}: {case.words!r} is missing in: {error}"
            return REFUSED
        assert case.labels is not None, f"{case.name}: bad data was taken"
        check(run, case)
        return CORRECT


def is_our_own(error: BaseException) -> bool:
    """Whether it is a ValueError or FileNotFoundError of a `raise` in hf_lelp, and says something."""
    return isinstance(error, ValueError | FileNotFoundError) and is_library_error(error) and bool(str(error))


def check(run: LELPTrainer, case: Case) -> None:
    data, labels = run.train_dataset, case.labels
    assert isinstance(data, Dataset)
    assert len(data) == len(case.dataset), "rows were lost"
    if labels is not None and any(label != -100 for label in labels):
        found = list(data.with_format(None)["labels"])  # a row's inputs, made when it is read, need its other columns
        assert found == labels, f"{case.name}: other labels: {found}"
    columns = data.with_format("numpy")
    for name in ("teacher_logits", "teacher_projections"):
        if name in data.column_names:
            assert np.isfinite(columns[:][name]).all(), f"{case.name}: {name} is not finite"
    result = run.train()
    assert result.global_step == 1 and math.isfinite(result.training_loss), f"{case.name}: {result.training_loss}"
    predictions = np.asarray(run.predict(case.dataset).predictions)
    assert predictions.shape == (len(case.dataset), 2) and np.isfinite(predictions).all(), case.name


@cache
def teacher() -> Teacher:
    return runs.teacher()


@st.composite
def classes(draw: DrawFn) -> list[int]:
    """A class per row, both often enough for two subclasses."""
    rest = draw(st.lists(st.integers(0, 1), min_size=ROWS - SURE, max_size=ROWS - SURE))
    return [row % 2 for row in range(SURE)] + rest
