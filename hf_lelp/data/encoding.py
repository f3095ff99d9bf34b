"""Rows of a dataset to a model's inputs, the same way for teacher and student: texts, images and sound."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Audio, Dataset, Image, IterableDataset
from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase, SequenceFeatureExtractor

from hf_lelp.data.audio import process_audio
from hf_lelp.data.images import process_images
from hf_lelp.data.text import max_tokens, tokenize

IN_MEMORY_BYTES = 2 * 2**30

Processor = PreTrainedTokenizerBase | BaseImageProcessor | SequenceFeatureExtractor


def encode(
    processing_class: Processor, batch: dict[str, Any], columns: Sequence[str], max_length: int | None
) -> dict[str, list[Any]]:
    """A model's inputs for a batch of rows, an entry per row, not padded.

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


def pad(processing_class: Processor, encoded: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
    """Encoded rows as tensors of one batch.

    Raises:
        ValueError: if the image processor left images of different sizes.
    """
    if not isinstance(processing_class, BaseImageProcessor):
        return dict(processing_class.pad(encoded, return_tensors="pt"))
    sizes = sorted({value.shape for value in encoded[input_name(processing_class)]})
    if len(sizes) > 1:
        raise ValueError(
            f"{type(processing_class).__name__} leaves images of different sizes: {', '.join(map(str, sizes[:3]))}."
            " Give it a size with height and width, or a crop_size."
        )
    return {name: torch.from_numpy(np.stack(values)) for name, values in encoded.items()}


def input_name(processing_class: Processor) -> str:
    """The first of the inputs that it makes: "input_ids", "pixel_values", "input_values", …."""
    names: list[str] = processing_class.model_input_names  # type: ignore[union-attr]
    return names[0]


def on_device(value: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """A model's input where the model is; pixels and samples, but not token ids, in its data type."""
    return value.to(model.device, model.dtype if value.is_floating_point() else None)


def longest(processing_class: Processor, model: PreTrainedModel | None, max_length: int | None) -> int | None:
    """Where inputs are cut: for texts see `max_tokens`; sound is cut at `max_length` samples, images never."""
    if isinstance(processing_class, PreTrainedTokenizerBase):
        return max_tokens(processing_class, model, max_length)
    return max_length


@dataclass(frozen=True)
class OnTheFly:
    """The transform of a dataset whose rows become inputs each time that they are read: images, sound, augmented texts.

    Attributes:
        processing_class: of the student; `None` where `transform` does all.
        columns: that it reads.
        max_length: see `encode`.
        kept: columns that pass as they are: labels and the teacher's.
        transform: the user's own, applied to all columns first. What it gives for `columns` is encoded, unless it
            gives the model's input itself.
        wanted: names to let through, those of the model's arguments; `None` is all but `columns`.
    """

    processing_class: Processor | None
    columns: Sequence[str]
    max_length: int | None
    kept: Sequence[str]
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    wanted: Collection[str] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Inputs of the student, and the columns that are kept, for a batch of rows."""
        rows = dict(batch if self.transform is None else self.transform(dict(batch)))
        if self.columns and self.processing_class is not None and input_name(self.processing_class) not in rows:
            rows |= encode(self.processing_class, rows, self.columns, self.max_length)
        rows |= {name: batch[name] for name in self.kept}
        wanted = {*rows} - {*self.columns} if self.wanted is None else {*self.wanted, *self.kept}
        return {name: values for name, values in rows.items() if name in wanted}


def transform_of(dataset: Any) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """The transform that was set on a dataset (`set_transform`), if any."""
    if not isinstance(dataset, Dataset) or dataset.format["type"] != "custom":
        return None
    transform: Callable[[dict[str, Any]], dict[str, Any]] = dataset.format["format_kwargs"]["transform"]
    return transform


def column_names(dataset: Dataset | IterableDataset) -> list[str]:
    """Those of the dataset; a stream that does not tell is asked for its first row."""
    names: list[str] | None = dataset.column_names
    return names or list(next(iter(dataset), {}))


def resolve_input_columns(
    dataset: Dataset | IterableDataset,
    input_columns: Sequence[str] | None,
    label_column: str,
    processing_class: Processor | None = None,
) -> list[str]:
    """The columns that a model reads: those named, or the one called "text", "image" or "audio", or the only candidate.

    Args:
        dataset: of raw rows.
        input_columns: named by the user.
        label_column: which is none of them, even if it is text.
        processing_class: tells whether texts, images or sounds are looked for; `None` is texts.

    Raises:
        ValueError: if a named column is missing, two are named that are not texts, or none is named and there is not
            exactly one candidate.
    """
    dataset = dataset.with_format(None)  # a format may hide columns
    present: list[str] = column_names(dataset)
    kind, is_candidate = "text", _is_text
    if isinstance(processing_class, BaseImageProcessor):
        kind, is_candidate = "image", _is_image
    elif isinstance(processing_class, SequenceFeatureExtractor):
        kind, is_candidate = "audio", _is_audio
    if input_columns is not None:
        missing = [name for name in input_columns if name not in present]
        if missing:
            raise ValueError(f"input_columns names {', '.join(missing)}; the dataset has {', '.join(present)}.")
        if kind != "text" and len(input_columns) > 1:
            raise ValueError(f"input_columns={list(input_columns)}: a model of {kind} reads one column.")
        return list(input_columns)
    if kind in present:
        return [kind]
    features = dataset.features or {}
    encoded = [name for name in present if isinstance(features.get(name), Image | Audio)]  # not to be decoded here
    first: dict[str, Any] = next(iter(dataset.remove_columns(encoded)), {})
    first |= {name: features[name] for name in encoded}
    found = [name for name in present if name in first and is_candidate(first[name]) and name != label_column]
    if len(found) != 1:
        raise ValueError(
            f"Which column is the {kind}? The dataset has {', '.join(present)}, of them {kind}:"
            f" {', '.join(found) or 'none'}. Set input_columns to one{' or two' if kind == 'text' else ''} of them."
        )
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_image(value: Any) -> bool:
    return isinstance(value, Image) or hasattr(value, "getbands")


def _is_audio(value: Any) -> bool:
    return isinstance(value, Audio) or (isinstance(value, dict) and {"array", "sampling_rate"} <= {*value})


def fits_in_memory(dataset: Any) -> bool:
    """Whether a dataset is of arrays, in torch format, and of at most 2 GiB.

    Row by row out of Arrow such a dataset can take as long to read as a small student's step: see `InMemory`.
    """
    return isinstance(dataset, Dataset) and dataset.format["type"] == "torch" and dataset.data.nbytes <= IN_MEMORY_BYTES


class InMemory(torch.utils.data.Dataset):
    """The columns of a dataset in torch format as tensors, for inputs that are arrays.

    Args:
        dataset: all of whose columns fit in memory.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.tensors: dict[str, torch.Tensor] = dataset[:]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: tensor[row] for name, tensor in self.tensors.items()}


def check_prepared(dataset: Any, input_name: str) -> None:
    """Check that a dataset has the model's inputs, where there is nothing to make them with.

    Raises:
        ValueError: if it has not.
    """
    if not isinstance(dataset, Dataset) or transform_of(dataset) is not None:
        return
    if not {input_name, "inputs_embeds"} & {*dataset.column_names}:
        raise ValueError(
            f"The training data has no {input_name} (it has {', '.join(dataset.column_names)}), and there is nothing to"
            " make them with: pass the student's tokenizer, image processor or feature extractor as processing_class."
        )
