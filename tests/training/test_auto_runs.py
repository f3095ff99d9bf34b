"""A run with "auto" is the run with the numbers that it chose; and the word on the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from datasets import ClassLabel, Dataset
from searches import AUTO, config
from transformers import PreTrainedModel

from hf_lelp import LELPTrainer, Teacher
from hf_lelp.cli.distill import PROGRAM
from hf_lelp.student.heads import student_head
from hf_lelp.teacher.teacher import CHECKED_ROWS
from hf_lelp.training.auto_settings import TEMPERATURES
from hf_lelp.training.trials import Trials


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    distinct = len({*data()["text"]})
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
    # The teacher saw what it sees without a search, and no row of the test data: each distinct text, two of them twice.
    assert sum(seen) == sum(seen_without) == distinct + CHECKED_ROWS
    plain.train()
    assert runs.losses(auto) == runs.losses(plain)
    runs.assert_same(runs.weights(auto.model), runs.weights(plain.model))
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_the_student_given_is_not_trained_by_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # LELP is taken, however many rows it has right.
    monkeypatch.setattr(Trials, "ahead", lambda self, one, other: bool([self.run(other), self.run(one)]))
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
    kept = json.loads(file.read_text())["trials"]
    perfect = {key: {**trial, "right": "ff" * (len(trial["right"]) // 2)} for key, trial in kept.items()}
    file.write_text(json.dumps({"trials": perfect}))  # which no training gives
    again = trainer(tmp_path, {}, **settings)
    assert len(auto.auto_trials) == 3 and all(entry["accuracy"] == 1 for entry in again.auto_trials[:-1])


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


def parse(*argv: str) -> Any:
    needed = ["--student_model", "s", "--teacher_model", "t", "--train_file", "f.csv", "--report_to", "none"]
    return PROGRAM.parse([*needed, *argv])[1]


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
