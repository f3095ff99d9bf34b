"""Teacher: what it computes, whatever the batches, and when two teachers are the same one."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from datasets import Dataset
from transformers import BertForSequenceClassification, BertModel, CLIPVisionConfig, PreTrainedModel

from hf_lelp import Teacher
from hf_lelp.classifiers import auto_class, class_names

KINDS = ("bert", "gpt2", "llama")


def one_by_one(model: PreTrainedModel, kind: str, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embedding of each text alone: no padding, no batches, the embedding caught at the layer's input."""
    head = model.classifier if kind == "bert" else model.score
    caught: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    processing_class = tiny.tokenizer(kind)
    with torch.no_grad():
        logits = [model.eval()(**processing_class(text, return_tensors="pt")).logits[0] for text in texts]
    hook.remove()
    # A decoder's layer reads every token; the last one is what counts.
    embedding = [hidden[0] if kind == "bert" else hidden[0, -1] for hidden in caught]
    return torch.stack(logits).numpy(), torch.stack(embedding).numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_rows_are_those_of_each_text_alone_in_their_order(kind: str, batch_size: int) -> None:
    model, texts = runs.teacher_model(kind), tiny.texts(30, seed=4)
    logits, embedding = one_by_one(copy.deepcopy(model), kind, texts)
    columns = Teacher(model, tiny.tokenizer(kind), batch_size=batch_size)({"text": texts})
    assert columns["teacher_logits"].dtype == columns["teacher_embedding"].dtype == np.float32
    np.testing.assert_allclose(columns["teacher_logits"], logits, atol=1e-5)
    np.testing.assert_allclose(columns["teacher_embedding"], embedding, atol=1e-5)


def test_in_map_it_adds_columns() -> None:
    raw, guide = runs.data(50), runs.teacher()
    mapped = raw.map(guide, batched=True, batch_size=16)
    whole = guide({"text": list(raw["text"])})
    assert {"text", "label", "teacher_logits", "teacher_embedding"} <= {*mapped.column_names}
    np.testing.assert_allclose(mapped[:]["teacher_logits"], whole["teacher_logits"], atol=1e-5)
    np.testing.assert_allclose(mapped[:]["teacher_embedding"], whole["teacher_embedding"], atol=1e-5)
    assert list(mapped["text"]) == list(raw["text"])


def test_the_head_gives_the_logits() -> None:
    for kind in KINDS:
        guide = runs.teacher(kind, class_order=[1, 0])
        columns = guide({"text": tiny.texts(10)})
        rebuilt = columns["teacher_embedding"] @ guide.head.weight.numpy().T + guide.head.bias.numpy()
        np.testing.assert_allclose(columns["teacher_logits"], rebuilt, atol=1e-5)


