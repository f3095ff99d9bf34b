"""A teacher of another kind: what it must offer, and that it teaches."""

from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from examples.sklearn_teacher import SklearnTeacher
from hf_lelp import ClassProjections, Teacher, TeacherLike
from hf_lelp.teacher.class_order import load_aligned_teacher
from hf_lelp.teacher.columns import teacher_columns


def fit(texts: list[str], labels: list[int], dimensions: int) -> Pipeline:
    """Counts of words, their leading components, and a regression on them."""
    steps = CountVectorizer(), TruncatedSVD(dimensions, random_state=0), LogisticRegression(C=10, max_iter=1000)
    return make_pipeline(*steps).fit(texts, labels)


def sklearn_teacher(num_classes: int = 2) -> SklearnTeacher:
    """Says whether "good", or which of the first words, comes up."""
    texts = tiny.texts(400, seed=8)
    labels = [
        min((w for w in range(num_classes - 1) if tiny.WORDS[w] in text.split()), default=num_classes - 1)
        for text in texts
    ]
    return SklearnTeacher(fit(texts, labels, dimensions=12), "text", [f"class {i}" for i in range(num_classes)])


def test_what_is_like_a_teacher() -> None:
    assert isinstance(sklearn_teacher(), TeacherLike) and isinstance(runs.teacher(), TeacherLike)
    assert not isinstance(runs.teacher_model(), TeacherLike) and not isinstance("a/path", TeacherLike)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_example_gives_the_pipeline_s_probabilities(num_classes: int) -> None:
    texts = tiny.texts(400, seed=8)
    labels = [len(text) % num_classes for text in texts]
    pipeline = fit(texts, labels, dimensions=10)
    columns = SklearnTeacher(pipeline, "text", list("abc"[:num_classes]))({"text": texts})
    exponent = np.exp(columns["teacher_logits"])
    np.testing.assert_allclose(exponent / exponent.sum(1, keepdims=True), pipeline.predict_proba(texts), atol=1e-5)
    assert columns["teacher_embedding"].shape == (400, 10)


def test_its_fingerprint_tells_pipelines_apart() -> None:
    one, same, other = sklearn_teacher(), sklearn_teacher(), sklearn_teacher(3)
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize("head", ["subclass", "auxiliary"])
def test_it_teaches(head: str, tmp_path: Path) -> None:
    guide = sklearn_teacher()
    data = runs.data().remove_columns("label")
    answers = guide({"text": list(data["text"])})["teacher_logits"].argmax(-1)
    data = data.add_column("label", answers.tolist())
    args = runs.config(tmp_path, student_head=head, max_steps=60, optim="adamw_torch", learning_rate=0.01)
    run = runs.trainer(args, train_dataset=data, eval_dataset=data, teacher_model=guide, teacher_processing_class=None)
    assert run.projections is not None and run.projections.teacher == guide.head.fingerprint
    run.train()
    assert np.mean(runs.losses(run)[-5:]) < runs.losses(run)[0]
    run.save_model()
    assert run.model.config.id2label == {0: "class 0", 1: "class 1"}


def test_its_columns_are_kept(tmp_path: Path) -> None:
    guide, data = sklearn_teacher(), runs.data()
    first = teacher_columns(data, guide, tmp_path)

    class Silent(SklearnTeacher):
        def __call__(self, batch: dict) -> dict:
            raise AssertionError("the columns are there already")

    guide.__class__ = Silent
    assert teacher_columns(data, guide, tmp_path)[:] == first[:]


def test_by_hand() -> None:
    guide = sklearn_teacher()
    columns = runs.data().map(guide, batched=True)
    projections = ClassProjections.fit(columns, guide.head, 2)
    assert np.shape(columns.map(projections, batched=True)["teacher_projections"]) == (runs.ROWS, 2, 2)


def test_another_order_of_classes_is_refused(tmp_path: Path) -> None:
    guide = sklearn_teacher()
    guide.class_names = ["positive", "negative"]
    with pytest.raises(ValueError, match=r"A SklearnTeacher must give its logits and class_names in the data's order"):
        load_aligned_teacher(guide, None, runs.config(tmp_path), runs.data(), None)


def test_two_texts_for_the_teacher_and_one_for_the_student(tmp_path: Path) -> None:
    data = runs.data().rename_column("text", "title").add_column("body", tiny.texts(runs.ROWS, seed=6))
    args = runs.config(
        tmp_path,
        input_columns="title",
        teacher_input_columns=["title", "body"],
        teacher_max_length=9,
        max_length=5,
        check_teacher=False,
    )
    run = runs.trainer(args, "gpt2", train_dataset=data, eval_dataset=data.remove_columns("body"))
    both = Teacher(runs.teacher_model(), tiny.tokenizer(), input_columns=["title", "body"], max_length=9)
    expected = both({name: list(data[name]) for name in ("title", "body")})["teacher_logits"]
    np.testing.assert_allclose(run.train_dataset[:]["teacher_logits"], expected, atol=1e-5)
    # The teacher's tokenizer makes token_type_ids; the student's, of another vocabulary, makes none.
    assert {*run.train_dataset.column_names} == {
        *("input_ids", "attention_mask", "labels", "teacher_logits", "teacher_projections")
    }
    titles = tiny.tokenizer("gpt2")(list(data["title"]), truncation=True, max_length=5)["input_ids"]
    assert run.train_dataset[:]["input_ids"] == titles
    run.train()
    assert "eval_accuracy" in run.evaluate()


def test_any_linear_classifier_of_scikit_learn_will_do() -> None:
    features = np.random.default_rng(0).normal(size=(60, 3))
    pipeline = make_pipeline("passthrough", LogisticRegression()).fit(features, features[:, 0] > 0)
    guide = SklearnTeacher(pipeline, "features", ["no", "yes"])
    logits = guide({"features": features})["teacher_logits"]
    np.testing.assert_array_equal(logits.argmax(-1), pipeline.predict(features))
