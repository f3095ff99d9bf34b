"""The teacher's token vectors for a student to start from: read, cut to size by PCA, and made once for each teacher."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

ELEMENTS = 2**24  # of a table whose products are summed at once

# Methods and seeds of a comparison start from the same vectors.
_MADE: WeakKeyDictionary[PreTrainedModel, dict[Any, Tensor]] = WeakKeyDictionary()


def made_once(teacher: PreTrainedModel, key: Any, make: Callable[[], Tensor]) -> Tensor:
    """Return what `make` gives for a teacher, which is kept as long as the teacher; `key` tells what it is."""
    made = _MADE.setdefault(teacher, {})
    if key not in made:
        made[key] = make()
    return made[key]


def token_table(model: PreTrainedModel) -> Tensor | None:
    """Return the vectors that a model embeds tokens as, (V, D), not copied: in the model's dtype, on its device.

    It is `None` if the model has no such table, or accelerate keeps it elsewhere (offloaded).
    """
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    if not isinstance(table, nn.Embedding) or table.weight.is_meta:
        return None
    return table.weight.detach()


def shortened(vectors: Tensor, size: int) -> Tensor:
    """Turn vectors, (N, D), to their principal components, and keep the first `size` of them, or all D: (N, size).

    Their mean is taken away, and their scale stays.
    """
    mean = vectors.mean(0)
    pieces = vectors.split(max(ELEMENTS // vectors.shape[1], 1))
    with _one_thread():
        products = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64)
        for piece in pieces:
            centred = (piece - mean).double()
            products += centred.T @ centred
        directions = torch.linalg.eigh(products)[1].flip(1)[:, :size].to(vectors.dtype)  # the largest were last
        return torch.cat([(piece - mean) @ directions for piece in pieces])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sum in one order: with another number of threads a student would be another one, and its kept runs not found."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
