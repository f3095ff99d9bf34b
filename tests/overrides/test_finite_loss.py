"""A loss that is not finite is told with its step and rows, and on the card; training goes on as in Trainer."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from datasets import Dataset
from transformers import TrainerCallback

BAD_ROW = 37


def rows(bad: float = float("nan")) -> Dataset:
    """Prepared inputs of which one has a value that is not finite."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(48, 3, 8)).astype(np.float32)
    inputs[BAD_ROW, 1, 2] = bad
    return Dataset.from_dict({"inputs_embeds": inputs.tolist(), "labels": [row % 2 for row in range(48)]})


def trainer(folder: Path, **settings: Any) -> runs.LELPTrainer:
    usual: dict[str, Any] = {"alpha": 1.0, "max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 4}
    args = runs.config(folder, **{**usual, **settings})
    return runs.trainer(args, train_dataset=rows(), eval_dataset=rows(0.0), processing_class=None, teacher_model=None)


class Losses(TrainerCallback):
    """Tells at which step the weights are not finite for the first time."""

    def __init__(self) -> None:
        self.broken: int | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.broken is None and not all(torch.isfinite(value).all() for value in model.parameters()):
            self.broken = state.global_step


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 3, "num_train_epochs": 3}])
def test_the_step_and_its_rows_are_named_once(
    settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(tmp_path, **settings)
    seen = Losses()
    run.add_callback(seen)
    run.train()
    assert run.state.global_step == run.state.max_steps  # training went on
    (told,) = [record.message for record in caplog.records if "training loss is not finite" in record.message]
    step, named = re.search(r"at step (\d+), with the rows ([\d, ]+) of train_dataset", told).groups()
    numbers = [int(number) for number in named.split(", ")]
    assert int(step) == seen.broken == run.state.log_history[int(step) - 1]["step"]
    assert BAD_ROW in numbers and len({*numbers}) == 4 * settings.get("gradient_accumulation_steps", 1)
    run.save_model()
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"the loss of its training was NaN or infinite, first at step {step}." in card


def test_the_rows_of_a_resumed_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = trainer(tmp_path, num_train_epochs=1, save_strategy="steps", save_steps=1)
    first.add_callback(runs.StopAt(1))
    first.train()
    caplog.clear()
    run = trainer(tmp_path, num_train_epochs=1)
    run.train(resume_from_checkpoint=True)
    told = [record.message for record in caplog.records if "training loss is not finite" in record.message]
    assert len(told) == 1 and f" {BAD_ROW}" in told[0]


def test_without_the_filter_the_steps_since_the_last_log_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(tmp_path, logging_nan_inf_filter=False, logging_steps=4)
    run.train()
    (told,) = [record.message for record in caplog.records if "training loss is not finite" in record.message]
    first, last = map(int, re.search(r"at step (\d+) or after it, up to (\d+)\.", told).groups())
    assert last == first + 3 and "NaN or infinite" in str(run.student_card().render())


def test_a_best_model_from_before_is_not_blamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    run = trainer(tmp_path, load_best_model_at_end=True, metric_for_best_model="loss", **steps)
    run.train()
    assert any("training loss is not finite" in record.message for record in caplog.records)
    assert all(torch.isfinite(value).all() for value in run.model.parameters())
    assert "NaN or infinite" not in str(run.student_card().render())


def test_finite_losses_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hf_lelp"):
        run = runs.trained(tmp_path)
    assert not [record for record in caplog.records if "not finite" in record.message]
    assert "NaN or infinite" not in str(run.student_card().render())
