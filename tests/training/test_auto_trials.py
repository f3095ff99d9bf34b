"""Trials of a search are kept, and taken again for what they are the result of, and for nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from searches import Fit, columns, config, untimed

from hf_lelp import LELPConfig
from hf_lelp.training.auto_settings import choose_settings


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trials_of(args: LELPConfig, dataset: Dataset | None = None, student: str = "") -> tuple[int, list[dict[str, Any]]]:
    """How many trials were trained, and what came out."""
    fit = Fit(lambda t: 5 + (t.num_subclasses == 32))
    tried = choose_settings(args, columns() if dataset is None else dataset, fit, student)
    return len(fit.calls), tried


def test_a_run_that_is_started_again_in_its_folder_tries_nothing_again() -> None:
    trained, tried = trials_of(config(output_dir="a"))
    again = config(output_dir="a", resume_from_checkpoint="somewhere", save_steps=7, logging_steps=3)
    assert (trained, trials_of(again)) == (4, (0, tried))
    assert (again.num_subclasses, again.temperature, again.subclass_temperature) == (32, 1.0, 0.5)


def test_a_search_that_was_cut_off_goes_on_where_it_stopped() -> None:
    class Cut(Exception):
        pass

    def fit(trial: LELPConfig, train: Dataset, validation: Dataset) -> np.ndarray:
        calls.append(trial)
        if len(calls) == 3:
            raise Cut
        return whole(trial, train, validation)

    calls: list[LELPConfig] = []
    whole = Fit(lambda t: 5)
    with pytest.raises(Cut):
        choose_settings(config(output_dir="a"), columns(), fit)
    assert len(json.loads(Path("a/auto.json").read_text())["trials"]) == 2
    resumed = choose_settings(config(output_dir="a"), columns(), fit)
    assert untimed(resumed) == untimed(choose_settings(config(), columns(), whole))
    assert len(calls) == 3 + 2  # of four two were kept


def test_trials_of_other_data_settings_or_students_are_not_taken() -> None:
    trials_of(config(output_dir="a"), student="a")
    others: list[tuple[dict[str, Any], Dataset | None, str]] = [
        ({"learning_rate": 0.5}, None, "a"),
        ({"alpha": 0.5}, None, "a"),
        ({"seed": 1}, None, "a"),
        ({}, columns(90), "a"),
        ({}, columns(labelled=lambda row: row % 10 > 0), "a"),
        ({}, None, "b"),
    ]
    assert trials_of(config(output_dir="a"), student="a")[0] == 0
    for settings, dataset, student in others:
        shutil.copytree("a", "b")
        assert trials_of(config(output_dir="b", **settings), dataset, student)[0] == 4, settings
        shutil.rmtree("b")


def test_what_a_trial_found_again_shows_is_what_was_asked_for() -> None:
    trials_of(config(output_dir="a", whitening=0.5))
    trained, tried = trials_of(config(output_dir="a"))
    assert trained == 0 and tried[-2]["whitening"] == tried[-1]["whitening"] == 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"student_head": "subclass"},
        {"whitening": 0.25},
        {"subclass_weight": 2.0},
        {"null_space": False},
        {"random_rotation": False},
        {"scale_projections": False},
        {"rotation_seed": 7},
        {"num_directions": 64},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_only_lelp_is_tried_again_where_the_subclasses_are_others(settings: dict[str, Any]) -> None:
    trials_of(config(output_dir="a"))
    assert trials_of(config(output_dir="a", **settings))[0] == 1
    assert trials_of(config(output_dir="a", **settings))[0] == 0
    assert trials_of(config(output_dir="a"))[0] == 0


def test_only_lelp_is_tried_again_with_other_projections() -> None:
    def trained(projections: str, **settings: Any) -> int:
        fit = Fit(lambda t: 5)
        choose_settings(config(output_dir="a", **settings), columns(), fit, "", projections)
        return len(fit.calls)

    assert [trained("one"), trained("other"), trained("one")] == [4, 1, 0]
    assert trained("", num_subclasses=1) == 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "[" * 100_000, '{"trials": 3}', '{"trials": {"a": 3}}'),
        *(f'{{"trials": {{"a": {trial}}}}}' for trial in ('{"accuracy": "high"}', '{"accuracy": 0.5}')),
        f'{{"trials": {{"a": {{"accuracy": 1{"0" * 400}}}}}}}',
    ],
    ids=range(9),
)
def test_a_file_that_cannot_be_read_is_written_anew(text: str, caplog: pytest.LogCaptureFixture) -> None:
    file = Path("a/auto.json")
    file.parent.mkdir()
    file.write_text(text)
    assert trials_of(config(output_dir="a"))[0] == 4
    assert "auto.json cannot be read" in caplog.text
    assert trials_of(config(output_dir="a"))[0] == 0
