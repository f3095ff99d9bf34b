import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from hf_lelp import ClassProjections, LELPConfig, load_student
from hf_lelp.cli.distill import DistillArguments, distill
from hf_lelp.metrics import few_class_metrics


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student and data that the teacher knows, in folders."""
    folder = tmp_path_factory.mktemp("assets")
    teacher, student = tiny.named(tiny.classifier(hidden_size=32)), tiny.classifier(seed=1)
    for name, model in (("teacher", teacher), ("student", student)):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    data = tiny.dataset(teacher, 300)
    data = data.add_column("domain", [("short", "long")[len(text.split()) > 6] for text in data["text"]])
    data.select(range(240)).to_parquet(folder / "train.parquet")
    data.select(range(240, 300)).to_parquet(folder / "test.parquet")
    return folder


def arguments(assets: Path, **kwargs: Any) -> DistillArguments:
    settings = {
        "teacher_model": str(assets / "teacher"),
        "student_model": str(assets / "student"),
        "train_file": str(assets / "train.parquet"),
        "eval_file": str(assets / "test.parquet"),
    }
    return DistillArguments(**{**settings, **kwargs})


def config(folder: Path, **kwargs: Any) -> LELPConfig:
    settings = {"output_dir": str(folder / "out"), "columns_cache_dir": str(folder / "columns"), "max_steps": 3}
    return LELPConfig(**{**settings, "num_subclasses": 3, "report_to": "none", "save_strategy": "no", **kwargs})


def test_every_method_is_trained_evaluated_saved_and_shown(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = distill(arguments(assets, method=["direct", "kd", "lelp"], group_column="domain"), config(tmp_path))

    out = tmp_path / "out"
    assert json.loads((out / "all_results.json").read_text()) == results
    assert list(results["results"]) == ["teacher", "direct", "kd", "lelp"]
    assert results["evaluation_rows"] == 60
    shown = capsys.readouterr().out
    for name in results["results"]:
        assert f"\n| {name}" in shown
    assert (out / "lelp" / "tokenizer.json").exists()
    assert ClassProjections.from_pretrained(str(out / "lelp" / "class_projections")).num_directions == 3
    assert set(results["group_alignment"]["classes"]) == set(tiny.LABEL_NAMES)
    assert sum(np.sum(c["counts"]) for c in results["group_alignment"]["classes"].values()) == 240

    # The figures are those of the saved students on the same rows.
    rows = Dataset.from_parquet(str(assets / "test.parquet"))
    inputs = tiny.tokenizer()(list(rows["text"]), padding=True, return_tensors="pt")
    teacher = AutoModelForSequenceClassification.from_pretrained(assets / "teacher")
    teacher_logits = teacher(**inputs).logits.detach().numpy()
    for method in ("direct", "kd", "lelp"):
        student = load_student(str(out / method))
        assert student.config.id2label == dict(enumerate(tiny.LABEL_NAMES))
        expected = few_class_metrics(student(**inputs).logits.detach().numpy(), np.array(rows["label"]), teacher_logits)
        for name, value in expected.items():
            assert results["results"][method][name] == pytest.approx(value, abs=1e-4)
    assert results["results"]["teacher"]["accuracy"] > 0.8


def test_groups_are_of_the_data_s_own_rows_and_the_table_says_what_was_learned_from(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [" ".join(words) for words in (tiny.WORDS, reversed(tiny.WORDS))]
    Dataset.from_dict({"text": more}).to_csv(tmp_path / "more.csv")
    given: dict[str, Any] = {"method": ["direct", "lelp"], "group_column": "domain"}
    alone = distill(arguments(assets, **given), config(tmp_path))
    assert "Learned from" not in capsys.readouterr().out
    beside = distill(arguments(assets, unlabelled_file=str(tmp_path / "more.csv"), **given), config(tmp_path, views=1))

    found, expected = beside["group_alignment"], alone["group_alignment"]
    assert found["groups"] == expected["groups"] == ["long", "short"]
    for name in tiny.LABEL_NAMES:
        rows = (np.sum(of["classes"][name]["counts"], axis=0).tolist() for of in (found, expected))
        assert next(rows) == next(rows)
    direct, lelp = (beside["results"][name]["learned_from"] for name in given["method"])
    assert direct["row"] == lelp["row"] == 240 and "unlabelled" not in direct and lelp["unlabelled"] == 2
    of_direct, of_lelp = (f"240 rows, {rows['view']} views" for rows in (direct, lelp))
    assert f"\nLearned from: {of_direct} (direct); {of_lelp}, 2 unlabelled (lelp).\n" in capsys.readouterr().out
    cards = {name: (tmp_path / "out" / name / "README.md").read_text() for name in given["method"]}
    assert "train.parquet, and more.csv without labels" in cards["lelp"] and "more.csv" not in cards["direct"]


def test_rows_held_back_are_not_learned_from_as_unlabelled_ones(
    assets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = Dataset.from_parquet(str(assets / "train.parquet"))
    train.select_columns(["text"]).to_csv(tmp_path / "all.csv")
    given = arguments(assets, method=["kd"], held_back=0.4, unlabelled_file=str(tmp_path / "all.csv"))
    figures = distill(given, config(tmp_path))["results"]["kd"]
    assert figures["learned_from"].keys() == {"row"} and figures["learned_from"]["row"] <= 144
    told = re.search(r"(\d+) unlabelled rows are left out: they equal rows that are held back", caplog.text)
    assert told and int(told[1]) == 240 - figures["learned_from"]["row"]


def test_what_is_too_little_to_calibrate_by_is_refused_before_any_training(assets: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="24 rows held back have a label, and a temperature takes 50"):
        distill(arguments(assets, calibrate=True), config(tmp_path))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_sampled_fit_does_for_the_method_best_too(assets: Path, tmp_path: Path) -> None:
    found = distill(arguments(assets, method=["kd", "lelp", "best"]), config(tmp_path, fit_rows=120, budget=2))
    assert list(found["results"]) == ["teacher", "kd", "lelp", "best"]


def test_a_student_that_diverged_has_dashes_and_ends_nothing(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    found = distill(arguments(assets, method=["direct"]), config(tmp_path, learning_rate=1e38))["results"]
    assert "direct gave logits that are not finite (NaN or infinite), and has no figures" in caplog.text
    assert "accuracy" not in found["direct"] and found["teacher"]["accuracy"] > 0.5
    assert re.search(r"\| direct +\| +– \| +– \| +– \| +– \|", capsys.readouterr().out)
    assert "the loss of its training was NaN or infinite" in (tmp_path / "out" / "README.md").read_text()


def test_one_method_is_saved_in_the_output_folder_itself(assets: Path, tmp_path: Path) -> None:
    distill(arguments(assets, method=["direct"], teacher_model=None), config(tmp_path))
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert "teacher" not in json.loads((tmp_path / "out" / "all_results.json").read_text())["results"]


def test_a_teacher_with_other_order_of_classes_gives_the_same_results(assets: Path, tmp_path: Path) -> None:
    flipped = AutoModelForSequenceClassification.from_pretrained(assets / "teacher")
    flipped.classifier.weight.data = flipped.classifier.weight.data.flip(0)
    flipped.classifier.bias.data = flipped.classifier.bias.data.flip(0)
    tiny.named(flipped, ["Positive", "NEGATIVE"]).save_pretrained(tmp_path / "flipped")
    tiny.tokenizer().save_pretrained(tmp_path / "flipped")
    speed = ("examples_per_second", "examples_per_second_alike", "train_seconds")
    one, two = (
        {
            method: {name: value for name, value in figures.items() if name not in speed}
            for method, figures in distill(
                arguments(assets, method=["kd", "lelp"], teacher_model=str(teacher)), config(tmp_path / teacher.name)
            )["results"].items()
        }
        for teacher in (assets / "teacher", tmp_path / "flipped")
    )
    assert set(one) == set(two)
    for name, figures in one.items():
        assert figures == pytest.approx(two[name], abs=1e-5)


def test_without_labels_there_is_agreement_but_no_accuracy(assets: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        Dataset.from_parquet(str(assets / f"{split}.parquet")).select_columns(["text"]).to_json(
            tmp_path / f"{split}.json"
        )
    results = distill(
        arguments(assets, train_file=str(tmp_path / "train.json"), eval_file=str(tmp_path / "test.json")),
        config(tmp_path),
    )["results"]
    assert "accuracy" not in results["lelp"]
    assert 0 <= results["lelp"]["teacher_agreement"] <= 1


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("kd", {"alpha": 1.0}, "alpha=1 leaves nothing to distil"),
        ("lelp", {"num_subclasses": 1}, "num_subclasses=1 is plain distillation, the method kd"),
        ("kd", {"budget": 4}, "budget=4 is of a search, and there is none"),
    ],
)
def test_settings_that_make_a_method_another_are_refused(
    assets: Path, tmp_path: Path, method: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        distill(arguments(assets, method=method), config(tmp_path, **settings))
    with pytest.raises(ValueError, match="group_column=topic; the data has text, label, domain"):
        distill(arguments(assets, method=method, group_column="topic"), config(tmp_path))


def test_best_is_what_the_validation_rows_support_within_a_budget(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path, num_subclasses=8, budget=3)
    results = distill(arguments(assets, method=["kd", "best"]), settings)["results"]
    assert list(results) == ["teacher", "kd", "best"] and "\n| best" in capsys.readouterr().out
    trials = json.loads((tmp_path / "out" / "best" / "auto.json").read_text())["trials"].values()
    assert [(trial["num_subclasses"], trial["temperature"]) for trial in trials] == [(1, 1.0), (8, 1.0)]
    card = (tmp_path / "out" / "best" / "README.md").read_text()
    assert "2 on a validation part of the training data" in card
    # Such a student starts from plain distillation, so this is the other student of this command.
    assert results["best"]["accuracy"] == results["kd"]["accuracy"]
    assert load_student(tmp_path / "out" / "best").config.num_labels == 2


def test_several_methods_go_on_each_from_its_own_checkpoint(assets: Path, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1}
    distill(arguments(assets, method=["kd"]), config(tmp_path / "one", **saving, max_steps=2))
    (tmp_path / "two" / "out").mkdir(parents=True)
    (tmp_path / "one" / "out").rename(tmp_path / "two" / "out" / "kd")
    settings = config(tmp_path / "two", **saving, max_steps=4, resume_from_checkpoint="last")
    distill(arguments(assets, method=["kd", "lelp"]), settings)
    steps = {
        method: [
            entry["step"]
            for entry in json.loads((tmp_path / "two" / "out" / method / "trainer_state.json").read_text())[
                "log_history"
            ]
            if "loss" in entry
        ]
        for method in ("kd", "lelp")
    }
    assert steps["kd"][-2:] == [3, 4] and steps["lelp"] == [1, 2, 3, 4]


def test_the_same_command_goes_on_wherever_it_was(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "resume_from_checkpoint": "last"}
    distill(arguments(assets, method="kd"), config(tmp_path, **settings, max_steps=4))  # from the start
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    (tmp_path / "out" / "checkpoint-4").mkdir()  # killed before anything was in it
    expected = (tmp_path / "out" / "model.safetensors").read_bytes()
    distill(arguments(assets, method="kd"), config(tmp_path, **settings, max_steps=4))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == expected
    shown = capsys.readouterr().out
    assert "kd: trained from checkpoint-2 on in " in shown and "kd: trained in " in shown
    # A time that covers a part of the training is on no table and no card.
    assert "train_seconds" not in json.loads((tmp_path / "out" / "all_results.json").read_text())["results"]["kd"]
    assert "training |" not in (tmp_path / "out" / "README.md").read_text()
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "loss" in entry] == [1, 2, 3, 4]


@pytest.mark.parametrize("folder", ["output_dir", "columns_cache_dir"])
def test_a_folder_that_cannot_be_made(assets: Path, tmp_path: Path, folder: str) -> None:
    settings = {folder: str(assets / "train.parquet" / "folder")}
    with pytest.raises(ValueError, match=r"Nothing can be written to .*parquet/folder"):
        distill(arguments(assets), config(tmp_path, **settings))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"method": ["svm"]}, "method=svm: one or more of direct, kd, lelp"),
        ({"student_model": None}, "student_model is missing"),
    ],
)
def test_arguments_say_what_is_wrong(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments(Path("x"), **kwargs)


def test_neither_a_teacher_nor_soft_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher_model is missing: .* or name columns of soft labels"):
        distill(arguments(Path("x"), teacher_model=None), config(tmp_path))


def test_training_is_told_in_a_line_a_stage(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.setattr("hf_lelp.storage.progress.SHORT", 0.0)
    distill(
        arguments(assets, method=["direct"], teacher_model=None),
        config(tmp_path, logging_steps=2, disable_tqdm=False, max_steps=3),
    )
    shown = capsys.readouterr()
    assert "direct: training: 3 steps in " in shown.err and "it/s" not in shown.err
    assert "direct: loss " in shown.out
