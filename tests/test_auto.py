"""What "auto" tries, what it takes, and that a run with it is the run with the numbers that it chose."""

import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from datasets import ClassLabel, Dataset
from transformers import PreTrainedModel

from hf_lelp import LELPConfig, LELPTrainer, Teacher
from hf_lelp import __main__ as command_line
from hf_lelp.auto import (
    MOST_VALIDATION_ROWS,
    SUBCLASS_TEMPERATURE,
    TEMPERATURES,
    choose_settings,
)
from hf_lelp.config import MOST_SUBCLASSES
from hf_lelp.students import student_head

AUTO = {"num_subclasses": "auto", "temperature": "auto", "subclass_temperature": "auto"}
ROWS = 100


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


# ---- Started again ----


def untimed(tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in tried]


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


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trials": 3}'])
def test_a_file_that_cannot_be_read_is_written_anew(text: str, caplog: pytest.LogCaptureFixture) -> None:
    file = Path("a/auto.json")
    file.parent.mkdir()
    file.write_text(text)
    assert trials_of(config(output_dir="a"))[0] == 4
    assert "auto.json cannot be read" in caplog.text
    assert trials_of(config(output_dir="a"))[0] == 0


# ---- A run ----


def teacher_model() -> PreTrainedModel:
    """One whose embedding has room for 30 directions in each class, and that finds both classes as often."""
    return runs.teacher_model(hidden_size=32, seed=5)


def data(rows: int = 200, seed: int = 0) -> Dataset:
    return tiny.dataset(teacher_model(), rows, seed=seed)


def trainer(folder: Path, arguments: dict[str, Any], **settings: Any) -> LELPTrainer:
    args = runs.config(folder, **{**AUTO, "max_steps": 3, **settings})
    return runs.trainer(args, **{"train_dataset": data(), "teacher_model": teacher_model(), **arguments})


@pytest.mark.parametrize(
    ("head", "given", "trials"),
    [("subclass", {}, 5), ("auxiliary", {"temperature": 2.0, "subclass_temperature": 0.5}, 3)],
)
def test_a_run_is_the_run_with_the_numbers_that_were_chosen(
    head: str, given: dict[str, Any], trials: int, tmp_path: Path
) -> None:
    guide, settings = teacher_model(), {"student_head": head, "alpha": 0.2}
    with runs.rows_seen(guide) as seen:
        auto = trainer(tmp_path, {"teacher_model": guide, "eval_dataset": data(40, seed=1)}, **settings, **given)
    args = auto.args
    chosen = (args.num_subclasses, args.temperature, args.subclass_temperature)
    assert all(isinstance(value, int | float) for value in chosen) and not args.auto
    assert args.num_subclasses in (1, 30) and args.temperature in TEMPERATURES
    assert len(auto.auto_trials) == trials and auto.auto_trials[-1]["chosen"]
    assert chosen == tuple(auto.auto_trials[-1][name] for name in AUTO)
    assert all(0 <= entry["accuracy"] <= 1 for entry in auto.auto_trials[:-1])
    placed = student_head(auto.model)
    assert (placed.num_subclasses if placed is not None else 1) == args.num_subclasses
    assert placed is None or head == "auxiliary" or placed.temperature == args.temperature
    auto.train()

    numbers = {**dict(zip(AUTO, chosen, strict=True)), "whitening": args.whitening}
    guide = teacher_model()
    with runs.rows_seen(guide) as seen_without:
        plain = trainer(tmp_path / "plain", {"teacher_model": guide}, **numbers, **settings, num_directions=30)
    assert plain.auto_trials == []
    # The teacher saw what it sees without a search, and no row of the test data.
    assert sum(seen) == sum(seen_without) >= 200
    plain.train()
    assert runs.losses(auto) == runs.losses(plain)
    runs.assert_same(runs.weights(auto.model), runs.weights(plain.model))
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_the_student_given_is_not_trained_by_the_search(tmp_path: Path) -> None:
    model = runs.student()
    before = runs.weights(model)
    auto = trainer(tmp_path, {"model": model}, num_directions=4, temperature=1.0)
    head = student_head(auto.model)
    assert auto.model is model and head is not None and len(auto.auto_trials) == 3
    for name, value in before.items():
        if "classifier" not in name:
            assert model.state_dict()[name].equal(value), name
    torch.testing.assert_close(head.weight.detach(), before["classifier.weight"].repeat_interleave(4, dim=0))


