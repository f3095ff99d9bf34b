"""Soft labels in place of a teacher: read exactly, mapped by name, refused by row, and taught from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
from datasets import ClassLabel, Dataset
from scipy.special import log_softmax, softmax

from hf_lelp import LELPConfig, LELPTrainer, TeacherLike
from hf_lelp.cli.distill import DistillArguments, distill
from hf_lelp.compare.comparison import CompareArguments, compare
from hf_lelp.teacher.class_order import load_aligned_teacher
from hf_lelp.teacher.kinds.encoder import Encoder
from hf_lelp.teacher.kinds.soft_labels import FLOOR, SoftLabels

COLUMNS = ["p_positive", "p_negative"]  # not in the order of the labels
SOFT: dict[str, Any] = {"soft_label_columns": COLUMNS, "teacher_scores": "probabilities", "num_subclasses": 1}


def soft_data(rows: int = 64) -> Dataset:
    """The tiny teacher's probabilities of each text, a column a class."""
    data = runs.data(rows)
    probabilities = softmax(np.array(runs.teacher()(data[:])["teacher_logits"]), axis=1)
    columns = {f"p_{name}": probabilities[:, index].tolist() for index, name in enumerate(tiny.LABEL_NAMES)}
    return Dataset.from_dict({**data[:], **columns}, features=None).cast_column("label", data.features["label"])


def encoder_folder(folder: Path) -> str:
    """A saved encoder without a classification layer, and its tokenizer."""
    tiny.classifier(seed=5).bert.save_pretrained(folder / "encoder")
    tiny.tokenizer().save_pretrained(folder / "encoder")
    return str(folder / "encoder")


@pytest.mark.parametrize("scores", ["probabilities", "log_probabilities", "logits"])
def test_each_kind_of_scores_is_read_as_it_says(scores: str) -> None:
    probabilities = np.array([[0.25, 0.75], [0.0, 1.0]])
    with np.errstate(divide="ignore"):
        given = {
            "probabilities": probabilities,
            "log_probabilities": np.log(probabilities),
            "logits": 7 * probabilities,
        }
    teacher = SoftLabels(["scores"], scores, 2)
    assert isinstance(teacher, TeacherLike)
    found = teacher({"scores": given[scores].tolist()})["teacher_logits"]
    raised = np.array([[0.25, 0.75], [FLOOR, 1.0]])
    expected = given["logits"] if scores == "logits" else np.log(raised / raised.sum(1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found @ teacher.head.weight.numpy().T, found)


def test_classes_map_by_the_names_of_columns_or_keys(tmp_path: Path) -> None:
    data, args = soft_data(), runs.config(tmp_path, **SOFT)
    teacher, classes = load_aligned_teacher(None, None, args, data, None)
    assert classes.names == tiny.LABEL_NAMES and teacher is not None and teacher.class_names == tiny.LABEL_NAMES
    expected = np.stack([data["p_negative"][:], data["p_positive"][:]], axis=1)
    np.testing.assert_allclose(softmax(teacher(data[:])["teacher_logits"], axis=1), expected, atol=1e-5)
    by_key = data.map(lambda row: {"scores": {"Positive": row["p_positive"], "Negative": row["p_negative"]}})
    args = runs.config(tmp_path, **{**SOFT, "soft_label_columns": ["scores"]})
    other, _ = load_aligned_teacher(None, None, args, by_key, None)
    assert other is not None
    np.testing.assert_allclose(other(by_key[:])["teacher_logits"], teacher(data[:])["teacher_logits"], atol=1e-6)
    with pytest.raises(ValueError, match="cannot be matched"):
        load_aligned_teacher(None, None, args, by_key.cast_column("label", ClassLabel(names=["cat", "dog"])), None)


@pytest.mark.parametrize(
    ("scores", "value", "what"),
    [
        ("probabilities", [-0.1, 1.1], "one is negative"),
        ("probabilities", [0.6, 0.6], "a sum of 1 is expected"),
        ("probabilities", [float("nan"), 1.0], "a value is missing or not finite"),
        ("probabilities", [None, 1.0], "a value is missing or not finite"),
        ("probabilities", None, "2 numbers are expected"),
        ("probabilities", [0.2, 0.3, 0.5], "2 numbers are expected"),
        ("log_probabilities", [0.4, 0.6], "a sum of 1 is expected of the probabilities"),
        ("logits", [float("inf"), 0.0], "a value is missing or not finite"),
    ],
)
def test_a_row_that_holds_no_such_scores_is_named(tmp_path: Path, scores: str, value: Any, what: str) -> None:
    given: dict[str, Any] = {
        "probabilities": [0.5, 0.5],
        "log_probabilities": np.log([0.5, 0.5]),
        "logits": [3.0, -3.0],
    }
    data = runs.data(40).add_column("scores", [list(given[scores])] * 27 + [value] + [list(given[scores])] * 12)
    args = runs.config(tmp_path, num_subclasses=1, soft_label_columns="scores", teacher_scores=scores)
    with pytest.raises(ValueError, match=f"Row 27 of the dataset has the soft labels .*{what}"):
        runs.trainer(args, teacher_model=None, teacher_processing_class=None, train_dataset=data)


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name the columns and say what they hold"):
        LELPConfig(output_dir="out", soft_label_columns=COLUMNS)
    with pytest.raises(ValueError, match="goes with soft_label_columns"):
        LELPConfig(output_dir="out", embedding_model="some/encoder")
    with pytest.raises(ValueError, match="nothing says what a window or view of them is"):
        LELPConfig(output_dir="out", **SOFT, views=1)
    with pytest.raises(ValueError, match="nothing is guessed"):
        SoftLabels(COLUMNS, "percent", ["a", "b"])
    data, args = soft_data(16), runs.config(tmp_path, **SOFT)
    with pytest.raises(ValueError, match="stand for a teacher, and teacher_model names one too"):
        runs.trainer(args, train_dataset=data)
    with pytest.raises(ValueError, match="soft_label_columns names p_positive"):
        load_aligned_teacher(None, None, args, data.remove_columns("p_positive"), None)
    args = runs.config(tmp_path, num_subclasses=1, soft_label_columns="p_positive", teacher_scores="probabilities")
    with pytest.raises(ValueError, match="gives one number a row, and two classes or more are needed"):
        load_aligned_teacher(None, None, args, data, None)


def soft_trainer(folder: Path, data: Dataset, **settings: Any) -> LELPTrainer:
    args = runs.config(folder, **{**SOFT, "seed": 1, **settings})
    return runs.trainer(
        args,
        teacher_model=None,
        teacher_processing_class=None,
        train_dataset=data,
        model=runs.student(dropout=False),
    )


def test_a_student_learns_as_from_the_teacher_that_gave_them(tmp_path: Path) -> None:
    data = soft_data()
    from_soft = soft_trainer(tmp_path, data)
    from_soft.train()
    raw = data.remove_columns(COLUMNS)
    from_teacher = runs.trainer(
        runs.config(tmp_path, num_subclasses=1, seed=1), train_dataset=raw, model=runs.student(dropout=False)
    )
    from_teacher.train()
    runs.assert_same(runs.weights(from_soft.model), runs.weights(from_teacher.model), 1e-5)
    card = str(from_soft.student_card().render())
    assert "distilled from soft labels in its training data" in card
    assert "probabilities in p_positive, p_negative, at least 1e-06" in card.replace("\\", "")
    with pytest.raises(ValueError, match="needs embeddings, and soft labels have none"):
        soft_trainer(tmp_path, data, num_subclasses=2)


def test_an_encoder_beside_gives_embeddings_and_a_probe(tmp_path: Path) -> None:
    data, folder = soft_data(), encoder_folder(tmp_path)
    run = soft_trainer(tmp_path, data, embedding_model=folder, num_subclasses=2)
    run.train()
    assert run.projections is not None and run.prepared.targets is not None
    embedding = np.array(Encoder.from_pretrained(folder)(data[:])["teacher_embedding"])
    kept = run.prepared.targets.embeddings
    assert kept is not None
    np.testing.assert_allclose(np.array(kept["teacher_embedding"][:]), embedding, atol=1e-5)
    expected = log_softmax(np.log(np.stack([data["p_negative"][:], data["p_positive"][:]], axis=1)), axis=1)
    np.testing.assert_allclose(np.array(kept["teacher_logits"][:]), expected, atol=1e-4)
    teacher, _ = load_aligned_teacher(None, None, run.args, data, None)
    assert teacher is not None
    probed = log_softmax(embedding @ teacher.head.weight.numpy().T + teacher.head.bias.numpy(), axis=1)
    prior = np.exp(expected).mean(0)
    cross = [-(np.exp(expected) * log).sum(1).mean() for log in (probed, np.log(prior))]
    assert cross[0] < cross[1]  # the probe knows more than the classes' shares
    assert "mean token vector of a BertModel" in str(run.student_card().render())


def test_an_embedding_model_that_is_no_encoder_of_texts(tmp_path: Path) -> None:
    import tiny_media

    tiny_media.vit().save_pretrained(tmp_path)
    tiny_media.image_processor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="and an encoder of texts is needed"):
        Encoder.from_pretrained(str(tmp_path))


