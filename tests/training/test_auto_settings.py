"""What "auto" tries and what it takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from datasets import Dataset
from searches import AUTO, ROWS, Fit, columns, config, kd, untimed

from hf_lelp import LELPConfig
from hf_lelp.training.auto_settings import SUBCLASS_TEMPERATURE, TEMPERATURES, choose_settings
from hf_lelp.training.trials import MOST_VALIDATION_ROWS


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_temperature_first_then_the_subclasses() -> None:
    args = config()
    fit = Fit(lambda t: {1.0: 5, 2.0: 8, 4.0: 6}[t.temperature] + 2 * (t.num_subclasses > 1) + (t.num_subclasses == 32))
    tried = choose_settings(args, columns(), fit)
    assert fit.tried == [*map(kd, TEMPERATURES), (32, 2.0, 0.5)]
    assert (args.num_subclasses, args.temperature, args.subclass_temperature) == (32, 2.0, 0.5)
    assert not args.auto
    assert [entry["accuracy"] for entry in tried[:-1]] == [0.25, 0.4, 0.3, 0.55]
    assert all(entry["seconds"] > 0 for entry in tried[:-1])
    settings = {"num_subclasses": 32, "temperature": 2.0, "subclass_temperature": 0.5, "whitening": 0.5}
    assert tried[-1] == {**settings, "chosen": True} and args.whitening == 0.5
    assert settings.items() <= tried[-2].items() and sum("chosen" in entry for entry in tried) == 1


def test_settings_of_evaluation_change_no_trial(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"temperature": "auto", "num_subclasses": 1, "max_steps": 10}
    usual, bare = (
        runs.trainer(
            runs.config(tmp_path / str(number), **settings, **more), train_dataset=runs.data(120), compute_metrics=None
        )
        for number, more in enumerate(
            [{}, {"prediction_loss_only": True, "eval_do_concat_batches": False, "batch_eval_metrics": True}]
        )
    )
    assert untimed(usual.auto_trials) == untimed(bare.auto_trials)


def test_what_is_chosen_is_for_one_student(tmp_path: Path) -> None:
    args = runs.config(tmp_path, temperature="auto", num_subclasses=1, max_steps=2)
    for _ in range(2):
        run = runs.trainer(args, train_dataset=runs.data(120))
        assert len(run.auto_trials) == 4 and not run.args.auto
    assert args.temperature == "auto"


def test_the_paper_s_head_is_tried_at_temperature_1() -> None:
    args = config(student_head="subclass")
    fit = Fit(lambda t: {1.0: 5, 2.0: 8, 4.0: 6}[t.temperature] + 5 * (t.num_subclasses > 1))
    choose_settings(args, columns(), fit)
    assert fit.tried == [*map(kd, TEMPERATURES), (32, 1.0, 0.5)]
    assert (args.num_subclasses, args.temperature, args.subclass_temperature) == (32, 1.0, 0.5)
    fit = Fit(lambda t: 5)
    choose_settings(config(student_head="subclass", temperature=2.0), columns(), fit)
    assert fit.tried == [kd(2.0), (32, 2.0, 0.5)]  # asked for
    args, fit = config(student_head="subclass", num_subclasses=8), Fit(lambda t: 5)
    choose_settings(args, columns(), fit)
    assert fit.tried == [] and (args.num_subclasses, args.temperature) == (8, 1.0)


@pytest.mark.parametrize(("directions", "subclasses"), [(40, 32), (20, 20), (2, 2)])
def test_as_many_subclasses_as_there_are_directions(directions: int, subclasses: int) -> None:
    args, fit = config(temperature=1.0), Fit(lambda t: 5)
    choose_settings(args, columns(directions=directions), fit)
    assert args.num_subclasses == subclasses
    assert fit.tried == [kd(1.0), (subclasses, 1.0, SUBCLASS_TEMPERATURE)]


def test_a_single_direction_makes_no_subclasses() -> None:
    args, fit = config(), Fit(lambda t: 5)
    choose_settings(args, columns(directions=1), fit)
    assert args.num_subclasses == 1 and fit.tried == [*map(kd, TEMPERATURES)]


@pytest.mark.parametrize("settings", [{}, {"student_head": "subclass"}, {"alpha": 0.5}])
def test_plain_distillation_is_taken_where_it_has_more_rows_right(settings: dict[str, Any]) -> None:
    def choose(lelp: int) -> tuple[LELPConfig, dict[str, Any]]:
        args = config(temperature=1.0, **settings)
        return args, choose_settings(args, columns(1000), Fit(lambda t: lelp if t.num_subclasses > 1 else 100))[-1]

    assert choose(100)[0].num_subclasses == 32
    args, taken = choose(99)
    assert (args.num_subclasses, args.temperature, args.subclass_temperature) == (1, 1.0, 1.0)
    assert taken == {"num_subclasses": 1, "temperature": 1.0, "subclass_temperature": 1.0, "chosen": True}


@pytest.mark.parametrize("given", [0.0, 0.25])
def test_whitening_is_chosen_with_the_subclasses_where_it_is_not_set(given: float) -> None:
    def chosen(fit: Fit, **settings: Any) -> LELPConfig:
        args = config(temperature=1.0, **settings)
        choose_settings(args, columns(), fit)
        return args

    assert chosen(Fit(lambda t: 15 if t.whitening == 0.5 else 10)).whitening == 0.5
    assert chosen(Fit(lambda t: 15 if t.whitening == given else 0), whitening=given).whitening == given
    assert chosen(Fit(lambda t: 5), num_subclasses=8).whitening is None  # the number was: it is the paper's then
    assert chosen(Fit(lambda t: 20 if t.num_subclasses == 1 else 0)).whitening is None


def test_of_equals_the_first_is_taken_and_lelp_before_plain_distillation() -> None:
    args = config()
    choose_settings(args, columns(), Fit(lambda t: 10))
    assert (args.num_subclasses, args.temperature, args.subclass_temperature) == (32, 1.0, 0.5)


def test_a_student_that_reads_tokens_keeps_plain_distillation_within_the_noise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def chosen(right: Callable[[Any], int]) -> tuple[int, float, list[dict[str, Any]]]:
        args = config()
        # 200 validation rows; a challenger that is right in d more of the same rows has a standard error of about √d.
        tried = choose_settings(args, columns(1000), Fit(right), reads_tokens=True)
        return int(args.num_subclasses), float(args.temperature), tried

    def lelp_by(more: int) -> Callable[[Any], int]:
        return lambda t: 100 + more * (t.num_subclasses > 1)

    assert chosen(lambda t: 100)[:2] == (1, 1.0)
    subclasses, temperature, tried = chosen(lelp_by(3))
    assert (subclasses, temperature) == (1, 1.0)
    assert [trial.get("within_noise") for trial in tried] == [None, None, None, True, None]
    assert "plain distillation, τ=1" in caplog.text and "; ahead within the noise: LELP with S=32" in caplog.text
    assert chosen(lelp_by(6))[:2] == (32, 1.0)
    assert chosen(lambda t: {1.0: 100, 2.0: 103, 4.0: 110}[t.temperature] if t.num_subclasses == 1 else 0)[:2] == (
        1,
        4.0,
    )


def test_the_noise_is_that_of_paired_rows() -> None:
    """Against NumPy: the difference row by row, and its standard error."""
    for more in range(1, 12):
        gain = np.repeat([1.0, 0.0], [more, 200 - more])
        beyond = gain.mean() > 2 * gain.std() / np.sqrt(200)
        args = config(temperature=1.0)
        choose_settings(
            args, columns(1000), Fit(lambda t, more=more: 100 + more * (t.num_subclasses > 1)), reads_tokens=True
        )
        assert (args.num_subclasses == 32) == beyond


def test_a_fixed_number_of_subclasses_is_kept_even_where_plain_distillation_does_better() -> None:
    args = config(num_subclasses=8)
    fit = Fit(lambda t: 20 if t.num_subclasses == 1 else 5)
    choose_settings(args, columns(), fit)
    assert (args.num_subclasses, args.temperature, args.subclass_temperature) == (8, 1.0, SUBCLASS_TEMPERATURE)
    assert fit.tried == [*map(kd, TEMPERATURES)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 3.0, "subclass_temperature": 0.7}, [kd(3.0), (32, 3.0, 0.7)]),
        ({"num_subclasses": 8, "temperature": 3.0}, []),
        ({"num_subclasses": 8, "subclass_temperature": 0.7}, [*map(kd, TEMPERATURES)]),
        ({"num_subclasses": 1, "subclass_temperature": 0.7}, [*map(kd, TEMPERATURES)]),
        ({"num_subclasses": 1, "temperature": 3.0}, []),
    ],
    ids=["S", "β", "τ", "τ of plain distillation", "β of plain distillation"],
)
def test_only_what_is_to_be_chosen_is_tried(given: dict[str, Any], expected: list[Any]) -> None:
    args, fit = config(**given), Fit(lambda t: 5)
    choose_settings(args, columns(), fit)
    assert fit.tried == expected
    kept = {name: value for name, value in given.items() if args.num_subclasses != 1 or name != "subclass_temperature"}
    assert {name: getattr(args, name) for name in kept} == kept
    assert not args.auto


def test_a_fifth_is_held_out_the_same_for_every_trial_and_by_the_seed() -> None:
    def parts(**settings: Any) -> tuple[set[int], set[int]]:
        fit = Fit(lambda t: 5)
        choose_settings(config(**settings), columns(), fit)
        rows = {(tuple(train["row"]), tuple(validation["row"])) for _, train, validation in fit.calls}
        assert len(rows) == 1
        ((train, validation),) = rows
        assert not {*train} & {*validation} and sorted(train + validation) == list(range(ROWS))
        return {*train}, {*validation}

    train, validation = parts()
    assert (len(train), len(validation)) == (80, 20)
    assert parts() == (train, validation) != parts(seed=1)
    few, fit = columns(4), Fit(lambda t: 1)
    choose_settings(config(), few, fit)
    assert len(fit.calls[0][2]) == 1
    many, fit = columns(6 * MOST_VALIDATION_ROWS), Fit(lambda t: 1)
    choose_settings(config(temperature=1.0), many, fit)
    assert len(fit.calls[0][2]) == MOST_VALIDATION_ROWS


def test_rows_without_a_label_count_by_the_teacher_s_class() -> None:
    def accuracy(dataset: Dataset) -> float:
        fit = Fit(lambda t: 1000)  # always as the labels are
        return choose_settings(config(), dataset, fit)[0]["accuracy"], fit  # type: ignore[return-value]

    all_labels, fit = accuracy(columns())  # type: ignore[misc]
    wrong = [row for row in fit.calls[0][2]["row"] if row % 10 == 0]
    assert all_labels == 1 and 0 < len(wrong) < 20
    by_teacher = 1 - len(wrong) / 20
    assert accuracy(columns(labelled=lambda row: False))[0] == by_teacher  # type: ignore[index]
    assert accuracy(columns().remove_columns("labels"))[0] == by_teacher  # type: ignore[index]
    half = accuracy(columns(labelled=lambda row: row != wrong[0]))[0]  # type: ignore[index]
    assert half == 0.95


def test_a_trial_writes_nothing_and_leaves_the_settings_of_the_run_alone() -> None:
    args = config(max_steps=90, eval_strategy="steps", save_strategy="steps", load_best_model_at_end=True, alpha=0.25)
    args.push_to_hub, args.report_to = True, ["tensorboard"]
    before = dict(vars(args))
    fit = Fit(lambda t: 5)
    choose_settings(args, columns(), fit)
    for trial, _, _ in fit.calls:
        assert (trial.save_strategy, trial.eval_strategy, trial.logging_strategy) == ("no", "no", "no")
        assert trial.report_to == [] and not trial.push_to_hub and not trial.load_best_model_at_end
        assert trial.alpha == 0.25 and trial.seed == args.seed
    assert [trial.max_steps for trial, _, _ in fit.calls] == [90] * 4
    changed = {name for name, value in vars(args).items() if value != before[name]}
    assert changed == {*AUTO, "whitening"}
