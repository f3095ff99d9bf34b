"""A slice of reliability/coverage.py, and what it is built on: averaged final layers and logits under another name."""

import copy
import os
from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from benchmarks.reliability import coverage
from benchmarks.reliability.tiny_architectures import NUM_LABELS, random_inputs, tiny_model
from hf_lelp.classifiers import check_embedding, find_heads, headless, joint_layer, logits_of
from hf_lelp.student.heads import AuxiliaryHead, TwinHead, all_logits, place_student_head, student_head
from hf_lelp.student.loading import load_student

# Encoder, head that is an MLP, decoders (one a mixture of experts, one with linear attention), encoder-decoder.
TEXT = ["Bert", "Electra", "GPTNeo", "Mixtral", "Qwen3Next", "T5"]
SLICE = [
    *(("text", f"{name}ForSequenceClassification") for name in TEXT),
    ("image", "ConvNextForImageClassification"),
    ("image", "PPLCNetForImageClassification"),  # its logits have another name
    ("image", "PvtForImageClassification"),  # its configuration names no classes
    ("image", "ViTForImageClassification"),
    ("audio", "Wav2Vec2ForSequenceClassification"),
    ("audio", "WhisperForAudioClassification"),
    ("video", "VideoMAEForVideoClassification"),
]
UNCUT = {
    "ConvNextForImageClassification",
    "PPLCNetForImageClassification",
    "PvtForImageClassification",
}  # their layers stand in stages
TWO_HEADED = [
    "DeiTForImageClassificationWithTeacher",
    "LevitForImageClassificationWithTeacher",
    "SwiftFormerForImageClassification",
]


@pytest.mark.parametrize(("modality", "name"), SLICE)
def test_passes_every_check(modality: str, name: str) -> None:
    row = list(coverage.check(modality, name))[-1]
    assert row.problem == ""
    assert row.exact and row.half and row.trained == row.loaded == coverage.FORMS
    assert row.cut == (name not in UNCUT) and row.one_output


def two_headed(name: str) -> PreTrainedModel:
    """The model with two final layers that differ, biases too."""
    model = tiny_model(getattr(transformers, name)).eval()
    for head in find_heads(model, NUM_LABELS).values():
        torch.nn.init.normal_(head.bias)
    return model


@pytest.mark.parametrize("name", TWO_HEADED)
class TestTwoFinalLayers:
    @torch.inference_mode()
    def test_the_joint_layer_gives_the_logits(self, name: str) -> None:
        model = two_headed(name)
        heads, inputs = find_heads(model, NUM_LABELS), random_inputs(model)
        logits = model(**inputs).logits
        with headless(model, heads):
            embedding = model(**inputs).logits
        assert len(heads) == 2 and find_heads(model, NUM_LABELS) == heads
        assert embedding.shape[1] == sum(head.in_features for head in heads.values())
        rebuilt = torch.nn.functional.linear(embedding, *joint_layer(heads.values()))
        torch.testing.assert_close(rebuilt, logits, rtol=0, atol=1e-5)
        check_embedding(model, heads, embedding, inputs)

    def test_pseudo_subclasses_inside_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"{name} averages its final layers .* student_head='auxiliary'"):
            place_student_head(two_headed(name), 4, "subclass")

    def test_the_auxiliary_layer_sees_both_and_is_not_saved(self, name: str, tmp_path: Path) -> None:
        plain = two_headed(name)
        student, inputs = copy.deepcopy(plain), random_inputs(plain)
        place_student_head(student, 4, "auxiliary")
        head = student_head(student)
        assert isinstance(head, AuxiliaryHead) and sum(isinstance(part, TwinHead) for part in student.modules()) == 1
        with torch.inference_mode():
            expected = plain(**inputs).logits
            with all_logits(head):
                class_logits, subclass_logits = head.split(student(**inputs).logits)
        assert torch.equal(class_logits, expected) and torch.equal(student(**inputs).logits, expected)
        assert subclass_logits.shape == (len(expected), 4 * NUM_LABELS)
        with all_logits(head):
            student(**inputs).logits.square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())
        student.save_pretrained(tmp_path)
        loaded = load_student(str(tmp_path))
        assert loaded.state_dict().keys() == plain.state_dict().keys()
        assert torch.equal(loaded(**inputs).logits, expected)


def test_logits_under_another_name() -> None:
    model = tiny_model(transformers.PPLCNetForImageClassification).eval()
    outputs = model(**random_inputs(model))
    assert "logits" not in outputs and logits_of(outputs).shape == (4, NUM_LABELS)


def test_a_class_that_fails_or_crashes_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = coverage.isolated("text", "NoSuchForSequenceClassification")
    assert not row.runs and "NoSuchForSequenceClassification" in row.problem

    def crash(model_class: object) -> None:
        os._exit(3)

    monkeypatch.setattr(coverage, "tiny_model", crash)
    row = coverage.isolated("text", "BertForSequenceClassification")
    assert not row.exact and row.problem == "crashed"


def test_every_class_of_the_mappings_is_a_row() -> None:
    assert len({name for kind in coverage.MAPPINGS for name in coverage.classes(kind)}) >= 180
    rows = [coverage.Row("text", "A", runs=True, head="score", error=1e-7, exact=True, half=True, ended=True)]
    rows[0].trained = rows[0].loaded = coverage.FORMS
    rows.append(coverage.Row("image", "B", problem="needs a library"))
    text = coverage.table(rows)
    assert "| embedding exact | 1 | 0 | 1 (50.0%) |" in text
    assert "- **B** (image): needs a library." in text and "| text | A | score | 1e-07 | yes | yes | yes | no |" in text