def test_little_is_spent_on_padding() -> None:
    model, texts = runs.teacher_model(), tiny.texts(64, longest=30)
    widths: list[int] = []
    guide = Teacher(model, tiny.tokenizer(), batch_size=8)
    guide({"text": texts[:1]})  # the first call checks the embedding with a pass more
    model.register_forward_pre_hook(
        lambda _, args, inputs: widths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    guide({"text": texts})
    lengths = sorted((len(text.split()) + 2 for text in texts), reverse=True)
    assert widths == lengths[::8]


def test_the_embedding_is_checked_once_and_on_two_rows() -> None:
    model, texts = runs.teacher_model(), {"text": tiny.texts(16)}
    sizes: list[int] = []
    guide = Teacher(model, tiny.tokenizer(), batch_size=8)
    model.register_forward_pre_hook(lambda _, args, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True)
    guide(texts)
    guide(texts)
    assert sizes == [8, 2, 8, 8, 8]


def test_the_model_is_left_as_it_was() -> None:
    model = runs.teacher_model()
    before, head = runs.weights(model), model.classifier
    guide = Teacher(model.train(), tiny.tokenizer())
    guide({"text": tiny.texts(5)})
    assert model.classifier is head and not model.training
    runs.assert_same(runs.weights(model), before)
    with pytest.raises(KeyError, match="text"):
        guide({"body": ["good"]})
    assert model.classifier is head


def test_class_order() -> None:
    texts = {"text": tiny.texts(9)}
    model = tiny.named(tiny.classifier(num_labels=3), ["a", "b", "c"])
    plain = Teacher(model, tiny.tokenizer())
    ordered = Teacher(model, tiny.tokenizer(), class_order=[2, 0, 1])
    assert (plain.class_names, ordered.class_names) == (["a", "b", "c"], ["c", "a", "b"])
    assert ordered.head.weight.equal(plain.head.weight[[2, 0, 1]]) and ordered.head.bias.equal(
        plain.head.bias[[2, 0, 1]]
    )
    logits = plain(texts)["teacher_logits"]
    np.testing.assert_allclose(ordered(texts)["teacher_logits"], logits[:, [2, 0, 1]], atol=1e-6)
    again = ordered.reordered([1, 2, 0])
    assert again.class_names == ["a", "b", "c"] and again.fingerprint == plain.fingerprint
    np.testing.assert_allclose(again(texts)["teacher_logits"], logits, atol=1e-6)
    for wrong in ([0, 1], [0, 0, 1], [1, 2, 3]):
        with pytest.raises(ValueError, match=r"no permutation of the teacher's 3 classes: it must hold each of 0 to 2"):
            Teacher(model, tiny.tokenizer(), class_order=wrong)


def test_names_by_default_are_no_names() -> None:
    assert class_names(tiny.classifier().config) is None
    config = tiny.classifier().config
    config.id2label = None  # as PVT has it
    assert class_names(config) is None
    assert runs.teacher().class_names == tiny.LABEL_NAMES
    assert Teacher(tiny.classifier(), tiny.tokenizer()).class_names is None


def test_two_text_columns_and_truncation() -> None:
    one, other = tiny.texts(6, seed=1), tiny.texts(6, seed=2)
    model = runs.teacher_model()
    guide = Teacher(model, tiny.tokenizer(), input_columns=["a", "b"], max_length=6)
    columns = guide({"a": one, "b": other})
    inputs = tiny.tokenizer()(one, other, padding=True, truncation=True, max_length=6, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    assert inputs["input_ids"].shape[1] == 6
    np.testing.assert_allclose(columns["teacher_logits"], expected, atol=1e-5)
    with pytest.raises(ValueError, match="max_length=65, but model and tokenizer take 64 tokens at most"):
        Teacher(model, tiny.tokenizer(), max_length=65)
    long = Teacher(model, tiny.tokenizer())({"text": ["good " * 100]})  # cut to the positions that there are
    assert np.isfinite(long["teacher_logits"]).all()


def save(folder: Path, dtype: torch.dtype = torch.float32, kind: str = "bert") -> str:
    runs.teacher_model(kind).to(dtype).save_pretrained(folder)
    tiny.tokenizer(kind).save_pretrained(folder)
    return str(folder)


def test_from_pretrained(tmp_path: Path) -> None:
    texts = {"text": tiny.texts(8)}
    expected = runs.teacher()(texts)
    loaded = Teacher.from_pretrained(save(tmp_path / "full"), batch_size=3)
    assert loaded.batch_size == 3 and loaded.class_names == tiny.LABEL_NAMES
    np.testing.assert_allclose(loaded(texts)["teacher_logits"], expected["teacher_logits"], atol=1e-5)

    path = save(tmp_path / "half", torch.bfloat16)
    half = Teacher.from_pretrained(path)
    assert half.model.dtype == torch.bfloat16
    assert Teacher.from_pretrained(path, dtype="float32").model.dtype == torch.float32
    columns = half(texts)
    assert columns["teacher_logits"].dtype == columns["teacher_embedding"].dtype == np.float32
    np.testing.assert_allclose(columns["teacher_logits"], expected["teacher_logits"], atol=0.2)


def test_a_checkpoint_without_trained_head_is_refused(tmp_path: Path) -> None:
    BertModel(runs.teacher_model().config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no weights for classifier\.bias, classifier\.weight: they would be random"):
        Teacher.from_pretrained(str(tmp_path), tiny.tokenizer())


class Scaled(BertForSequenceClassification):
    """A model that does more after its last linear layer."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        if outputs.logits.shape[-1] == self.config.num_labels:
            outputs.logits = outputs.logits * 3
        return outputs


def test_a_model_that_does_more_after_its_last_layer_is_refused() -> None:
    guide = Teacher(Scaled(runs.teacher_model().config), tiny.tokenizer())
    with pytest.raises(
        ValueError, match="'classifier' applied to the captured embedding does not give the model's logits"
    ):
        guide({"text": tiny.texts(4)})


def test_a_configuration_of_no_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match=r"No classification model for .*AutoModelForSequenceClassification"):
        auto_class(CLIPVisionConfig())


def other_weights(guide: Teacher) -> Teacher:
    model = copy.deepcopy(guide.model)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[5, 0] += 1e-3
    return Teacher(model, tiny.tokenizer())


def other_tokenizer(guide: Teacher) -> Teacher:
    processing_class = tiny.tokenizer()
    processing_class.add_tokens(["splendid"])
    return Teacher(guide.model, processing_class)


@pytest.mark.parametrize(
    ("change", "same_model"),
    [
        (other_weights, False),
        (lambda guide: Teacher(copy.deepcopy(guide.model).bfloat16(), tiny.tokenizer()), False),
        (lambda guide: Teacher(guide.model, tiny.tokenizer(), class_order=[1, 0]), False),
        (other_tokenizer, True),
        (lambda guide: Teacher(guide.model, tiny.tokenizer(), max_length=12), True),
        (lambda guide: Teacher(guide.model, tiny.tokenizer(), input_columns=["body"]), True),
    ],
)
def test_what_changes_results_changes_the_fingerprint(change: Callable[[Teacher], Teacher], same_model: bool) -> None:
    guide = runs.teacher()
    other = change(guide)
    assert other.fingerprint != guide.fingerprint
    assert (other.head.fingerprint == guide.head.fingerprint) == same_model


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_change_results_leaves_the_fingerprint(kind: str, tmp_path: Path) -> None:
    guide = runs.teacher(kind)
    expected = (guide.fingerprint, guide.head.fingerprint)
    used = runs.teacher(kind, batch_size=3)
    used({"text": tiny.texts(5)})
    used.processing_class(["good bad"] * 2, padding=True, truncation=True, max_length=5)
    renamed = tiny.named(runs.teacher_model(kind), ["no", "yes"])
    loaded = Teacher.from_pretrained(save(tmp_path / "one", kind=kind))
    loaded.model.save_pretrained(tmp_path / "two")
    loaded.processing_class.save_pretrained(tmp_path / "two")
    same = [
        Teacher(used.model, used.processing_class, batch_size=5),
        Teacher(renamed, tiny.tokenizer(kind)),
        loaded,
        Teacher.from_pretrained(str(tmp_path / "two")),
    ]
    assert {(other.fingerprint, other.head.fingerprint) for other in same} == {expected}


def test_a_decoder_without_padding_token_pads_with_its_end_token() -> None:
    model, processing_class = runs.teacher_model("llama"), tiny.tokenizer("llama")
    assert processing_class.pad_token is None
    guide = Teacher(model, processing_class)
    assert guide.processing_class.pad_token == "</s>" and model.config.pad_token_id == 1
    mapped = Dataset.from_dict({"text": ["good", "good bad fine awful"]}).map(guide, batched=True)
    alone = guide({"text": ["good"]})["teacher_logits"]
    np.testing.assert_allclose(mapped[:1]["teacher_logits"], alone, atol=1e-5)
