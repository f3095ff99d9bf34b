"""Keeps an accelerator busy during a pass: batches are made ahead of it, of equal work, and results come off behind."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

AHEAD = 2  # batches that wait for the device

T = TypeVar("T")
Inputs = dict[str, torch.Tensor]


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items, made by a thread before they are asked for. An error comes where its item would."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]


def in_parts(lengths: NDArray[np.integer], rows_at_most: Callable[[], int], by_tokens: bool) -> Iterator[slice]:
    """Cut rows of falling lengths, (n,), into batches.

    Args:
        lengths: of the rows, in tokens.
        rows_at_most: rows of a batch of the longest ones; it may fall on the way.
        by_tokens: whether shorter rows come in larger batches, of as many tokens with their padding.
    """
    start = 0
    while start < len(lengths):
        rows = rows_at_most()
        if by_tokens:
            rows = max(rows, rows * int(lengths[0]) // max(int(lengths[start]), 1))
        yield slice(start, start + rows)
        start += rows


def halved_until_it_fits(run: Callable[[Inputs], torch.Tensor], inputs: Inputs) -> tuple[torch.Tensor, int]:
    """Run a model over a batch; over its halves where memory does not suffice, and so on.

    Returns:
        The results, (n, …), and how many rows fitted.

    Raises:
        torch.OutOfMemoryError: if not even one row fits.
    """
    rows = len(next(iter(inputs.values())))
    try:
        return run(inputs), rows
    except torch.OutOfMemoryError:
        if rows == 1:
            raise
    # Outside of the handler: the traceback of the error holds on to the memory of the failed pass.
    torch.cuda.empty_cache()
    half = (rows + 1) // 2
    logger.warning(f"{rows} rows do not fit in the device's memory; going on with {half} at a time.")
    parts = [{name: values[of] for name, values in inputs.items()} for of in (slice(half), slice(half, None))]
    (first, fitted), (second, fitted_too) = (halved_until_it_fits(run, part) for part in parts)
    return torch.cat([first, second]), max(fitted, fitted_too)


class OnItsWay:
    """A tensor on its way to the CPU. The device goes on with what follows meanwhile."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._copy = tensor.to("cpu", non_blocking=True)  # into pinned memory
        self._done = None
        if tensor.device.type != "cpu":
            self._done = torch.Event(tensor.device)
            self._done.record()

    def arrived(self) -> torch.Tensor:
        """Wait for it."""
        if self._done is not None:
            self._done.synchronize()
        return self._copy
