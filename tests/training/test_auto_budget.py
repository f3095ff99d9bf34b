"""What a budget of trainings buys: fewer temperatures below a whole search, further validation parts above."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from searches import Fit, columns, config, kd

from hf_lelp.training.auto_settings import best_settings, choose_settings
from hf_lelp.training.trials import validation_parts
from hf_lelp.transfer.origins import ROW, VIEW, Origins


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tried(budget: int | None, reads_tokens: bool = False, **settings: Any) -> tuple[list[Any], Any]:
    args, fit = config(budget=budget, **settings), Fit(lambda t: 5)
    choose_settings(args, columns(), fit, reads_tokens=reads_tokens)
    return fit.tried, (args.num_subclasses, args.temperature)


LELP = 32


@pytest.mark.parametrize(
    ("budget", "temperatures", "lelp", "chosen"),
    [
        (1, [], None, (LELP, 4.0)),
        (2, [], None, (LELP, 4.0)),
        (3, [4.0], 4.0, (LELP, 4.0)),
        (4, [1.0, 4.0], 1.0, (LELP, 1.0)),
        (5, [1.0, 2.0, 4.0], 1.0, (LELP, 1.0)),
        (8, [1.0, 2.0, 4.0], 1.0, (LELP, 1.0)),
    ],
)
def test_a_small_budget_tries_fewer_temperatures(
    budget: int, temperatures: list[float], lelp: float | None, chosen: Any
) -> None:
    trials, taken = tried(budget)
    assert trials == [*map(kd, temperatures), *([(LELP, lelp, 0.5)] if lelp else [])] and taken == chosen
    assert len(trials) < budget


@pytest.mark.parametrize(
    ("budget", "temperatures", "lelp"), [(1, [], []), (2, [], []), (3, [1.0], [8]), (4, [1.0, 4.0], [8])]
)
def test_students_of_tokens_start_from_plain_distillation(
    budget: int, temperatures: list[float], lelp: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    trials, taken = tried(budget, reads_tokens=True, student_head="subclass")
    assert trials == [*map(kd, temperatures), *((subclasses, 1.0, 1.0) for subclasses in lelp)]
    assert taken == (1, 1.0)
    assert ("taken untried; a comparison needs a budget of 3 trainings" in caplog.text) == (budget < 3)


def test_the_temperature_alone_and_a_number_of_subclasses_that_is_set() -> None:
    assert tried(2, num_subclasses=1) == ([], (1, 4.0))
    assert tried(3, num_subclasses=1)[0] == [kd(1.0), kd(4.0)]
    assert tried(1, num_subclasses=8) == ([], (8, 4.0))
    assert tried(3, num_subclasses=8, temperature=2.0) == ([], (8, 2.0))


@pytest.mark.parametrize(("budget", "parts"), [(None, 1), (8, 1), (9, 2), (21, 5), (99, 5)])
def test_a_large_budget_judges_by_more_rows(budget: int | None, parts: int) -> None:
    fit = Fit(lambda t: 10 + (t.num_subclasses == 32))
    trials = choose_settings(config(budget=budget), columns(), fit)
    assert len(fit.calls) == 4 * parts and len(fit.calls) < (budget or 99)
    held_back = [tuple(validation["row"]) for _, _, validation in fit.calls[:parts]]
    assert len({row for rows in held_back for row in rows}) == 20 * parts  # no row twice
    assert all(not {*train["row"]} & {*validation["row"]} for _, train, validation in fit.calls)
    assert [trial["accuracy"] for trial in trials[:-1]] == pytest.approx([0.5, 0.5, 0.5, 0.55])


def test_more_parts_take_the_trials_of_fewer() -> None:
    def trained(budget: int) -> int:
        fit = Fit(lambda t: 5)
        choose_settings(config(output_dir="a", budget=budget), columns(), fit)
        return len(fit.calls)

    assert [trained(budget) for budget in (5, 9, 5, 13)] == [4, 4, 0, 4]


def test_a_difference_that_one_part_cannot_show_is_shown_by_five() -> None:
    def chosen(budget: int) -> int:
        args = config(temperature=1.0, budget=budget)
        choose_settings(args, columns(1000), Fit(lambda t: 100 + 3 * (t.num_subclasses > 1)), reads_tokens=True)
        return int(args.num_subclasses)

    assert (chosen(3), chosen(11)) == (1, 32)  # 3 of 200 rows, 15 of 1,000


def test_parts_keep_what_was_made_of_a_row_together() -> None:
    rows = 50
    origins = Origins(np.tile(np.arange(rows), 2), np.repeat([ROW, VIEW], rows))
    data = Dataset.from_dict({"row": [*range(rows), *range(rows)], "view": [*[0] * rows, *[1] * rows]})
    parts = validation_parts(data, origins, seed=3, parts=5)
    seen: list[int] = []
    for train, validation in parts:
        assert len(validation) == 10 and set(validation["view"]) == {0} and len(train) == 80
        assert not {*train["row"]} & {*validation["row"]}
        seen += validation["row"]
    assert sorted(seen) == list(range(rows))
    assert len(validation_parts(data.select(range(3)), None, 0, 5)) == 3  # one row each


def test_the_first_part_is_that_of_a_search_of_before() -> None:
    data = columns()
    (train, validation), *_ = validation_parts(data, None, seed=42, parts=3)
    before = data.train_test_split(test_size=20, seed=42)
    assert (train["row"][:], validation["row"][:]) == (before["train"]["row"][:], before["test"]["row"][:])


def test_the_best_form_depends_on_the_kind_of_student() -> None:
    assert best_settings(True)["student_head"] == "subclass" and best_settings(False)["student_head"] == "auxiliary"
    for reads_tokens in (True, False):
        assert config(**best_settings(reads_tokens)).auto


@pytest.mark.parametrize("budget", [0, 2.5, "many"])
def test_a_budget_is_a_number_of_trainings(budget: Any) -> None:
    with pytest.raises(ValueError, match="budget"):
        config(budget=budget)
