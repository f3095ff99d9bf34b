"""Static students: their vectors are the teacher's, and an answer is a mean that padding does not change."""

from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from datasets import Dataset

from hf_lelp import load_student
from hf_lelp.export.fidelity import class_logits
from hf_lelp.export.plain import plain_student
from hf_lelp.export.runtimes import save_int8, save_onnx, save_torch_export
from hf_lelp.making.static import COMMON, static_model, token_vectors
from hf_lelp.saved.saved_student import open_student
from hf_lelp.student.heads import place_student_head, student_head
from hf_lelp.student.modeling_lelp import StaticForSequenceClassification


def student(kind: str = "bert", subclasses: int = 1) -> StaticForSequenceClassification:
    torch.manual_seed(0)
    model = static_model(runs.teacher_model(kind), tiny.tokenizer(kind), 2, 16)
    place_student_head(model, subclasses, "subclass")
    return model.eval()


def test_the_vectors_are_those_of_the_encoder_turned_and_weighted() -> None:
    teacher, tokenizer = runs.teacher_model().eval(), tiny.tokenizer()
    vectors = token_vectors(teacher, tokenizer, 16)
    assert vectors.shape == (len(tokenizer), 16) and vectors.square().mean() == pytest.approx(1)
    assert not vectors[tokenizer.all_special_ids].any()
    words = torch.tensor([token for token in range(len(tokenizer)) if token not in tokenizer.all_special_ids])
    with torch.no_grad():
        alone = [teacher.base_model(torch.tensor([[2, int(word), 3]])).last_hidden_state[0, 1] for word in words]
        everything = [
            teacher.base_model(torch.tensor([[2, word, 3]])).last_hidden_state[0, 1] for word in range(len(tokenizer))
        ]
    # All directions are kept: but for the weight of each word and the scale, angles are those of the centred states.
    rank = 1 / (words + 2.0)
    weight = COMMON / (COMMON + rank / sum(1 / (token + 2) for token in range(len(tokenizer))))
    expected = (torch.stack(alone) - torch.stack(everything).mean(0)) * weight[:, None]
    found = vectors[words]
    scale = found.norm() / expected.norm()
    torch.testing.assert_close(found @ found.T, scale**2 * expected @ expected.T, rtol=1e-3, atol=1e-3)
    fewer = token_vectors(teacher, tokenizer, 4)
    assert fewer.shape == (len(tokenizer), 4)  # PCA: the leading ones


def test_a_teacher_without_special_tokens_and_one_that_trains() -> None:
    teacher = runs.teacher_model("gpt2").train()
    assert token_vectors(teacher, tiny.tokenizer("gpt2"), 500).shape == (len(tiny.tokenizer("gpt2")), 16)
    assert teacher.training


def test_an_answer_is_of_the_mean_and_padding_does_not_count() -> None:
    model, tokenizer = student(), tiny.tokenizer()
    together = runs.class_logits(model, ["good plot", "dull music bright film"], tokenizer)
    np.testing.assert_allclose(together[:1], runs.class_logits(model, ["good plot"], tokenizer), atol=1e-6)
    np.testing.assert_allclose(together[:1], runs.class_logits(model, ["plot good"], tokenizer), atol=1e-6)
    ids = torch.tensor([[4, 5]])
    assert model(ids, labels=torch.tensor([1])).loss > 0
    mean = model.vectors.weight[ids[0]].mean(0)
    by_hand = model.classifier(torch.nn.functional.gelu(model.dense(mean)))
    torch.testing.assert_close(model(ids).logits[0], by_hand)
    assert torch.isfinite(model(ids, attention_mask=torch.zeros_like(ids)).logits).all()


@pytest.mark.parametrize("subclasses", [1, 3])
def test_exports_to_every_runtime(subclasses: int, tmp_path: Path) -> None:
    model, tokenizer = student(subclasses=subclasses), tiny.tokenizer()
    inputs = [dict(tokenizer(tiny.texts(rows, seed=rows), padding=True, return_tensors="pt")) for rows in (1, 8)]
    for runtime in (
        save_torch_export(model, inputs, tmp_path / "model.pt2"),
        save_onnx(model, inputs, tmp_path / "model.onnx"),
    ):
        np.testing.assert_allclose(runtime.run(inputs), class_logits(model, inputs), atol=1e-5)
    assert save_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx").run(inputs).shape == (9, 2)


def test_its_plain_form_answers_alike_and_loads_again(tmp_path: Path) -> None:
    model, tokenizer = student(subclasses=3), tiny.tokenizer()
    with torch.no_grad():
        model.classifier.weight += 0.02 * torch.randn(model.classifier.weight.shape)
    train, held_out = (
        [dict(tokenizer(tiny.texts(rows, seed=rows), padding=True, return_tensors="pt"))] for rows in (200, 80)
    )
    plain, report = plain_student(model, train, held_out)
    assert report["agreement"] >= 0.98 and report["max_difference"] < 0.05
    plain.save_pretrained(tmp_path)
    loaded = load_student(tmp_path).eval()
    assert isinstance(loaded, StaticForSequenceClassification) and student_head(loaded) is None
    np.testing.assert_array_equal(class_logits(loaded, held_out), class_logits(plain, held_out))


def test_a_saved_one_is_not_given_images(tmp_path: Path) -> None:
    student().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    images = Dataset.from_dict({"text": tiny_media.pictures(3)})
    with pytest.raises(ValueError, match="in the text column 'text' where a string was expected"):
        open_student(str(tmp_path), ["text"], None, None).logits(images)