def test_the_programs_take_soft_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = soft_data(48)
    named = [tiny.LABEL_NAMES[label] for label in data["label"]]
    data = data.remove_columns("label").add_column("label", named)  # a file tells no names of numbers
    data.to_json(tmp_path / "rows.json")
    data.remove_columns(COLUMNS).to_json(tmp_path / "test.json")
    tiny.named(runs.student()).save_pretrained(tmp_path / "student")
    tiny.tokenizer().save_pretrained(tmp_path / "student")
    names: dict[str, Any] = {"train_file": str(tmp_path / "rows.json"), "student_model": str(tmp_path / "student")}
    files = {**names, "eval_file": str(tmp_path / "test.json")}
    soft = {**SOFT, "max_steps": 2}
    results = distill(DistillArguments(method=["kd"], **names), runs.config(tmp_path, **soft))["results"]
    assert (
        "accuracy" in results["teacher"] and "parameters" not in results["teacher"] and "–" in capsys.readouterr().out
    )
    results = distill(DistillArguments(method=["kd"], **files), runs.config(tmp_path, **soft))["results"]
    assert [*results] == ["kd"]  # nothing answers rows without soft labels
    with pytest.raises(ValueError, match="The method lelp needs embeddings, and soft labels have none"):
        distill(
            DistillArguments(method=["kd", "lelp"], **files), runs.config(tmp_path, **{**soft, "num_subclasses": 2})
        )
    with pytest.raises(ValueError, match="method 'lelp': needs embeddings, and soft labels have none"):
        compare(CompareArguments(**files, seeds=1), runs.config(tmp_path, **{**soft, "num_subclasses": 2}))
    compare(CompareArguments(**files, methods=["direct", "kd", "dkd"], seeds=1), runs.config(tmp_path, **soft))
    assert (tmp_path / "out" / "comparison.md").exists()
