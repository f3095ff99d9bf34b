"""Streams of datasets that tell nothing of themselves."""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset, IterableDataset


def stream(dataset: Dataset) -> IterableDataset:
    """The rows as a stream that does not know its columns."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from dataset

    return IterableDataset.from_generator(rows)
