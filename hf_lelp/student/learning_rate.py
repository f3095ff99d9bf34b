"""States a learning rate by the size of a student, to start from where none is given.

The rate is 0.5 / √n, with n the parameters outside the table of token embeddings: 8e-4 for a BERT of 2 × 128 (0.4
million), 1.5e-4 for MiniLM's 6 × 384 (11 million), 5e-5 for BERT-base (86 million), the default of Trainer. It is for
optimizers of Adam's kind.
"""

import logging
from functools import cache

from transformers import PreTrainedModel, TrainingArguments

SCALE = 0.5
LEAST, MOST = 1e-5, 1e-2
FAR_OFF = 5.0  # times

_warn_once = cache(logging.getLogger(__name__).warning)


def starting_rate(model: PreTrainedModel) -> float:
    """Return the learning rate for a student of this size, rounded to two digits."""
    rate = SCALE / max(_size(model), 1) ** 0.5
    return float(f"{min(max(rate, LEAST), MOST):.1e}")


def _size(model: PreTrainedModel) -> int:
    """Count the parameters but for the table of token embeddings, of which a step moves a few rows."""
    try:
        embeddings = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embeddings = None
    table = getattr(embeddings, "num_embeddings", 0) * getattr(embeddings, "embedding_dim", 0)
    return sum(parameter.numel() for parameter in model.parameters()) - table


def tell_of_rate(model: PreTrainedModel, args: TrainingArguments) -> None:
    """Warn, once, of a learning rate that is far from the one for a student of this size."""
    expected = starting_rate(model)
    times = args.learning_rate / expected
    if not str(getattr(args.optim, "value", args.optim)).startswith("adam") or 1 / FAR_OFF <= times <= FAR_OFF:
        return
    _warn_once(
        f"learning_rate={args.learning_rate:g} is {'high' if times > 1 else 'low'} for a student of"
        f" {_size(model) / 1e6:.1f} million parameters outside its token embeddings: {expected:g} would be a start."
    )
