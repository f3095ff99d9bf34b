"""Students of the benchmark, all classes of transformers, so that both forms of a LELP student can be made of them.

Each function draws fresh weights from torch's global generator. Bind its arguments with `functools.partial`: what comes
out can be called, and pickled.
"""

from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ResNetConfig,
    ResNetForImageClassification,
)

from examples.vader import quiet
from hf_lelp.making.new import new_model

# Channels of the stages; on 28 × 56 images and two classes these have 5,166, 19,866 and 308,322 parameters.
RESNETS = {"tiny": (4, 8, 16), "small": (8, 16, 32), "teacher": (32, 64, 128)}

# A sentence embedding as an image that a ConvNeXt of one patch reads: channels × height × width.
EMBEDDING_SHAPE = (6, 8, 8)


def resnet(size: str, num_labels: int = 2) -> PreTrainedModel:
    """A ResNet for grey images with one block of two convolutions a stage."""
    channels = RESNETS[size]
    model = ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=channels[0],
            hidden_sizes=list(channels),
            depths=[1] * len(channels),
            layer_type="basic",
            num_labels=num_labels,  # type: ignore[call-arg]  # of every configuration
        )
    )
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # 1.5 times as fast on a CPU


def embedding_mlp(num_labels: int, hidden: int = 128) -> PreTrainedModel:
    """An MLP over a sentence embedding of size 384, shaped as `EMBEDDING_SHAPE`.

    It is a ConvNeXt whose only patch is the whole "image": its first convolution is a linear layer, its one block a
    residual MLP of 4 · `hidden` units with layer norms around.
    """
    channels, side, _ = EMBEDDING_SHAPE
    return ConvNextForImageClassification(
        ConvNextConfig(
            num_channels=channels,
            image_size=side,
            patch_size=side,
            num_stages=1,
            hidden_sizes=[hidden],
            depths=[1],
            layer_scale_init_value=0.0,  # none
            num_labels=num_labels,  # type: ignore[call-arg]  # of every configuration
        )
    )


def small_bert(num_labels: int, vocab_size: int, pad_token_id: int) -> PreTrainedModel:
    """A BERT of 2 layers × 128 with random weights."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
            max_position_embeddings=128,
            pad_token_id=pad_token_id,
            num_labels=num_labels,  # type: ignore[call-arg]  # of every configuration
        )
    )


def new_bert(teacher: Path, num_labels: int, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The student of the recipe new:2x128: a BERT of 2 layers × 128 whose token vectors start as the teacher's."""
    with quiet():
        return new_model(AutoModelForSequenceClassification.from_pretrained(teacher), tokenizer, num_labels, 2, 128)


def cut_minilm(folder: Path, num_labels: int, layers: int = 2) -> PreTrainedModel:
    """The first layers of the pretrained all-MiniLM-L6-v2, its word vectors frozen, with a new classification layer."""
    with quiet():
        model = BertForSequenceClassification.from_pretrained(folder, num_hidden_layers=layers, num_labels=num_labels)
    model.bert.embeddings.word_embeddings.requires_grad_(False)  # three quarters of all parameters
    return model
