"""Encodes texts, images and sounds as a model's inputs, the same way for teacher and student."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase, SequenceFeatureExtractor

from hf_lelp.data.audio import process_audio
from hf_lelp.data.images import process_images
from hf_lelp.data.text import max_tokens, tokenize

Processor = PreTrainedTokenizerBase | BaseImageProcessor | SequenceFeatureExtractor


def encode(
    processing_class: Processor, batch: dict[str, Any], columns: Sequence[str], max_length: int | None
) -> dict[str, list[Any]]:
    """Encode a batch of rows as a model's inputs, one entry per row, not padded.

    Args:
        processing_class: a tokenizer, an image processor or a feature extractor.
        batch: with the columns, n rows.
        columns: one, or for texts two.
        max_length: tokens of a text, or samples of a sound, after which it is cut.

    Raises:
        KeyError: if a column is missing.
        ValueError: if a value is no text, image or sound.
    """
    if isinstance(processing_class, PreTrainedTokenizerBase):
        return tokenize(processing_class, batch, columns, max_length)
    values = batch[columns[0]]
    try:
        if isinstance(processing_class, BaseImageProcessor):
            return process_images(processing_class, values)
        return process_audio(processing_class, values, max_length)
    except ValueError as error:
        raise ValueError(f"Column {columns[0]!r}: {error}") from error


def pad(
    processing_class: Processor, encoded: dict[str, list[Any]], length: int | None = None
) -> dict[str, torch.Tensor]:
    """Collate encoded rows into the tensors of one batch.

    Args:
        processing_class: that encoded them.
        encoded: see `encode`.
        length: tokens, samples or frames to pad to; `None` pads to the longest row.

    Raises:
        ValueError: if the image processor left images of different sizes.
    """
    if not isinstance(processing_class, BaseImageProcessor):
        padding = "longest" if length is None else "max_length"
        return dict(processing_class.pad(encoded, padding=padding, max_length=length, return_tensors="pt"))
    sizes = sorted({value.shape for value in encoded[input_name(processing_class)]})
    if len(sizes) > 1:
        raise ValueError(
            f"{type(processing_class).__name__} leaves images of different sizes: {', '.join(map(str, sizes[:3]))}."
            " Give it a size with height and width, or a crop_size."
        )
    return {name: torch.from_numpy(np.stack(values)) for name, values in encoded.items()}


def lengths_of(encoded: Mapping[str, Sequence[Any]]) -> list[int]:
    """Return the tokens, samples or frames of each encoded row: the length of its first input."""
    return [len(values) for values in next(iter(encoded.values()))]


def taken(values: Mapping[str, Sequence[Any]], rows: Iterable[int]) -> dict[str, list[Any]]:
    """Return some rows of lists by name."""
    rows = list(rows)
    return {name: [column[row] for row in rows] for name, column in values.items()}


def batches(
    processing_class: Processor,
    rows: Mapping[str, Sequence[Any]],
    columns: Sequence[str],
    max_length: int | None,
    batch_size: int,
) -> Iterator[tuple[NDArray[np.integer], dict[str, torch.Tensor]]]:
    """Yield places of some rows and a model's inputs for them, until every row had its turn.

    Texts come longest first, each batch padded to its longest: that saves most of the padding. Images and sounds are
    encoded on demand, in their order, since those of all rows may not fit in memory.

    Args:
        processing_class: a tokenizer, an image processor or a feature extractor.
        rows: with the columns.
        columns: one, or for texts two.
        max_length: see `encode`.
        batch_size: rows of each batch but the last.

    Raises:
        ValueError: see `encode` and `pad`.
    """
    count = len(rows[columns[0]])
    if isinstance(processing_class, PreTrainedTokenizerBase):
        tokens = encode(processing_class, dict(rows), columns, max_length)
        order = np.argsort(lengths_of(tokens), kind="stable")[::-1]
        for start in range(0, count, batch_size):
            places = order[start : start + batch_size]
            yield places, pad(processing_class, taken(tokens, places))
        return
    for start in range(0, count, batch_size):
        places = np.arange(start, min(start + batch_size, count))
        some = taken({name: rows[name] for name in columns}, places)
        yield places, pad(processing_class, encode(processing_class, some, columns, max_length))


def input_name(processing_class: Processor) -> str:
    """Return the name of the first input that it makes: "input_ids", "pixel_values", "input_values", …."""
    names: list[str] = processing_class.model_input_names  # type: ignore[union-attr]
    return names[0]


def on_device(value: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """Move an input to the model's device, and cast pixels and samples, but not token ids, to its data type."""
    value = value.pin_memory() if model.device.type == "cuda" else value  # copied while the device works
    return value.to(model.device, model.dtype if value.is_floating_point() else None, non_blocking=True)


def longest(processing_class: Processor, model: PreTrainedModel | None, max_length: int | None) -> int | None:
    """Return where inputs are cut: texts by `max_tokens`, sounds at `max_length` samples, images never."""
    if isinstance(processing_class, PreTrainedTokenizerBase):
        return max_tokens(processing_class, model, max_length)
    return max_length
