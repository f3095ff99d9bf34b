"""Makes a new BERT: its token vectors start as the teacher's, cut to size by PCA; all other weights are random.

Most tokens of a vocabulary come a few times in the texts that a student learns from, or never. A random vector then
stays what it was. The teacher's says which tokens are alike.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from hf_lelp.data.text import NO_LIMIT
from hf_lelp.making.token_vectors import made_once, shortened, token_table

HEAD_SIZE = 64  # of attention, as in BERT
SPREAD = 0.1  # of token vectors at most; MiniLM's have 0.08 when cut to 128, and a new BERT's positions 0.02
POSITIONS = 512  # tokens that a new student can read, unless its tokenizer ends before


def new_model(
    teacher: PreTrainedModel | None, tokenizer: Any, num_labels: int, layers: int, size: int
) -> BertForSequenceClassification:
    """Make a BERT for classification; random weights come from torch's random numbers.

    Args:
        teacher: whose token vectors it starts from, of the same tokenizer; `None` leaves them random.
        tokenizer: of the student, V tokens.
        num_labels: C.
        layers: of the encoder.
        size: of vectors and hidden states, even. Of a teacher with smaller vectors the rest stays random.
    """
    heads = max(heads for heads in range(1, max(size // HEAD_SIZE, 1) + 1) if size % heads == 0)
    limit = tokenizer.model_max_length
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * size,
        max_position_embeddings=limit if POSITIONS < limit < NO_LIMIT else POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=num_labels,  # type: ignore[call-arg]  # of every configuration
    )
    model = BertForSequenceClassification(config)
    table = None if teacher is None else token_table(teacher)
    if teacher is None or table is None:
        return model
    known = len(tokenizer)
    vectors = made_once(teacher, ("new", known, size), lambda: _start(table[:known].float().cpu(), size))
    embeddings = model.bert.embeddings.word_embeddings
    with torch.no_grad():
        embeddings.weight[: len(vectors), : vectors.shape[1]] = vectors
        if embeddings.padding_idx is not None:  # a tokenizer without padding: None would index all rows
            embeddings.weight[embeddings.padding_idx] = 0
    return model


def _start(table: Tensor, size: int) -> Tensor:
    """Cut a table, (N, D), to size, and scale it down to `SPREAD`: beside a T5's a BERT's positions would vanish."""
    vectors = shortened(table, size)
    return vectors * (SPREAD / vectors.std()).clamp(max=1)
