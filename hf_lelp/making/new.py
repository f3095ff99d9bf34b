"""Makes a new BERT: its token vectors start as the teacher's, cut to size by PCA; all other weights are random.

Most tokens of a vocabulary come a few times in the texts that a student learns from, or never. A random vector then
stays what it was. The teacher's says which tokens are alike.
"""

from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from hf_lelp.data.text import NO_LIMIT
from hf_lelp.making.token_vectors import made_once, shortened, token_table

HEAD_SIZE = 64  # of attention, as in BERT
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
    if teacher is not None and table is not None:
        vectors = made_once(teacher, ("table", size), lambda: shortened(table, size))[: len(tokenizer)]
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[: len(vectors), : vectors.shape[1]] = vectors
    return model
