"""What trainers that the library makes itself do with the settings that were meant for the user's own."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import runs
from transformers import TrainingArguments

from hf_lelp.config import PASSED_ON, REFUSED_IN_OWN_RUNS, SILENT_RUN


def test_every_setting_of_transformers_is_decided_about_once() -> None:
    decided = [*PASSED_ON, *SILENT_RUN, *REFUSED_IN_OWN_RUNS]
    assert len(decided) == len({*decided})
    assert {field.name for field in dataclasses.fields(TrainingArguments)} - {*decided} == set()


SETTINGS: dict[str, Any] = {"temperature": "auto", "num_subclasses": 1, "max_steps": 2, "per_device_eval_batch_size": 7}


@pytest.mark.parametrize(
    "more",
    [{"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 2}, {"dataloader_drop_last": True}],
    ids=["eval_on_start", "dataloader_drop_last"],
)
def test_trials_are_whole_whatever_the_user_s_evaluations_are(more: dict[str, Any], tmp_path: Path) -> None:
    data = runs.data(120)
    run = runs.trainer(runs.config(tmp_path, **SETTINGS, **more), train_dataset=data, eval_dataset=data)
    assert len(run.auto_trials) == 4
    run.train()


def test_a_learning_rate_that_follows_evaluations_is_refused_before_the_teacher_runs(tmp_path: Path) -> None:
    given = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}
    guide = runs.teacher_model()
    words = "lr_scheduler_type='reduce_lr_on_plateau' follows evaluations during training.*numbers in place"
    with runs.rows_seen(guide) as seen, pytest.raises(ValueError, match=words):
        runs.trainer(runs.config(tmp_path, **SETTINGS, **given), teacher_model=guide, eval_dataset=runs.data())
    assert not seen
    run = runs.trainer(runs.config(tmp_path, **given), eval_dataset=runs.data())  # one that is evaluated
    run.train()


def test_no_row_of_an_evaluation_is_dropped(tmp_path: Path) -> None:
    data = runs.data()
    run = runs.trainer(
        runs.config(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=20, per_device_eval_batch_size=20),
        eval_dataset=data,
    )
    assert len(run.get_train_dataloader()) == 4 and len(run.get_eval_dataloader()) == 5
    assert len(run.predict(data).predictions) == len(data) == 96
    assert run.args.dataloader_drop_last


def test_a_subclass_with_arguments_of_its_own_makes_its_trials(tmp_path: Path) -> None:
    class Weighted(runs.LELPTrainer):
        def __init__(self, class_weights: list[float], *args: Any, **kwargs: Any) -> None:
            self.class_weights = class_weights
            super().__init__(*args, **kwargs)

        def distillation_losses(self, *args: Any) -> Any:
            return super().distillation_losses(*args) * self.class_weights[0]

    run = Weighted(
        [2.0],
        runs.student(),
        runs.config(tmp_path, **SETTINGS),
        train_dataset=runs.data(120),
        processing_class=runs.tiny.tokenizer(),
        teacher_model=runs.teacher(),
    )
    assert len(run.auto_trials) == 4
    run.train()
