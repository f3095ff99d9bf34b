"""The teacher's token vectors for a student to start from: read, cut to size by PCA, and made once for each teacher."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

ROWS = 65_536  # of a table whose products are summed at once

# Methods and seeds of a comparison start from the same vectors.
_MADE: WeakKeyDictionary[PreTrainedModel, dict[Any, Tensor]] = WeakKeyDictionary()


def made_once(teacher: PreTrainedModel, key: Any, make: Callable[[], Tensor]) -> Tensor:
    """Return what `make` gives for a teacher, which is kept as long as the teacher; `key` tells what it is."""
    made = _MADE.setdefault(teacher, {})
    if key not in made:
        made[key] = make()
    return made[key]


def token_table(model: PreTrainedModel) -> Tensor | None:
    """Return the vectors that a model embeds tokens as, (V, D), float32, on the CPU.

    It is `None` if the model has no such table, or accelerate keeps it elsewhere (offloaded).
    """
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    if not isinstance(table, nn.Embedding) or table.weight.is_meta:
        return None
    return table.weight.detach().float().cpu()


def shortened(vectors: Tensor, size: int) -> Tensor:
    """Turn vectors, (N, D), to their principal components, and keep the first `size` of them, or all D: (N, size).

    Their mean is taken away, and their scale stays.
    """
    centred = vectors - vectors.mean(0)
    products = torch.stack([part.double().T @ part.double() for part in centred.split(ROWS)]).sum(0)
    _, directions = torch.linalg.eigh(products)  # the largest last
    return centred @ directions.flip(1)[:, :size].to(centred.dtype)
