"""A teacher of one output is a classifier of two classes with the logits (0, z), if it is told or its config says"
" so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
from transformers import PreTrainedModel

from hf_lelp import LELPConfig, Teacher

SIGMOID = "torch.nn.modules.activation.Sigmoid"


def one_output() -> PreTrainedModel:
    return tiny.classifier(num_labels=1)


def test_its_logits_are_0_and_z(tmp_path: Path) -> None:
    rows, model = tiny.texts(20), one_output()
    teacher = Teacher(model, tiny.tokenizer(), activation="sigmoid")
    columns = teacher({"text": rows})
    z = runs.class_logits(model, rows, tiny.tokenizer())
    np.testing.assert_allclose(columns["teacher_logits"], np.concatenate([np.zeros_like(z), z], axis=1), atol=1e-5)
    linear = columns["teacher_embedding"] @ teacher.head.weight.numpy().T + teacher.head.bias.numpy()
    np.testing.assert_allclose(linear, columns["teacher_logits"], atol=1e-5)
    assert teacher.class_names is None and teacher.num_classes == 2 and not teacher.head.weight[0].any()
    swapped = teacher.reordered([1, 0])
    np.testing.assert_allclose(swapped({"text": rows})["teacher_logits"], columns["teacher_logits"][:, ::-1], atol=1e-5)
    assert swapped.fingerprint != teacher.fingerprint


@pytest.mark.parametrize(
    "entries",
    [
        {"sentence_transformers": {"activation_fn": SIGMOID}},
        {"sbert_ce_default_activation_function": SIGMOID},
        {"problem_type": "multi_label_classification"},
    ],
)
def test_its_configuration_may_say_so(entries: dict[str, Any]) -> None:
    model = one_output()
    for name, value in entries.items():
        setattr(model.config, name, value)
    assert Teacher(model, tiny.tokenizer()).one_output


def test_it_must_be_told_otherwise() -> None:
    model = one_output()
    with pytest.raises(ValueError, match=r"its activation is not named\. If its one output is the logit of a yes"):
        Teacher(model, tiny.tokenizer())
    model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    with pytest.raises(ValueError, match="its activation is identity"):
        Teacher(model, tiny.tokenizer())
    with pytest.raises(ValueError, match="of a teacher with one output, and this one has 2"):
        Teacher(tiny.classifier(), tiny.tokenizer(), activation="sigmoid")
    with pytest.raises(ValueError, match="'sigmoid', or leave it out"):
        LELPConfig(output_dir="out", teacher_activation="tanh")


def test_a_student_learns_from_it_and_its_card_says_so(tmp_path: Path) -> None:
    model = one_output()
    data = runs.data()
    z = runs.class_logits(model, data["text"][:], tiny.tokenizer())[:, 0]
    model.classifier.bias.data -= float(np.median(z))  # so that both classes are there
    data = data.remove_columns("label").add_column("label", (z > np.median(z)).astype(int).tolist())
    run = runs.trained(
        tmp_path, arguments={"teacher_model": model, "train_dataset": data}, teacher_activation="sigmoid"
    )
    assert run.projections is not None and np.isfinite(runs.losses(run)).all()
    assert "one, z: two classes with the logits 0 and z" in str(run.student_card().render())
