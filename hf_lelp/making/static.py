"""Makes a static student of a teacher: a vector for each token, whose mean a small MLP reads.

The vectors come from the teacher's encoder, run over each token of its vocabulary alone; PCA makes them shorter, and
common tokens weigh less. Training then moves vectors and MLP alike. The recipe for the vectors is that of Model2Vec
(https://github.com/MinishLab/model2vec): output of the encoder, PCA, and the weights of SIF with Zipf's law for the
frequencies (SIF: Arora, Liang, Ma, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.data.text import vocabulary_size
from hf_lelp.making.token_vectors import made_once, shortened
from hf_lelp.student.modeling_lelp import StaticConfig, StaticForSequenceClassification

COMMON = 1e-4  # a of SIF: tokens commoner than this weigh less than half
ROWS = 1024  # tokens in a forward pass of the teacher


def static_model(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, num_labels: int, size: int
) -> StaticForSequenceClassification:
    """Make a static student; its MLP has new weights.

    Args:
        teacher: a classifier of texts.
        tokenizer: of the teacher, V tokens.
        num_labels: C.
        size: of the vectors, E; at most that of the teacher's.
    """
    key = ("static", len(tokenizer), size)
    vectors = made_once(teacher, key, lambda: token_vectors(teacher, tokenizer, size))
    config = StaticConfig(
        vocab_size=vectors.shape[0],
        embedding_size=vectors.shape[1],
        pad_token_id=tokenizer.pad_token_id,
        num_labels=num_labels,
    )
    model = StaticForSequenceClassification(config)
    with torch.no_grad():
        model.vectors.weight.copy_(vectors)
    return model


def token_vectors(teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, size: int) -> Tensor:
    """Make the vectors of all tokens: PCA of what the teacher's encoder gives for each alone, weighted.

    They are scaled to a variance of 1 over all tokens. Those of special tokens are 0.

    Args:
        teacher: see `static_model`.
        tokenizer: likewise, V tokens.
        size: E.

    Returns:
        (V, E), float32, on the CPU.
    """
    known = min(len(tokenizer), vocabulary_size(teacher) or len(tokenizer))
    hidden = torch.cat(list(_hidden_states(teacher, tokenizer, known))).double()
    vectors = shortened(hidden, size) * _weights(known)[:, None]
    special = [token for token in tokenizer.all_special_ids if token < known]
    vectors[special] = 0
    vectors /= vectors.square().mean().sqrt()
    return torch.cat([vectors, vectors.new_zeros(len(tokenizer) - known, vectors.shape[1])]).float()


def _weights(count: int) -> Tensor:
    """Weigh tokens by their rank, (count,): a / (a + p), with p ∝ 1 / rank. Vocabularies list common tokens first."""
    frequencies = 1 / torch.arange(2, count + 2, dtype=torch.float64)
    return COMMON / (COMMON + frequencies / frequencies.sum())


@torch.inference_mode()
def _hidden_states(teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int) -> Iterator[Tensor]:
    """Yield the encoder's last hidden state of each token, (n, D), between the special tokens of an empty text."""
    around = list(tokenizer("")["input_ids"])
    starts = {tokenizer.cls_token_id, tokenizer.bos_token_id}
    before = [token for token in around if token in starts]
    after = [token for token in around if token not in starts]
    base: Any = teacher.base_model
    encoder = base.get_encoder() if teacher.config.is_encoder_decoder else base
    with _evaluated(teacher):
        for tokens in torch.arange(count).split(ROWS):
            parts = [torch.tensor(before).expand(len(tokens), -1), tokens[:, None]]
            ids = torch.cat([*parts, torch.tensor(after).expand(len(tokens), -1)], dim=1).long().to(teacher.device)
            states = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            yield states[:, len(before)].float().cpu()


@contextmanager
def _evaluated(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
