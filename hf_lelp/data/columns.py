"""Which columns a model reads, and the names of those that the library adds."""

from collections.abc import Sequence
from typing import Any

from datasets import Audio, Dataset, Image, IterableDataset
from transformers import BaseImageProcessor, SequenceFeatureExtractor

from hf_lelp.data.encoding import Processor
from hf_lelp.data.rows import column_names

EMBEDDING_COLUMN = "teacher_embedding"
LOGITS_COLUMN = "teacher_logits"
PROJECTIONS_COLUMN = "teacher_projections"
TEACHER_COLUMNS = (LOGITS_COLUMN, EMBEDDING_COLUMN, PROJECTIONS_COLUMN)
# Who made a row's columns. A column is the one place for this that goes along to disk, to the Hub and through every
# operation on a dataset: its description does not.
TEACHER_MARK = "teacher_fingerprint"
PROJECTIONS_MARK = "projections_fingerprint"


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
