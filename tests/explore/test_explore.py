"""The command: from models and data to a page, its JSON and lines in the terminal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
from datasets import Dataset

from hf_lelp import ClassProjections, LELPConfig, Teacher
from hf_lelp.explore.explore import ExploreArguments, explore
from hf_lelp.explore.rows import explored_rows
from hf_lelp.projections.subclass_scores import SubclassScores
from hf_lelp.student.answers import student_answers
from hf_lelp.student.loading import load_student


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, data, and a run with two students."""
    folder = tmp_path_factory.mktemp("assets")
    runs.teacher_model().save_pretrained(folder / "teacher")
    tiny.tokenizer().save_pretrained(folder / "teacher")
    data = runs.data(200)
    data = data.add_column("size", [("short", "long")[len(text.split()) > 6] for text in data["text"]])
    data.select(range(120)).to_parquet(folder / "train.parquet")
    data.select(range(120, 200)).to_parquet(folder / "test.parquet")
    for method, settings in {"kd": {"num_subclasses": 1}, "lelp": {}}.items():
        train = Dataset.from_parquet(str(folder / "train.parquet"))
        run = runs.trainer(config(folder, **settings), train_dataset=train)
        run.train()
        run.save_model(str(folder / "out" / method))
    return folder


def config(folder: Path, **settings: Any) -> LELPConfig:
    return runs.config(folder, **{"num_subclasses": 3, "max_steps": 2, **settings})


def arguments(assets: Path, **changes: Any) -> ExploreArguments:
    data = {"train_file": str(assets / "train.parquet"), "eval_file": str(assets / "test.parquet")}
    return ExploreArguments(
        **{
            "teacher_model": str(assets / "teacher"),
            "method": ["kd", "lelp"],
            **data,
            "group_column": "size",
            **changes,
        }
    )


def test_the_students_of_a_run_are_explored(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = explore(arguments(assets), config(assets))
    folder = assets / "out-explore"
    assert json.loads((folder / "explore.json").read_text()) == json.loads(json.dumps(report))
    page, shown = (folder / "explore.html").read_text(), capsys.readouterr().out
    assert "This page holds rows of your data" in page and str(folder / "explore.html") in shown
    assert report["models"] == ["teacher", "kd", "lelp"] and report["groups"] == ["long", "short"]
    test = Dataset.from_parquet(str(assets / "test.parquet"))
    student = load_student(assets / "out" / "lelp")
    logits = runs.class_logits(student, list(test["text"]), tiny.tokenizer())
    np.testing.assert_allclose(student_answers(student, tiny.tokenizer(), test, ["text"]).logits, logits, atol=1e-5)
    accuracy = (logits.argmax(-1) == np.array(test["label"])).mean()
    assert report["summary"]["accuracy"]["lelp"] == pytest.approx(accuracy)
    assert f"{100 * accuracy:.1f}" in shown and report["summary"]["classes"][0]["variance_held"] > 0


def test_the_subclasses_are_those_of_the_training(assets: Path) -> None:
    run = runs.trainer(config(assets), train_dataset=Dataset.from_parquet(str(assets / "train.parquet")))
    guide = Teacher.from_pretrained(assets / "teacher")
    test = Dataset.from_parquet(str(assets / "test.parquet"))
    columns = test.map(guide, batched=True)
    assert run.projections is not None
    labels = np.array(test["label"])
    rows = explored_rows(columns, labels, ["a", "b"], run.projections, run.subclass_scores)
    projected = columns.map(run.projections, batched=True).with_format("torch")["teacher_projections"][:]
    scores = run.subclass_scores(projected).numpy()
    np.testing.assert_allclose(rows.scores, scores[np.arange(len(labels)), labels], rtol=1e-5)
    report = explore(arguments(assets, group_column=None), config(assets))
    counts = [one["rows"] for one in report["subclasses"] if one["class"] == 0]
    assert counts == np.bincount(rows.subclass_of[labels == 0], minlength=3).tolist()


def test_without_students_or_labels_it_says_so(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Dataset.from_parquet(str(assets / "test.parquet")).remove_columns("label").to_parquet(tmp_path / "bare.parquet")
    args = config(assets, output_dir=str(tmp_path / "out"), num_subclasses="auto")
    report = explore(arguments(assets, eval_file=str(tmp_path / "bare.parquet")), args)
    assert "No student is in" in caplog.text and "No row has a label" in capsys.readouterr().out
    assert report["models"] == ["teacher"] and report["against"] == "teacher"


def test_a_page_of_images(tmp_path: Path) -> None:
    teacher = tiny_media.cnn()
    processor = tiny_media.image_processor()
    teacher.save_pretrained(tmp_path / "teacher")
    processor.save_pretrained(tmp_path / "teacher")
    data = tiny_media.image_data(Teacher(teacher, processor, input_columns=["img"]), 80)
    data.select(range(40)).to_parquet(tmp_path / "train.parquet")
    data.select(range(40, 80)).to_parquet(tmp_path / "test.parquet")
    given = arguments(tmp_path, students=[str(tmp_path / "teacher")], group_column=None, page_dir=str(tmp_path / "p"))
    report = explore(given, config(tmp_path, num_subclasses=2))
    assert report["summary"]["accuracy"]["teacher"] > 0.9
    assert (tmp_path / "p" / "explore.html").read_text().count('class="thumb" src="data:image/jpeg;base64,') >= 4


def test_mistakes_are_named(assets: Path) -> None:
    with pytest.raises(ValueError, match="teacher_model is missing: its embeddings make the subclasses"):
        arguments(assets, teacher_model=None)
    with pytest.raises(ValueError, match=r"it holds no student\. Name one of those in it: .*/out/kd, .*/out/lelp\."):
        explore(arguments(assets, students=[str(assets / "out")]), config(assets))
    with pytest.raises(ValueError, match=r"lies in the folder of a student, .*lelp, which may be pushed"):
        explore(arguments(assets, page_dir=str(assets / "out" / "lelp" / "page")), config(assets))
    with pytest.raises(ValueError, match=r"group_column=colour; the data has text, label, size"):
        explore(arguments(assets, group_column="colour"), config(assets))
    three = assets / "three"
    tiny.classifier(num_labels=3).save_pretrained(three)
    tiny.tokenizer().save_pretrained(three)
    with pytest.raises(ValueError, match=r"The student .*three has 3 classes, and the data 2"):
        explore(arguments(assets, students=[str(three)]), config(assets))


def test_rows_without_embeddings_are_refused() -> None:
    columns, projections = runs.prepared()
    bare = columns.remove_columns("teacher_embedding")
    scores = SubclassScores(LELPConfig(num_subclasses=2, report_to="none"), projections)
    with pytest.raises(ValueError, match=r"These rows were kept without teacher_embedding \(they have"):
        explored_rows(bare, np.zeros(len(bare), dtype=int), ["a", "b"], projections, scores)
    assert isinstance(projections, ClassProjections)


def test_a_page_is_of_one_teacher(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names 2: the page shows the subclasses of one"):
        ExploreArguments(teacher_model=["a", "b"], train_file=str(tmp_path / "rows.csv"))