def test_a_trainer_that_is_made_again_in_the_same_folder_chooses_the_same_without_training(tmp_path: Path) -> None:
    settings = {"num_directions": 4, "temperature": 1.0, "output_dir": str(tmp_path / "run")}
    auto = trainer(tmp_path, {}, **settings)
    file = tmp_path / "run" / "auto.json"
    file.write_text(file.read_text().replace('"accuracy": 0', '"accuracy": 1'))  # which no training gives
    again = trainer(tmp_path, {}, **settings)
    assert len(auto.auto_trials) == 3 and all(entry["accuracy"] >= 1 for entry in again.auto_trials[:-1])


def test_unlabelled_data_and_a_student_made_by_model_init(tmp_path: Path) -> None:
    settings = {"num_directions": 2, "temperature": 2.0}
    arguments = {"model_init": lambda: runs.student(), "train_dataset": data().remove_columns("label")}
    auto = trainer(tmp_path, {**arguments, "model": None}, **settings)
    assert len(auto.auto_trials) == 3
    auto.train()


def test_a_student_made_by_an_object_and_a_search_that_fails(tmp_path: Path) -> None:
    class Maker:
        made = 0

        def __call__(self) -> PreTrainedModel:
            self.made += 1
            if self.made == 2:
                raise RuntimeError("no more students")
            return runs.student()

    args = runs.config(tmp_path, **{**AUTO, "max_steps": 1, "num_directions": 2, "temperature": 2.0})
    given = {"model": None, "train_dataset": data(), "teacher_model": teacher_model()}
    with pytest.raises(RuntimeError, match="no more students"):
        runs.trainer(args, **given, model_init=Maker())
    # What was settled for the trials does not outlive them: these data have other names of the classes.
    renamed = data().cast_column("label", ClassLabel(names=["no", "yes"]))
    other = {**given, "train_dataset": renamed, "teacher_model": tiny.named(teacher_model(), ["no", "yes"])}
    again = runs.trainer(args, **other, model_init=lambda: runs.student())
    assert list(again.model.config.id2label.values()) == ["no", "yes"]


def test_images_that_are_read_anew_each_time(tmp_path: Path) -> None:
    guide = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])
    train = tiny_media.image_data(guide)
    train.set_transform(lambda batch: {"img": [image.rotate(90) for image in batch["img"]]})
    arguments = {
        "model": tiny_media.vit(),
        "train_dataset": train,
        "processing_class": tiny_media.image_processor(16, mean=0.3),
        "teacher_model": guide,
        "teacher_processing_class": None,
    }
    numbers = {"num_directions": 2, "temperature": 1.0}
    auto = trainer(tmp_path, arguments, **numbers)
    assert len(auto.auto_trials) == 3
    auto.train()
    arguments["model"] = tiny_media.vit()
    chosen = {name: getattr(auto.args, name) for name in (*AUTO, "whitening")}
    plain = trainer(tmp_path, arguments, **{**numbers, **chosen})
    assert plain.auto_trials == []
    plain.train()
    runs.assert_same(runs.weights(auto.model), runs.weights(plain.model))


def test_without_distillation_nothing_is_searched_for(tmp_path: Path) -> None:
    auto = runs.trainer(runs.config(tmp_path, **AUTO, alpha=1.0), teacher_model=None)
    assert auto.auto_trials == [] and not auto.args.auto and student_head(auto.model) is None
    assert auto.args.num_subclasses == 1
    auto.train()


def parts_of(rows: int) -> tuple[list[int], list[int]]:
    """The rows that the search trains on and those that it holds out."""
    parts = Dataset.from_dict({"row": list(range(rows))}).train_test_split(test_size=round(0.2 * rows), seed=42)
    return list(parts["train"]["row"]), list(parts["test"]["row"])


