"""Finds the columns that a model reads, and names those that the library adds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Audio, Dataset, Image, IterableDataset, Value
from transformers import BaseImageProcessor, SequenceFeatureExtractor

from hf_lelp.data.encoding import Processor, input_name
from hf_lelp.data.rows import column_names

EMBEDDING_COLUMN = "teacher_embedding"
LOGITS_COLUMN = "teacher_logits"
PROJECTIONS_COLUMN = "teacher_projections"
TEACHER_COLUMNS = (LOGITS_COLUMN, EMBEDDING_COLUMN, PROJECTIONS_COLUMN)
# Say who made a row's columns. Only a column stays with the rows on disk, on the Hub and through every operation of
# datasets: the dataset's description does not.
TEACHER_MARK = "teacher_fingerprint"
PROJECTIONS_MARK = "projections_fingerprint"
# Say of which row another was made, and how (`hf_lelp.transfer`).
ORIGIN_COLUMN, KIND_COLUMN = "row_origin", "row_kind"

LOOKED_AT = 100  # rows of a stream that does not know its column types


@dataclass(frozen=True)
class RunColumns:
    """The columns that a run reads: found once, mostly in the training data, then required of all other data.

    Attributes:
        inputs: of the student; `None` until raw data has shown them.
        label: the label column, in data that has labels.
        named: the inputs that the user named; `None` to find them.
        own: columns of a trainer's own, which its loss reads beside the teacher's.
    """

    inputs: list[str] | None
    label: str
    named: Sequence[str] | None = None
    own: tuple[str, ...] = ()

    @property
    def of_loss(self) -> tuple[str, ...]:
        """The columns that stay beside the student's inputs, for the loss: the teacher's and `own`."""
        return (*TEACHER_COLUMNS, *self.own)

    @classmethod
    def of(
        cls,
        datasets: Iterable[Any],
        input_columns: Sequence[str] | None,
        label_column: str,
        processing_class: Processor | None,
        own: tuple[str, ...] = (),
    ) -> "RunColumns":
        """Find the columns in the first dataset that holds raw rows.

        Raises:
            ValueError: see `resolve_input_columns`.
        """
        found = cls(None, label_column, input_columns, own)
        raw = (data for data in datasets if isinstance(data, Dataset | IterableDataset))
        first = next((data for data in raw if not is_prepared(data, processing_class)), None)
        return found if first is None else replace(found, inputs=found.inputs_of(first, processing_class))

    def inputs_of(self, dataset: Dataset | IterableDataset, processing_class: Processor | None) -> list[str]:
        """Return the input columns of a dataset of raw rows.

        Raises:
            ValueError: if one is missing; see also `resolve_input_columns`.
        """
        if self.inputs is None:
            return resolve_input_columns(dataset, self.named, self.label, processing_class)
        present = column_names(dataset)
        missing = [name for name in self.inputs if name not in present]
        if missing:
            raise ValueError(
                f"This run reads {', '.join(self.inputs)}, and this dataset has {', '.join(present)}. Rename its"
                " columns to match the training data, or set input_columns."
            )
        return self.inputs

    def label_of(self, dataset: Any) -> str:
        """Return the label column of a dataset, or the name that it would have."""
        return find_label_column(dataset, self.label) or self.label


def find_label_column(dataset: Any, label_column: str) -> str | None:
    """Return the label column of a dataset: the one named, else the "labels" of prepared data, else `None`."""
    present = column_names(dataset) if isinstance(dataset, Dataset | IterableDataset) else []
    return next((name for name in (label_column, "labels") if name in present), None)


def is_prepared(dataset: Dataset | IterableDataset, processing_class: Processor | None) -> bool:
    """Whether a dataset already holds the model's inputs, or there is nothing to make them with."""
    return processing_class is None or input_name(processing_class) in column_names(dataset)


def resolve_input_columns(
    dataset: Dataset | IterableDataset,
    input_columns: Sequence[str] | None,
    label_column: str,
    processing_class: Processor | None = None,
) -> list[str]:
    """Return the columns that a model reads: those named, else "text", "image" or "audio", else the only candidate.

    Args:
        dataset: of raw rows.
        input_columns: named by the user.
        label_column: never an input, even if it is text.
        processing_class: decides whether to look for texts, images or sounds; `None` is texts.

    Raises:
        ValueError: if a named column is missing, two are named that are not texts, or none is named and there is not
            exactly one candidate.
    """
    dataset = dataset.with_format(None)  # a format may hide columns
    present: list[str] = column_names(dataset)
    kind = "text"
    if isinstance(processing_class, BaseImageProcessor):
        kind = "image"
    elif isinstance(processing_class, SequenceFeatureExtractor):
        kind = "audio"
    if input_columns is not None:
        missing = [name for name in input_columns if name not in present]
        if missing:
            raise ValueError(f"input_columns names {', '.join(missing)}; the dataset has {', '.join(present)}.")
        if kind != "text" and len(input_columns) > 1:
            raise ValueError(f"input_columns={list(input_columns)}: a model of {kind} reads one column.")
        return list(input_columns)
    if kind in present:
        return [kind]
    features = dataset.features
    is_candidate = {"text": _holds_text, "image": _holds_images, "audio": _holds_sounds}[kind]
    shown = features if features is not None else _first_values(dataset)
    found = [name for name in present if name != label_column and is_candidate(shown.get(name))]
    if len(found) != 1:
        raise ValueError(
            f"Which column is the {kind}? The dataset has {', '.join(present)}, of them {kind}:"
            f" {', '.join(found) or 'none'}. Set input_columns to one{' or two' if kind == 'text' else ''} of them."
        )
    return found


def _first_values(stream: IterableDataset) -> dict[str, Any]:
    """Return each column's first non-null value, from the first rows of a stream that does not know its types."""
    found: dict[str, Any] = {}
    for row in stream.take(LOOKED_AT):
        found |= {name: value for name, value in row.items() if value is not None and name not in found}
    return found


def _holds_text(shown: Any) -> bool:
    return isinstance(shown, str) or (isinstance(shown, Value) and "string" in shown.dtype)


def _holds_images(shown: Any) -> bool:
    return isinstance(shown, Image) or hasattr(shown, "getbands")


def _holds_sounds(shown: Any) -> bool:
    return isinstance(shown, Audio) or (isinstance(shown, Mapping) and {"array", "sampling_rate"} <= {*shown})
