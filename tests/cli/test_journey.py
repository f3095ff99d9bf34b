"""A newcomer's first hour: own CSV files, from a student made by name to answers. One run is shared by its steps."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from datasets import Dataset
from transformers import AutoTokenizer, BertForSequenceClassification

from hf_lelp import load_student
from hf_lelp.cli.advice import advice_of, few_texts_advice, rare_class_advice
from hf_lelp.cli.distill import PROGRAM, DistillArguments, distill
from hf_lelp.config import LELPConfig
from hf_lelp.export.export import ExportArguments, export
from hf_lelp.export.runtimes import load_onnx
from hf_lelp.saved.evaluate import PROGRAM as EVALUATE
from hf_lelp.saved.evaluate import EvaluateArguments, evaluate
from hf_lelp.saved.predict import PROGRAM as PREDICT
from hf_lelp.saved.predict import PredictArguments, predict
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.learning_rate import starting_rate

NAMES = ["complaint", "praise", "question"]  # in another order than the teacher's
LENGTH = 8


def write(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("review", "kind")) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of three classes, and files of labelled, partly labelled and unlabelled rows."""
    folder = tmp_path_factory.mktemp("own")
    teacher = tiny.named(tiny.classifier(hidden_size=32, num_labels=3), ["Question", "PRAISE", "complaint"])
    teacher.save_pretrained(folder / "teacher")
    tiny.tokenizer().save_pretrained(folder / "teacher")
    texts = tiny.texts(320, longest=20)
    labels = [["question", "praise", "complaint"][index] for index in tiny.labelled_by(teacher, texts, noise=0.05)]
    rows = list(zip(texts, labels, strict=True))
    write(folder / "train.csv", rows[:200])
    write(folder / "partly.csv", [(text, "" if row % 2 else label) for row, (text, label) in enumerate(rows[:200])])
    write(folder / "unlabelled.csv", [(text,) for text in texts[:200]], ("review",))
    write(folder / "test.csv", rows[200:])
    return folder


def settings(folder: Path, **kwargs: Any) -> LELPConfig:
    own = {"output_dir": str(folder / "out"), "columns_cache_dir": str(folder / "columns"), "label_column": "kind"}
    steps = {"max_steps": 4, "num_subclasses": 2, "save_strategy": "no", "report_to": "none", "use_cpu": True}
    return LELPConfig(**{**own, **steps, "max_length": LENGTH, **kwargs})


def arguments(own: Path, train: str = "train.csv", **kwargs: Any) -> DistillArguments:
    files = {"train_file": str(own / train), "eval_file": str(own / "test.csv")}
    return DistillArguments(
        **{"teacher_model": str(own / "teacher"), "student_model": "new:1x32", **files, **kwargs},
    )


@pytest.fixture(scope="module")
def run(own: Path) -> dict[str, Any]:
    """Unlabelled training rows, a labelled test file, a student made by name."""
    return distill(arguments(own, "unlabelled.csv", max_train_samples=150), settings(own, learning_rate=None))


def test_unlabelled_rows_and_a_labelled_test_file(own: Path, run: dict[str, Any]) -> None:
    student = load_student(own / "out")
    assert list(student.config.id2label.values()) == NAMES  # the test file's names and order
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (1, 32)
    assert StudentInputs.of(student.config) == StudentInputs(["review"], "kind", LENGTH, "new:1x32")
    figures = run["results"]
    assert figures["teacher"]["accuracy"] > 0.8 and "accuracy" in figures["lelp"]
    # Both were measured at the student's length, and each at its own.
    assert figures["teacher"]["max_length"] == 64 and figures["lelp"]["max_length"] == LENGTH
    for of_model in figures.values():
        assert of_model["alike_length"] == LENGTH and of_model["examples_per_second_alike"] > 0
    card = (own / "out" / "README.md").read_text()
    assert f"truncation=True, max_length={LENGTH})" in card and "| at 8 tokens |" in card
    assert "unlabelled.csv (at most 150 rows)" in card and "new&#58;1x32, a BERT of layers × size" in card
    assert f"{starting_rate(student):g}" in card  # the learning rate, by the size


