"""The final linear layer of tiny models of five architectures: found, taken out, put back, and checked."""

from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hf_lelp.classifiers import check_embedding, class_names, find_heads, headless, replace_module

HEAD_NAMES = {
    "bert": "classifier",
    "gpt2": "score",
    "llama": "score",
    "distilbert": "classifier",
    "roberta": "classifier.out_proj",
}
WITHOUT_BIAS = {"gpt2", "llama"}
PAD = 1


def model_of(kind: str, num_labels: int = 3) -> PreTrainedModel:
    """A tiny classifier of the architecture in evaluation mode, with a padding token."""
    torch.manual_seed(0)
    shared = {"vocab_size": 20, "num_labels": num_labels, "pad_token_id": PAD, "initializer_range": 0.5}
    model: PreTrainedModel
    if kind == "distilbert":
        model = DistilBertForSequenceClassification(
            DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=64, **shared)
        )
    elif kind == "roberta":
        model = RobertaForSequenceClassification(
            RobertaConfig(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=64,
                **shared,
            )
        )
    else:
        model = tiny.classifier(kind, num_labels=num_labels)
        model.config.pad_token_id = PAD
    with torch.no_grad():
        for parameter in model.get_submodule(HEAD_NAMES[kind]).parameters():
            parameter.normal_()  # a bias of zero would hide one that is dropped
    return model.eval()


