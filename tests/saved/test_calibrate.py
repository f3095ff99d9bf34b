"""Calibration and threshold, in distill and as a command: on rows held back, saved with checksums and card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from datasets import Dataset
from huggingface_hub import ModelCard

from hf_lelp import LELPConfig, load_student
from hf_lelp.calibration.settled import hold_back, settle
from hf_lelp.calibration.threshold import decide
from hf_lelp.cli.distill import DistillArguments, distill
from hf_lelp.saved.calibrate import CalibrateArguments, calibrate
from hf_lelp.saved.evaluate import EvaluateArguments, evaluate
from hf_lelp.saved.predict import PredictArguments, predict
from hf_lelp.student.answers import student_answers
from hf_lelp.student.checkpoints import check_checksums


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A student calibrated by distill, and its results."""
    folder = tmp_path_factory.mktemp("run")
    teacher, student = tiny.named(tiny.classifier(hidden_size=32)), tiny.classifier(seed=1)
    for name, model in (("teacher", teacher), ("student", student)):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    data = tiny.dataset(teacher, 500)
    data.select(range(400)).to_parquet(folder / "train.parquet")
    data.select(range(400, 500)).to_parquet(folder / "test.parquet")
    arguments = DistillArguments(
        teacher_model=str(folder / "teacher"),
        student_model=str(folder / "student"),
        train_file=str(folder / "train.parquet"),
        eval_file=str(folder / "test.parquet"),
        held_back=0.25,
        calibrate=True,
        threshold="recall=0.8",
    )
    settings = {"output_dir": str(folder / "out"), "columns_cache_dir": str(folder / "columns"), "max_steps": 40}
    config = LELPConfig(
        **settings, num_subclasses=3, learning_rate=1e-2, report_to="none", save_strategy="no", use_cpu=True
    )
    return folder, distill(arguments, config)["results"]


def test_distill_fits_on_rows_held_back_and_saves_what_it_measured(run: tuple[Path, dict[str, Any]]) -> None:
    folder, results = run
    found = results["lelp"]["calibration"]
    student = load_student(folder / "out")
    assert student.config.held_back == {"share": 0.25, "seed": 42, "rows": 400}
    assert student.config.decision_threshold == found["threshold"]
    assert student.config.decision_threshold_aim == "recall=0.8"
    assert student.config.distillation_temperature == pytest.approx(1 / found["temperature"])
    check_checksums(folder / "out")
    # The rows held back have the least cross-entropy with the student as it is: another T would be no better.
    held = hold_back(Dataset.from_parquet(str(folder / "train.parquet")), 0.25, 42)[1]
    assert found["rows"] == len(held) >= 100  # equal rows are held back together
    logits = student_answers(student, tiny.tokenizer(), held, ["text"]).logits
    again = settle(student, logits, np.array(held["label"]), calibrate=True, threshold=None)
    assert again["temperature"] == pytest.approx(1, abs=0.01)
    assert results["lelp"]["ece"] == pytest.approx(found["after"]["ece"], abs=1e-6)
    card = (folder / "out" / "README.md").read_text()
    assert "temperature folded into the final layer" in card and "for recall=0" in card
    assert (folder / "out-calibrated-reliability.png").stat().st_size > 5000
    assert (folder / "out-calibrated-decisions.png").stat().st_size > 5000


def test_the_command_does_the_same_to_a_saved_student(
    run: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = run
    data = {"train_file": str(folder / "train.parquet"), "eval_file": str(folder / "test.parquet")}
    with pytest.raises(
        ValueError, match=r"held back from 400 training rows with seed 42, and these are 400 with seed 7"
    ):
        calibrate(CalibrateArguments(student=str(folder / "out"), **data, seed=7))
    found = calibrate(CalibrateArguments(student=str(folder / "out"), **data, threshold="f1"))
    assert found["temperature"] == pytest.approx(1, abs=0.01)  # it is calibrated
    assert "calibration error on the evaluation rows" in capsys.readouterr().out
    check_checksums(folder / "out")
    student = load_student(folder / "out")
    assert student.config.decision_threshold_aim == "f1" and student.config.decision_threshold == found["threshold"]
    card = ModelCard.load(folder / "out" / "README.md")
    errors = [one for one in card.data.eval_results if one.metric_type == "expected_calibration_error"]
    assert errors[0].metric_value == round(found["after"]["ece"], 4)
    assert card.text.count("## Calibration") == 1
    row = next(line for line in card.text.splitlines() if "(this model)" in line)
    assert f"| {100 * found['after']['ece']:.1f} |" in " ".join(row.split())


def test_evaluate_and_predict_answer_by_the_threshold(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = run
    student = load_student(folder / "out")
    rows = Dataset.from_parquet(str(folder / "test.parquet"))
    logits = student_answers(student, tiny.tokenizer(), rows, ["text"]).logits
    expected = decide(logits, student.config)
    test = str(folder / "test.parquet")
    figures = evaluate(EvaluateArguments(student=str(folder / "out"), eval_file=test))
    assert figures["accuracy"] == pytest.approx((expected == np.array(rows["label"])).mean())
    arguments = PredictArguments(student=str(folder / "out"), file=test, output_file=str(tmp_path / "answers.csv"))
    assert predict(arguments)["predicted"][:] == [tiny.LABEL_NAMES[index] for index in expected]


def test_rows_of_the_training_are_not_taken_by_mistake(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = run
    other = tmp_path / "plain"
    tiny.named(tiny.classifier(seed=1)).save_pretrained(other)
    tiny.tokenizer().save_pretrained(other)
    data = {"train_file": str(folder / "train.parquet"), "eval_file": str(folder / "test.parquet")}
    with pytest.raises(ValueError, match=r"config.json names no rows that were held back from it"):
        calibrate(CalibrateArguments(student=str(other), **data))
    found = calibrate(CalibrateArguments(student=str(other), calibration_file=str(folder / "test.parquet")))
    assert found["rows"] == 100 and "before" not in found
    assert json.loads((other / "config.json").read_text())["model_type"] == "bert"


def test_labels_are_missed_before_anything_is_trained(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = run
    Dataset.from_dict({"text": tiny.texts(60)}).to_parquet(tmp_path / "bare.parquet")
    arguments = DistillArguments(
        teacher_model=str(folder / "teacher"),
        student_model=str(folder / "student"),
        train_file=str(tmp_path / "bare.parquet"),
        threshold="f1",
    )
    with pytest.raises(ValueError, match="has no labels in 'label', and temperature and threshold are fitted to them"):
        distill(arguments, LELPConfig(output_dir=str(tmp_path / "out"), report_to="none", use_cpu=True))


def test_what_is_asked_for_wrongly(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="student is missing: a folder that a student was saved to"):
        CalibrateArguments(train_file="x.csv")
    with pytest.raises(ValueError, match=r"held_back=1.5: a share of the training rows"):
        hold_back(Dataset.from_dict({"text": ["a"]}), 1.5, 0)
    with pytest.raises(ValueError, match=r"threshold=f1: there are 3 classes, and a threshold takes two"):
        settle(tiny.classifier(), np.zeros((4, 3)), np.zeros(4, dtype=int), calibrate=False, threshold="f1")
