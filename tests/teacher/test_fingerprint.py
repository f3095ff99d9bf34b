"""Teachers that answer otherwise have other fingerprints, and the same teacher has the same one."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp import Teacher
from hf_lelp.classifiers import find_heads

peft = pytest.importorskip("peft")

TEXTS = [f"{one} {other}" for one, other in zip(tiny.texts(6, seed=7), tiny.texts(6, seed=8), strict=True)]


def scale(model: Any) -> None:
    for module in model.modules():
        if isinstance(vars(module).get("scaling"), dict):
            module.scaling["a"] = 3.0


# Changes of a tokenizer after it was loaded.
TOKENIZER: dict[str, Callable[[Any], None]] = {
    "truncation side": lambda tokens: setattr(tokens, "truncation_side", "left"),
    "padding side": lambda tokens: setattr(tokens, "padding_side", "left"),
    "inputs": lambda tokens: setattr(tokens, "model_input_names", ["input_ids", "attention_mask"]),
    "a word": lambda tokens: tokens.add_tokens(["good movie"]),
    "its name": lambda tokens: setattr(tokens, "name_or_path", "elsewhere"),
}
# Changes of a model with two adapters, after it was loaded.
MODEL: dict[str, Callable[[Any], None]] = {
    "the other adapter": lambda model: model.set_adapter("b"),
    "no adapter": lambda model: model.base_model.disable_adapter_layers(),
    "louder": scale,
    "a weight": lambda model: next(model.parameters()).data.mul_(1.5),
    "its name": lambda model: setattr(model.config, "_name_or_path", "elsewhere"),
}


def with_adapters() -> PreTrainedModel:
    torch.manual_seed(0)
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False)
    model = peft.get_peft_model(runs.teacher_model(), lora, adapter_name="a")
    model.add_adapter("b", lora)
    for number, copy in enumerate(model.base_model.model.classifier.modules_to_save.values()):
        torch.nn.init.normal_(copy.weight, generator=torch.Generator().manual_seed(number))
    model.set_adapter("a")
    return model


def changed(of_tokenizer: set[str], of_model: set[str]) -> Teacher:
    tokens: PreTrainedTokenizerBase = tiny.tokenizer()
    model = with_adapters()
    for name in sorted(of_tokenizer):
        TOKENIZER[name](tokens)
    for name in sorted(of_model):
        MODEL[name](model)
    return Teacher(model, tokens, max_length=8)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sets(st.sampled_from([*TOKENIZER])), st.sets(st.sampled_from([*MODEL])))
def test_other_answers_have_another_fingerprint(of_tokenizer: set[str], of_model: set[str]) -> None:
    plain, other, again = changed(set(), set()), changed(of_tokenizer, of_model), changed(of_tokenizer, of_model)
    assert (other.fingerprint, other.head.fingerprint) == (again.fingerprint, again.head.fingerprint)
    answers = [guide({"text": TEXTS}) for guide in (plain, other)]
    columns = ("teacher_logits", "teacher_embedding")
    if max(np.abs(answers[0][name] - answers[1][name]).max() for name in columns) > 1e-5:
        assert plain.fingerprint != other.fingerprint
    # A final layer belongs to a model, whatever its tokenizer.
    if of_model - {"its name"}:
        assert plain.head.fingerprint != other.head.fingerprint
    if not of_model - {"its name"}:
        assert plain.head.fingerprint == other.head.fingerprint
    if not (of_model | of_tokenizer) - {"its name"}:
        assert plain.fingerprint == other.fingerprint


def test_an_adapter_of_the_same_weights_that_is_louder() -> None:
    def of(alpha: int) -> Teacher:
        torch.manual_seed(0)
        lora = peft.LoraConfig(
            task_type="SEQ_CLS", r=2, lora_alpha=alpha, target_modules=["query"], init_lora_weights=False
        )
        return Teacher(peft.get_peft_model(runs.teacher_model(), lora), tiny.tokenizer())

    assert of(8).fingerprint == of(8).fingerprint != of(16).fingerprint


@pytest.mark.parametrize("adapter", ["a", "b"])
def test_the_final_layer_is_that_of_the_adapter_in_use(adapter: str) -> None:
    model: Any = with_adapters()
    model.set_adapter(adapter)
    assert list(find_heads(model, 2)) == [f"base_model.model.classifier.modules_to_save.{adapter}"]
    answers = Teacher(model, tiny.tokenizer())({"text": TEXTS})
    np.testing.assert_allclose(answers["teacher_logits"], runs.class_logits(model, TEXTS, tiny.tokenizer()), atol=1e-5)
    model.base_model.disable_adapter_layers()
    assert list(find_heads(model, 2)) == ["base_model.model.classifier.original_module"]


def test_fingerprints_of_earlier_versions_are_the_same() -> None:
    """Columns and projections that were made before are found."""
    model = tiny.classifier("gpt2")
    with torch.no_grad():
        for parameter in model.parameters():  # whatever this machine draws
            parameter.copy_(torch.arange(parameter.numel()).view(parameter.shape) % 7)
    guide = Teacher(model, tiny.tokenizer("gpt2"), max_length=9)
    assert guide.fingerprint == "7f7333d086aaecde8fee342b5dd734c2"


@pytest.mark.parametrize("side", ["truncation_side", "padding_side"])
def test_a_call_of_the_tokenizer_hides_no_side(side: str) -> None:
    found = {}
    for value in ("right", "left"):
        tokens: PreTrainedTokenizerBase = tiny.tokenizer()
        setattr(tokens, side, value)
        model = runs.teacher_model()
        new = Teacher(model, deepcopy(tokens), max_length=8).fingerprint
        tokens(TEXTS, truncation=True, max_length=8, padding=True)
        found[value] = Teacher(model, tokens, max_length=8).fingerprint
        assert found[value] == new
    # Where the model counts positions, padding is put on the right anyway.
    assert (found["left"] == found["right"]) == (side == "padding_side")
