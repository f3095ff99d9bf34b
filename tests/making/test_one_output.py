"""One output and back: the same probabilities, and a configuration that says what the output is."""

from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
from scipy.special import expit, softmax
from transformers import AutoModelForSequenceClassification

from hf_lelp import Teacher
from hf_lelp.making.one_output import SIGMOID, with_one_output, with_two_outputs


def test_a_student_of_two_classes_is_saved_with_one_output(tmp_path: Path) -> None:
    rows = tiny.texts(20)
    run = runs.trained(tmp_path, student_head="auxiliary")
    run.save_model(str(tmp_path / "student"))
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    with_one_output(student).save_pretrained(tmp_path / "one")
    one = AutoModelForSequenceClassification.from_pretrained(tmp_path / "one")
    z = runs.class_logits(one, rows, tiny.tokenizer())
    two = runs.class_logits(student, rows, tiny.tokenizer())
    assert z.shape == (20, 1) and one.config.num_labels == 1 and student.config.num_labels == 2
    np.testing.assert_allclose(expit(z[:, 0]), softmax(two, axis=1)[:, 1], atol=1e-5)
    logits = Teacher(one, tiny.tokenizer())({"text": rows})["teacher_logits"]  # its configuration says what it is
    np.testing.assert_allclose(softmax(logits, axis=1), softmax(two, axis=1), atol=1e-5)


def test_a_model_of_one_output_can_start_a_student(tmp_path: Path) -> None:
    rows, model = tiny.texts(20), tiny.classifier(num_labels=1)
    model.config.sentence_transformers = {"activation_fn": SIGMOID}
    z = runs.class_logits(model, rows, tiny.tokenizer())
    two = with_two_outputs(model)
    expected = np.concatenate([np.zeros_like(z), z], axis=1)
    np.testing.assert_allclose(runs.class_logits(two, rows, tiny.tokenizer()), expected, atol=1e-5)
    np.testing.assert_allclose(runs.class_logits(with_one_output(two), rows, tiny.tokenizer()), z, atol=1e-5)
    assert "sentence_transformers" not in two.config.to_dict()
    run = runs.trained(tmp_path, arguments={"model": two})
    assert np.isfinite(runs.losses(run)).all()
    with pytest.raises(
        ValueError,
        match="2 classes and a head of pseudo-subclasses: a plain student of two classes can have one output",
    ):
        with_one_output(run.model)
    with pytest.raises(ValueError, match="has 3 outputs; one is expected"):
        with_two_outputs(tiny.classifier(num_labels=3))


@pytest.mark.parametrize("name", ["layers:1", "static"])
def test_a_student_is_made_of_a_teacher_of_one_output(name: str, tmp_path: Path) -> None:
    teacher = tiny.classifier(num_labels=1)
    teacher.save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    named = {"model": name, "processing_class": None, "teacher_model": str(tmp_path / "teacher")}
    args = runs.config(tmp_path, alpha=1.0, teacher_activation="sigmoid")  # nothing else says what its output is
    student = runs.trainer(args, teacher_processing_class=None, **named).model
    assert student.config.num_labels == 2
    if name == "layers:1":  # of one layer: the teacher itself
        z = runs.class_logits(teacher, tiny.texts(5), tiny.tokenizer())
        found = runs.class_logits(student, tiny.texts(5), tiny.tokenizer())
        np.testing.assert_allclose(found, np.concatenate([np.zeros_like(z), z], axis=1), atol=1e-6)
