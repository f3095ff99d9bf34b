"""Several teachers: their mean is again a linear head, each keeps its own columns, and their classes are matched."""

from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
import torch
from datasets import Dataset

from hf_lelp import Teacher, TeacherLike
from hf_lelp.cli.distill import DistillArguments, distill
from hf_lelp.making.start import new_student
from hf_lelp.making.static import token_vectors
from hf_lelp.teacher.class_order import load_aligned_teacher, model_of_teacher
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.kinds.combined import CombinedTeacher
from hf_lelp.teacher.kinds.fitting import mean_of_teachers
from hf_lelp.teacher.kinds.soft_labels import SoftLabels
from hf_lelp.teacher_pass import PassArguments, run_share

WEIGHTS = [3.0, 1.0]


def teachers(*names: list[str]) -> list[Teacher]:
    """Two teachers of other sizes and weights."""
    models = [tiny.classifier(hidden_size=size, seed=seed) for size, seed in ((16, 0), (8, 7))]
    named = [tiny.named(model, of) for model, of in zip(models, names or ([*tiny.LABEL_NAMES],) * 2, strict=True)]
    return [Teacher(model, tiny.tokenizer()) for model in named]


def test_the_mean_of_teachers_is_a_linear_head(tmp_path: Path) -> None:
    data, both = runs.data(50), teachers()
    whole = mean_of_teachers(both, data, WEIGHTS, tmp_path)
    assert isinstance(whole, TeacherLike) and whole.class_names == tiny.LABEL_NAMES
    columns = teacher_columns(data, whole, tmp_path).with_format("numpy")
    logits, embedding = np.asarray(columns["teacher_logits"][:]), np.asarray(columns["teacher_embedding"][:])
    of_each = [np.array(each(data[:])["teacher_logits"]) for each in both]
    np.testing.assert_allclose(logits, 0.75 * of_each[0] + 0.25 * of_each[1], atol=1e-5)
    np.testing.assert_allclose(embedding @ whole.head.weight.numpy().T + whole.head.bias.numpy(), logits, atol=1e-5)
    spreads = [embedding[:, :16].var(0).mean(), embedding[:, 16:].var(0).mean()]
    np.testing.assert_allclose(spreads, 1, rtol=1e-3)
    np.testing.assert_allclose(whole(data[:])["teacher_embedding"], embedding, atol=1e-5)


def test_each_teacher_keeps_its_columns_by_itself(tmp_path: Path) -> None:
    data, both = runs.data(50), teachers()
    teacher_columns(data, both[0], tmp_path)
    with runs.rows_seen(both[0].model) as first, runs.rows_seen(both[1].model) as second:
        teacher_columns(data, mean_of_teachers(both, data, None, tmp_path), tmp_path)
        assert sum(first) == 0 and sum(second) >= len(data)
        again = mean_of_teachers(both[::-1], data.shuffle(seed=1), [1, 2], tmp_path)
        teacher_columns(data.shuffle(seed=1), again, tmp_path)
        assert sum(first) == 0
    assert len([*(tmp_path / "teacher").iterdir()]) == 4  # two teachers, and two means of them


