"""Tiny real models, a tokenizer and texts, made from transformers' own configurations."""

import random

import torch
from datasets import ClassLabel, Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

WORDS = ["good", "bad", "fine", "awful", "movie", "plot", "actor", "film"]
WORDS += ["story", "music", "great", "dull", "sharp", "slow", "bright", "dark"]
LABEL_NAMES = ["negative", "positive"]


def tokenizer(kind: str = "bert") -> PreTrainedTokenizerFast:
    """A word-level tokenizer: with padding and special tokens for BERT, with an end token alone for decoders."""
    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"] if kind == "bert" else ["[UNK]", "</s>"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind != "bert":
        return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="</s>")
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def classifier(kind: str = "bert", *, hidden_size: int = 16, num_labels: int = 2, seed: int = 0) -> PreTrainedModel:
    """A classifier of one layer with random weights large enough that inputs tell."""
    torch.manual_seed(seed)
    size = {"vocab_size": len(WORDS) + 4, "num_labels": num_labels}
    if kind == "bert":
        config = BertConfig(
            hidden_size=hidden_size,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=2 * hidden_size,
            max_position_embeddings=64,
            pad_token_id=1,
            initializer_range=0.5,
            **size,
        )
        return BertForSequenceClassification(config)
    if kind == "llama":
        return LlamaForSequenceClassification(
            LlamaConfig(
                hidden_size=hidden_size,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                intermediate_size=2 * hidden_size,
                max_position_embeddings=64,
                initializer_range=0.5,
                **size,
            )
        )
    assert kind == "gpt2"
    return GPT2ForSequenceClassification(
        GPT2Config(
            n_embd=hidden_size,
            n_layer=1,
            n_head=2,
            n_positions=64,
            initializer_range=0.5,
            bos_token_id=1,
            eos_token_id=1,
            **size,
        )
    )


def named(model: PreTrainedModel, names: list[str] = LABEL_NAMES) -> PreTrainedModel:
    """The model with names for its classes."""
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return model


def texts(rows: int, *, seed: int = 0, shortest: int = 1, longest: int = 12) -> list[str]:
    """Random texts of known words."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(shortest, longest))) for _ in range(rows)]


@torch.inference_mode()
def labelled_by(model: PreTrainedModel, rows: list[str], *, kind: str = "bert", noise: float = 0.1) -> list[int]:
    """The model's own classes of the texts, a share of them changed: data that it is a good teacher of."""
    processing_class = tokenizer(kind)
    if processing_class.pad_token is None:
        processing_class.pad_token = processing_class.eos_token
        model.config.pad_token_id = processing_class.pad_token_id
    model.eval()
    labels = model(**processing_class(rows, padding=True, return_tensors="pt")).logits.argmax(-1).tolist()
    generator = random.Random(1)
    classes = int(model.config.num_labels)
    return [generator.randrange(classes) if generator.random() < noise else label for label in labels]


def dataset(model: PreTrainedModel, rows: int = 200, *, kind: str = "bert", seed: int = 0) -> Dataset:
    """Texts labelled by the model, as a dataset with columns text and label."""
    content = texts(rows, seed=seed)
    data = Dataset.from_dict({"text": content, "label": labelled_by(model, content, kind=kind)})
    names = LABEL_NAMES if model.config.num_labels == 2 else [f"class {i}" for i in range(int(model.config.num_labels))]
    return data.cast_column("label", ClassLabel(names=names))