def test_a_threshold_for_three_classes_is_refused_before_any_training(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threshold=f1: there are 3 classes, and a threshold takes two"):
        distill(arguments(own, threshold="f1"), settings(own, output_dir=str(tmp_path)))
    assert not (tmp_path / "model.safetensors").exists()


def test_every_program_reads_the_student_as_it_was_trained(
    own: Path, run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, test = str(own / "out"), str(own / "test.csv")
    figures = evaluate(EvaluateArguments(student=student, eval_file=test, output_file=str(tmp_path / "f.json")))
    for name in ("accuracy", "macro_f1", "ece"):
        assert figures[name] == pytest.approx(run["results"]["lelp"][name], abs=1e-6)
    assert json.loads((tmp_path / "f.json").read_text()) == figures
    assert np.sum(figures["confusion"]) == figures["rows"] == 120
    assert figures["classes"]["praise"]["rows"] == sum(figures["confusion"][1])
    assert "always answering" in capsys.readouterr().out

    answered = predict(PredictArguments(student=student, file=test, output_file=str(tmp_path / "answers.csv")))
    written = Dataset.from_csv(str(tmp_path / "answers.csv"))
    assert written.column_names == ["review", "kind", "predicted", *(f"probability of {name}" for name in NAMES)]
    assert (np.array(written["predicted"]) == np.array(written["kind"])).mean() == pytest.approx(figures["accuracy"])
    probabilities = np.stack([answered[f"probability of {name}"] for name in NAMES], 1)
    np.testing.assert_allclose(probabilities.sum(1), 1)

    out = tmp_path / "exported"
    report = export(ExportArguments(student=student, to=["onnx"], eval_file=test, output_dir=str(out)))
    assert report["runtimes"][0]["accuracy"] == pytest.approx(figures["accuracy"])
    # The folder is served as it is: names and tokenizer lie beside the file, and one text of any length goes in.
    assert json.loads((out / "onnx" / "config.json").read_text())["id2label"]["1"] == "praise"
    tokenizer = AutoTokenizer.from_pretrained(out / "onnx")
    assert tokenizer.model_max_length == LENGTH
    tokens = dict(tokenizer([" ".join(["good"] * 700)], truncation=True, return_tensors="pt"))
    assert load_onnx(out / "onnx" / "model.onnx").logits(tokens).shape == (1, 3)
    card = (out / "README.md").read_text()
    assert "onnxruntime.InferenceSession" in card and f"max_length={LENGTH}" in card


def test_answers_stay_out_of_what_is_published(own: Path, run: dict[str, Any], tmp_path: Path) -> None:
    for place, message in (
        (own / "out" / "answers.csv", "lies in the student's folder, whose files are published"),
        (tmp_path / "answers.xml", "output_file=.*: the format is told by the ending"),
    ):
        with pytest.raises(ValueError, match=message):
            PredictArguments(student=str(own / "out"), file="new.csv", output_file=str(place))
    with pytest.raises(ValueError, match="A student and a file are needed"):
        PredictArguments(student="x")
    with pytest.raises(ValueError, match=r"there is nothing to evaluate by\. Set label_column"):
        evaluate(EvaluateArguments(student=str(own / "out"), eval_file=str(own / "unlabelled.csv")))
    inside = settings(own, columns_cache_dir=str(own / "out" / "columns"), push_to_hub=True, hub_model_id="me/it")
    with pytest.raises(ValueError, match=r"lies in output_dir=.*, which is published with all that is in it"):
        distill(arguments(own), inside)
    assert not [path for path in (own / "out").rglob("*") if path.suffix in (".csv", ".arrow", ".parquet")]


def test_a_missing_text_is_named_by_its_row(own: Path, run: dict[str, Any], tmp_path: Path) -> None:
    rows = [(text,) for text in tiny.texts(60)]
    random.Random(0).shuffle(rows)
    rows[41] = ("NA",)
    file = write(tmp_path / "gap.csv", rows, ("review",))
    with pytest.raises(ValueError, match="Row 41 of the dataset has None in the text column 'review'"):
        predict(PredictArguments(student=str(own / "out"), file=file))
    with pytest.raises(ValueError, match=r"Row \d+ of the dataset \(row 41 of the file .*\) has None in the text"):
        distill(arguments(own, train_file=file, max_train_samples=59), settings(tmp_path))


def test_an_unknown_class_says_in_which_data(own: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "other.csv", [("good film", "praise"), ("bad film", "rant")])
    with pytest.raises(ValueError, match="The evaluation data: The label 'rant' is none of the classes"):
        distill(arguments(own, eval_file=file), settings(tmp_path))


def test_interrupted_and_resumed_with_labels_in_part(own: Path, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    for steps in (2, 4):
        config = settings(tmp_path, **{**saving, "max_steps": steps}, resume_from_checkpoint="last", alpha=0.5)
        results = distill(arguments(own, "partly.csv"), config)["results"]
    assert "train_seconds" not in results["lelp"]  # it went on from the second step
    assert (tmp_path / "out" / "checkpoint-4").is_dir()


def test_a_student_of_two_classes_is_refused_with_the_line_that_helps(own: Path, tmp_path: Path) -> None:
    BertForSequenceClassification(tiny.classifier().config).save_pretrained(tmp_path / "student")
    tiny.tokenizer().save_pretrained(tmp_path / "student")
    with pytest.raises(ValueError, match=r"Or have a new one made .*: student_model: new:1x16"):
        distill(arguments(own, student_model=str(tmp_path / "student")), settings(tmp_path))
    for recipe in ("new:2", "new:0x128", "new:2x127", "new:"):
        with pytest.raises(ValueError, match="layers and an even size are expected"):
            distill(arguments(own, student_model=recipe), settings(tmp_path))
    with pytest.raises(ValueError, match="a student made here reads texts with the teacher's tokenizer"):
        distill(arguments(own, teacher_model=None, method="direct"), settings(tmp_path))


def test_a_tracker_that_is_not_installed_is_one_line(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"report_to=neptune: .*Install its package, or leave report_to out"):
        distill(arguments(own), settings(tmp_path, report_to="neptune"))


def test_programs_take_the_student_as_their_first_word(own: Path) -> None:
    assert EVALUATE.parse(["out", "--eval_file", "t.csv"])[0].student == "out"
    assert PREDICT.parse(["out", "--file", "t.csv"])[0].output_file == "t_predicted.csv"
    assert PROGRAM.parse(["--teacher_model", "t", "--student_model", "s", "--train_file", "f"])[1].learning_rate is None


def test_a_rare_class_is_told() -> None:
    assert rare_class_advice({"ham": 87, "spam": 13}) == (
        "Few rows of a class: 'spam' has 13% of them. Accuracy says little of it; hf-lelp evaluate shows its precision"
        " and recall."
    )
    assert rare_class_advice({"a": 50, "b": 50}) is None and rare_class_advice({"a": 0}) is None


def test_the_shares_of_classes_are_of_the_data_s_own_rows(tmp_path: Path) -> None:
    texts = ["good", "fine", *tiny.texts(7, shortest=6)]  # of single words there are no views
    raw = Dataset.from_dict({"text": texts, "label": [0, 0, *[1] * 7]})
    args = runs.config(tmp_path, views=4, check_teacher=False, num_subclasses=1)
    trainer = runs.trainer(args, train_dataset=raw, eval_dataset=None)
    assert len(trainer.train_dataset) > 25 and not any("Few rows of a class" in line for line in advice_of(trainer))


def test_copies_are_advised_where_a_new_student_reads_few_texts() -> None:
    assert few_texts_advice(2000, "new:2x128", 0) == (
        "Few texts for a new student (2,000): try altered copies, which the teacher reads too, --views 4."
    )
    for rows, recipe, views in (
        (10_001, "new:2x128", 0),
        (2000, "layers:2", 0),
        (2000, None, 0),
        (2000, "new:2x128", 2),
    ):
        assert few_texts_advice(rows, recipe, views) is None


def test_the_rate_follows_the_size() -> None:
    with torch.device("meta"):
        models = {size: BertForSequenceClassification(tiny_bert(*size)) for size in [(2, 128), (6, 384), (12, 768)]}
    sizes = {size: starting_rate(model) for size, model in models.items()}
    # The demo and the suite train 2 × 128 at 5e-4 and 1e-3, MiniLM at 1.5e-4; Trainer's default is for BERT-base.
    assert 5e-4 <= sizes[2, 128] <= 1e-3
    assert sizes[6, 384] == pytest.approx(1.5e-4, rel=0.1) and sizes[12, 768] == pytest.approx(5e-5, rel=0.1)


def tiny_bert(layers: int, size: int) -> Any:
    config = tiny.classifier().config
    config.update({"num_hidden_layers": layers, "hidden_size": size, "intermediate_size": 4 * size})
    config.update({"max_position_embeddings": 512, "vocab_size": 30_000})
    return config