def test_classes_are_matched_by_name_or_refused(tmp_path: Path) -> None:
    data = runs.data(40)
    unnamed = Dataset.from_dict({"text": data["text"][:], "label": data["label"][:]})
    both = teachers(tiny.LABEL_NAMES, tiny.LABEL_NAMES[::-1])
    args = runs.config(tmp_path, check_teacher=False)
    for rows in (data, unnamed):
        whole, classes = load_aligned_teacher([*both], None, args, rows, None)
        assert whole is not None and classes.names == tiny.LABEL_NAMES
        second = np.array(both[1](rows[:])["teacher_logits"])[:, ::-1]
        first = np.array(both[0](rows[:])["teacher_logits"])
        np.testing.assert_allclose(whole(rows[:])["teacher_logits"], (first + second) / 2, atol=1e-5)
    with pytest.raises(ValueError, match="The teachers have other classes, or another order of them"):
        load_aligned_teacher([*teachers(tiny.LABEL_NAMES, ["cat", "dog"])], None, args, unnamed, None)
    three = Teacher(tiny.classifier(num_labels=3), tiny.tokenizer())
    with pytest.raises(ValueError, match="negative, positive; and 3 without names"):
        mean_of_teachers([both[0], three], unnamed)
    with pytest.raises(ValueError, match="as many positive numbers are needed"):
        mean_of_teachers(both[:1] * 2, unnamed, [1.0, 0.0], tmp_path)
    prepared = data.map(both[0], batched=True)
    with pytest.raises(ValueError, match="2 teachers are combined by their columns of raw rows"):
        load_aligned_teacher([*both], None, args, prepared, None)
    with pytest.raises(ValueError, match="pass a list with one for each"):
        load_aligned_teacher([each.model for each in both], tiny.tokenizer(), args, data, None)


def test_a_student_of_two_teachers_and_its_card(tmp_path: Path) -> None:
    models = [each.model for each in teachers()]
    run = runs.trained(
        tmp_path,
        arguments={"teacher_model": models, "teacher_processing_class": [tiny.tokenizer(), tiny.tokenizer()]},
        teacher_weights=WEIGHTS,
        check_teacher=False,
    )
    assert run.projections is not None and run.projections.mean.shape[-1] == 24 and np.isfinite(runs.losses(run)).all()
    card = str(run.student_card().render())
    assert "distilled from the mean of 2 teachers" in card and "(0.75); a BertForSequenceClassification" in card


def test_the_programs_take_several_teachers(tmp_path: Path) -> None:
    data = runs.data(48)
    data.to_json(tmp_path / "rows.json")
    for number, each in enumerate(teachers()):
        each.model.save_pretrained(tmp_path / str(number))
        each.processing_class.save_pretrained(tmp_path / str(number))
    names = [str(tmp_path / "0"), str(tmp_path / "1")]
    files = {"train_file": str(tmp_path / "rows.json"), "teacher_model": names, "student_model": "new:1x8"}
    args = runs.config(tmp_path, max_steps=1, check_teacher=False, fit_rows=40)
    run_share(PassArguments(**files), runs.config(tmp_path, check_teacher=False))
    results = distill(DistillArguments(method=["lelp"], **files), args)["results"]
    parameters = [sum(map(torch.numel, each.model.parameters())) for each in teachers()]
    assert results["teacher"]["parameters"] == sum(parameters)
    assert DistillArguments(**{**files, "teacher_model": names[:1]}).teacher_model == names[0]


@pytest.mark.parametrize("recipe", ["layers:1", "static"])
def test_a_student_is_made_of_the_first_teacher(tmp_path: Path, recipe: str) -> None:
    data, both = runs.data(40), teachers()
    arguments = {"model": recipe, "processing_class": None, "train_dataset": data, "teacher_processing_class": None}
    run = runs.trainer(runs.config(tmp_path, check_teacher=False), teacher_model=[*both], **arguments)
    student = run.model
    if recipe == "layers:1":
        assert student.config.hidden_size == 16
        runs.assert_same(
            *({k: v for k, v in runs.weights(each).items() if "bert" in k} for each in (student, both[0].model))
        )
    else:
        expected = token_vectors(both[0].model, tiny.tokenizer(), 256)
        torch.testing.assert_close(student.vectors.weight.detach(), expected)
    assert "of several, the first one" in str(run.student_card().render())
    answers = {"teacher_logits": [[0.0, 1.0]], "teacher_embedding": [[0.0, 1.0]]}
    soft = CombinedTeacher((SoftLabels(["scores"], "logits", 2),), lambda _: answers, both[0].head, tiny.LABEL_NAMES)
    with pytest.raises(ValueError, match="such a student is made of the teacher's own model, and no teacher"):
        new_student(recipe, 2, tiny.tokenizer(), lambda: model_of_teacher(soft))