def test_a_few_labels_of_which_a_part_of_the_data_lacks_a_class(tmp_path: Path) -> None:
    raw = data(60)
    kept, held_out = parts_of(60)
    labels = list(raw["label"])
    # Of class 0 the only label is held out, of class 1 it is not.
    few = [-100] * 60
    for label, part in ((0, held_out), (1, kept)):
        few[next(row for row in part if labels[row] == label)] = label
    partly = raw.remove_columns("label").add_column("label", few)
    settings = {"num_directions": 2, "temperature": 1.0, "max_steps": 1}
    assert len(trainer(tmp_path, {"train_dataset": partly}, **settings).auto_trials) == 3


def test_a_teacher_that_passes_on_the_whole_data_passes_in_the_search(tmp_path: Path) -> None:
    raw = data(60)
    guesses = runs.class_logits(teacher_model(), list(raw["text"]), tiny.tokenizer()).argmax(-1)
    kept, held_out = parts_of(60)
    # Just as good as always answering the commonest class on all rows, and worse on those that are not held out.
    positive = [row for row in held_out + kept if guesses[row]]
    labels = np.zeros(60, dtype=int)
    labels[positive[: (len(positive) + 1) // 2]] = 1
    assert (labels == guesses).mean() >= (labels == 0).mean()
    assert (labels == guesses)[kept].mean() < (labels == 0)[kept].mean()
    train = raw.remove_columns("label").add_column("label", labels)
    settings = {"num_directions": 2, "temperature": 1.0, "max_steps": 1}
    assert len(trainer(tmp_path, {"train_dataset": train}, **settings).auto_trials) == 3


def test_a_stream_has_no_part_to_choose_on(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    stream = columns.to_iterable_dataset()
    with pytest.raises(ValueError, match=r'"auto" are chosen on a part.*IterableDataset.*Set numbers instead'):
        runs.trainer(runs.config(tmp_path, **AUTO), train_dataset=stream, teacher_model=None, projections=projections)


# ---- The command line ----


def parse(*argv: str) -> Any:
    needed = ["--student_model", "s", "--teacher_model", "t", "--train_file", "f.csv", "--report_to", "none"]
    return command_line.parse([*needed, *argv])[1]


def test_auto_and_numbers_on_the_command_line_and_in_yaml(tmp_path: Path) -> None:
    args = parse("--num_subclasses", "auto", "--temperature", "auto", "--subclass_temperature", "0.5")
    assert (args.num_subclasses, args.temperature, args.subclass_temperature) == ("auto", "auto", 0.5) and args.auto
    args = parse("--num_subclasses", "4", "--temperature", "2")
    assert args.num_subclasses == 4 and isinstance(args.num_subclasses, int)
    assert args.temperature == 2.0 and isinstance(args.temperature, float) and not args.auto
    assert parse("--num_subclasses", "auto").whitening is None
    assert parse("--num_subclasses", "auto", "--whitening", "0").whitening == 0
    file = tmp_path / "run.yaml"
    file.write_text("num_subclasses: auto\ntemperature: 2\nsubclass_temperature: auto\n")
    args = parse("--config", str(file))
    assert (args.num_subclasses, args.temperature, args.subclass_temperature) == ("auto", 2.0, "auto")
    assert parse("--config", str(file), "--num_subclasses", "16").num_subclasses == 16


@pytest.mark.parametrize(
    "argv", [("--num_subclasses", "many"), ("--num_subclasses", "2.5"), ("--temperature", "Auto"), ("--alpha", "auto")]
)
def test_other_words_are_refused(argv: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"{argv[0][2:]}: {argv[1]}\n")
    for given in (argv, ("--config", str(file))):
        with pytest.raises(SystemExit):
            parse(*given)
        message = capsys.readouterr().err.splitlines()[-1]
        assert argv[0][2:] in message and argv[1] in message
        assert "partial" not in message and "function" not in message


def test_other_words_are_refused_in_python() -> None:
    for settings in ({"num_subclasses": "many"}, {"num_directions": "auto"}, {"temperature": "hot"}, {"alpha": "auto"}):
        with pytest.raises(ValueError):
            config(**settings)
    with pytest.raises(ValueError, match="num_directions=4 is fewer than num_subclasses=8"):
        config(num_subclasses=8, num_directions=4)
    assert config(num_directions=4).directions == 4  # "auto" takes what there is