def inputs_of(lengths: list[int], longest: int | None = None) -> dict[str, Tensor]:
    """Random tokens, padded on the right to the longest."""
    generator = torch.Generator().manual_seed(1)
    longest = longest or max(lengths)
    ids = torch.randint(4, 20, (len(lengths), longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.where(mask == 1, ids, PAD), "attention_mask": mask}


@torch.inference_mode()
def embed(model: PreTrainedModel, name: str, inputs: dict[str, Tensor]) -> Tensor:
    with headless(model, [name]):
        return model(**inputs).logits


@pytest.mark.parametrize("kind", HEAD_NAMES)
class TestEveryArchitecture:
    def test_finds_the_layer(self, kind: str) -> None:
        model = model_of(kind)
        ((name, layer),) = find_heads(model, 3).items()
        assert name == HEAD_NAMES[kind]
        assert layer is model.get_submodule(name)
        assert layer.weight.shape == (3, 16)
        assert (layer.bias is None) == (kind in WITHOUT_BIAS)

    @pytest.mark.parametrize("lengths", [[9], [5, 9, 1, 7]], ids=["one", "padded"])
    @torch.inference_mode()
    def test_the_embedding_gives_the_models_logits(self, kind: str, lengths: list[int]) -> None:
        model, inputs = model_of(kind), inputs_of(lengths)
        logits = model(**inputs).logits
        ((name, layer),) = find_heads(model, 3).items()
        embedding = embed(model, name, inputs)
        assert embedding.shape == (len(lengths), 16)
        rebuilt = embedding @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        torch.testing.assert_close(rebuilt, logits, rtol=0, atol=1e-5)
        check_embedding(model, [name], embedding, inputs)

    def test_padding_does_not_change_the_embedding(self, kind: str) -> None:
        model, inputs = model_of(kind), inputs_of([5, 9, 1, 7])
        whole = embed(model, HEAD_NAMES[kind], inputs)
        for row, length in enumerate([5, 9, 1, 7]):
            alone = {name: values[row : row + 1, :length] for name, values in inputs.items()}
            torch.testing.assert_close(embed(model, HEAD_NAMES[kind], alone)[0], whole[row], rtol=0, atol=1e-5)

    def test_the_layer_is_put_back(self, kind: str) -> None:
        model, name = model_of(kind), HEAD_NAMES[kind]
        layer = model.get_submodule(name)
        with pytest.raises(KeyboardInterrupt), headless(model, [name]):
            assert isinstance(model.get_submodule(name), nn.Identity)
            raise KeyboardInterrupt
        assert model.get_submodule(name) is layer


def test_a_hidden_layer_of_the_same_width_is_not_the_head() -> None:
    assert list(find_heads(model_of("roberta", num_labels=16), 16)) == ["classifier.out_proj"]


class NeedsMore(BertForSequenceClassification):
    """A classifier that cannot answer an example, with a second layer of the size of its last."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.other = nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, more: Tensor) -> Tensor:
        return self.classifier(self.bert(input_ids).pooler_output) + self.other(more)


def test_where_no_example_tells_layers_of_one_shape_count() -> None:
    model = NeedsMore(tiny.classifier("bert", num_labels=3).config).train()
    assert list(find_heads(model, 3)) == ["classifier", "other"]
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_replace_module() -> None:
    model, layer = model_of("roberta"), nn.Linear(16, 5)
    replace_module(model, "classifier.out_proj", layer)
    assert model.classifier.out_proj is layer
    assert model(**inputs_of([3])).logits.shape == (1, 5)


def test_no_layer_with_an_output_per_class() -> None:
    with pytest.raises(
        ValueError, match=r"with 7 outputs in BertForSequenceClassification; .*classifier \(3 outputs\)"
    ):
        find_heads(model_of("bert"), 7)


def test_no_linear_layer_at_all() -> None:
    with pytest.raises(ValueError, match=r"in Conv1d; its last ones: none\."):
        find_heads(nn.Conv1d(4, 2, 1), 2)


class ScalesItsLogits(BertForSequenceClassification):
    """A classifier that does more after its last linear layer."""

    scale = 1.5

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits * self.scale
        return outputs


class AddsAColumn(BertForSequenceClassification):
    """A classifier with another number of logits than its last linear layer gives."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = torch.nn.functional.pad(outputs.logits, (0, 1))
        return outputs


@pytest.mark.parametrize("model_class", [ScalesItsLogits, AddsAColumn])
def test_a_model_that_does_more_after_its_last_layer_is_refused(model_class: type[PreTrainedModel]) -> None:
    model = model_class(tiny.classifier("bert", num_labels=3).config).eval()
    # Without a bias the scaled embedding gives the scaled logits, and nothing is wrong.
    torch.nn.init.ones_(model.classifier.bias)
    inputs = inputs_of([5, 3])
    embedding = embed(model, "classifier", inputs)[:, :16]
    with pytest.raises(ValueError, match=f"{model_class.__name__}: its layer 'classifier' .* does more after"):
        check_embedding(model, ["classifier"], embedding, inputs)


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    model, inputs = model_of("bert"), inputs_of([5, 3])
    embedding = embed(model, "classifier", inputs).clone()
    embedding[1, 2] = torch.nan
    with pytest.raises(ValueError, match="largest difference nan"):
        check_embedding(model, ["classifier"], embedding, inputs)


def test_half_precision_passes() -> None:
    model, inputs = model_of("bert").to(torch.bfloat16), inputs_of([5, 3])
    check_embedding(model, ["classifier"], embed(model, "classifier", inputs), inputs)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({0: "no", 1: "yes"}, ["no", "yes"]),
        ({1: "yes", 0: "no"}, ["no", "yes"]),
        ({"0": "no", "1": "yes"}, ["no", "yes"]),
        (["no", "yes"], ["no", "yes"]),
        ({0: 1, 1: 2}, ["1", "2"]),
        ({0: False, 1: True}, ["False", "True"]),
        ({0: "0", 1: "1"}, None),
        ({0: 0, 1: 1}, None),
        ({0: "LABEL_0", 1: "LABEL_1"}, None),
    ],
)
def test_names_of_classes_however_they_are_written(given: Any, names: list[str] | None) -> None:
    config = tiny.classifier().config
    config.id2label = given
    assert class_names(config) == names


def test_label2id_alone_names_the_classes() -> None:
    config = tiny.classifier().config
    config.label2id = {"yes": 1, "no": 0}
    assert class_names(config) == ["no", "yes"]
    config.label2id = {"yes": 1}
    assert class_names(config) is None


@pytest.mark.parametrize("given", [{1: "no", 2: "yes"}, {0: "no", 5: "yes"}, {"no": 0, "yes": 1}])
def test_classes_that_are_not_numbered_from_0_are_refused(given: Any) -> None:
    config = tiny.classifier().config
    config.id2label = given
    with pytest.raises(ValueError, match=r"id2label has the keys .*, and 2 classes are numbered 0 to 1"):
        class_names(config)
