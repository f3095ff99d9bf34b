"""Makes a new BERT: its token vectors start as the teacher's, cut to size by PCA; all other weights are random.

Most tokens of a vocabulary come a few times in the texts that a student learns from, or never. A random vector then
stays what it was. The teacher's says which tokens are alike.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from hf_lelp.data.text import NO_LIMIT

HEAD_SIZE = 64  # of attention, as in BERT
POSITIONS = 512  # tokens that a new student can read, unless its tokenizer ends before
ROWS = 65_536  # of a table whose products are summed at once


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
    vectors = None if teacher is None else token_table(teacher)
    if vectors is not None:
        known = shortened(vectors, size)[: len(tokenizer)]
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[: len(known), : known.shape[1]] = known
    return model


def token_table(model: PreTrainedModel) -> Tensor | None:
    """Return the vectors that a model embeds tokens as, (V, D), float32, on the CPU; `None` if it has no such table."""
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return table.weight.detach().float().cpu() if isinstance(table, nn.Embedding) else None


def shortened(vectors: Tensor, size: int) -> Tensor:
    """Turn vectors, (N, D), to their principal components, and keep the first `size` of them, or all D: (N, size).

    Their mean is taken away, and their scale stays.
    """
    centred = vectors - vectors.mean(0)
    products = torch.stack([part.double().T @ part.double() for part in centred.split(ROWS)]).sum(0)
    _, directions = torch.linalg.eigh(products)  # the largest last
    return centred @ directions.flip(1)[:, :size].to(centred.dtype)
