"""A model cut by its layers is the teacher without the others: compared with the teacher, its own layers taken out."""

import copy
from typing import Any

import pytest
import tiny
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPForImageClassification,
    PreTrainedModel,
    T5Config,
    T5ForSequenceClassification,
)

from hf_lelp.making.layers import chosen_layers, cut_model, number_of_layers


def bert(layers: int = 4) -> PreTrainedModel:
    config = tiny.classifier().config
    config.num_hidden_layers = layers
    torch.manual_seed(2)
    return BertForSequenceClassification(config).eval()


@torch.inference_mode()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(**tiny.tokenizer()(["good movie", "bad"], padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("layers", [[0, 3], [2], [1, 2, 3], [0, 1, 2, 3]])
def test_the_others_are_left_out_and_the_rest_is_the_teacher_s(layers: list[int]) -> None:
    teacher = bert()
    by_hand: Any = copy.deepcopy(teacher)
    by_hand.bert.encoder.layer = nn.ModuleList([by_hand.bert.encoder.layer[number] for number in layers])
    model = cut_model(teacher, layers)
    assert torch.equal(logits(model), logits(by_hand))
    assert model.config.num_hidden_layers == len(layers) and number_of_layers(teacher) == 4
    model.bert.pooler.dense.weight.data.zero_()
    assert teacher.bert.pooler.dense.weight.any()  # the teacher's weights are copied


def test_bfloat16_becomes_float32() -> None:
    model = cut_model(bert().bfloat16(), [0])
    assert model.dtype == torch.float32 and logits(model).dtype == torch.float32


def test_layers_are_chosen_evenly() -> None:
    chosen = {argument: chosen_layers(argument, 6) for argument in ("1", "2", "3", "6", "0,3,5", "2,")}
    assert chosen == {"1": [0], "2": [0, 5], "3": [0, 2, 5], "6": [0, 1, 2, 3, 4, 5], "0,3,5": [0, 3, 5], "2,": [2]}


def test_an_encoder_and_a_decoder_of_the_same_size_are_cut_alike() -> None:
    sizes: dict[str, Any] = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 3}
    for decoder_layers, left in ((3, 2), (1, 1)):
        config = BartConfig(**sizes, **heads, decoder_layers=decoder_layers, max_position_embeddings=32)
        model: Any = cut_model(BartForSequenceClassification(config), [0, 2])
        assert (len(model.model.encoder.layers), len(model.model.decoder.layers)) == (2, left)


def test_only_the_part_that_the_model_has_is_cut() -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = CLIPConfig(
        text_config={**sizes, "num_hidden_layers": 5, "vocab_size": 32},
        vision_config={**sizes, "num_hidden_layers": 3, "image_size": 8, "patch_size": 4},
        num_labels=2,
    )
    teacher = CLIPForImageClassification(config)
    model = cut_model(teacher, chosen_layers("2", number_of_layers(teacher)))
    assert model.config.vision_config.num_hidden_layers == 2 and model.config.text_config.num_hidden_layers == 5


def test_what_cannot_be_cut_says_so() -> None:
    sizes: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 32}
    albert = AlbertForSequenceClassification(AlbertConfig(**sizes, embedding_size=8, num_hidden_layers=3))
    with pytest.raises(ValueError, match=r"an? AlbertFor.* cannot be cut so \(.*share weights, or stand in stages"):
        number_of_layers(albert)
    config = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, vocab_size=32, num_labels=2)
    t5 = T5ForSequenceClassification(config)
    assert cut_model(t5, [0]).config.num_layers == 1
    with pytest.raises(ValueError, match=r"cannot be cut so \(.*relative_attention.* Keep other layers, its"):
        cut_model(t5, [1])
