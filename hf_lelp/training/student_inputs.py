"""Builds the student's side of the training columns: inputs and labels, from raw rows."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from hf_lelp.data.audio import check_samples
from hf_lelp.data.columns import RunColumns, is_prepared
from hf_lelp.data.encoding import Processor, encode, input_name
from hf_lelp.data.labels import Classes, in_order_of
from hf_lelp.data.rows import RowError, column_names, column_values, shown_columns, transform_of, with_columns
from hf_lelp.data.text import check_vocabulary
from hf_lelp.training.targets import AnyDataset


def student_columns(
    dataset: AnyDataset,
    processing_class: Processor | None,
    *,
    columns: RunColumns,
    max_length: int | None,
    classes: Classes,
    vocabulary: int | None = None,
    fewest_samples: int | None = None,
) -> AnyDataset:
    """Make the student's inputs and `labels` (class indices); the teacher's columns stay, all others go.

    Texts become tokens once. Images, sound and the rows of a dataset with a transform become inputs whenever they are
    read. The pixels of every image would take far more space than the images, and a transform may augment differently
    each time. A dataset that holds inputs already keeps its columns, and only its labels are encoded. The same holds
    for any dataset where there is nothing to make inputs with. Columns that its format hides are not read.

    Args:
        dataset: raw or prepared.
        processing_class: of the student; `None` where there is nothing to make inputs with.
        columns: of the run.
        max_length: see `encode`.
        classes: of the run.
        vocabulary: how many tokens the student embeds, where known.
        fewest_samples: how many samples of a sound it needs, where known.

    Raises:
        ValueError: if it is unclear which column to read, a text is no string or has a token that the student does not
            embed, a sound is too short for it, a label is no class, or two columns of labels differ.
    """
    transform = transform_of(dataset)
    if isinstance(transform, OnTheFly):
        return dataset
    label_column = columns.label_of(dataset)
    prepared = is_prepared(dataset, processing_class)
    if prepared and transform is None:
        dataset = _shown(dataset, columns)
        ready = label_column == "labels" and (not isinstance(dataset, Dataset) or _are_indices(dataset, classes))
        if ready or label_column not in column_names(dataset):
            return dataset
    inputs: list[str] = [] if prepared else columns.inputs_of(dataset, processing_class)
    if isinstance(dataset, Dataset) and transform is None:
        dataset, label_column = _with_one_label_column(dataset, label_column, classes)
    encode_labels = _label_encoder(dataset, label_column, classes)
    limits = (max_length, vocabulary, fewest_samples)
    encode_rows = _row_encoder(processing_class, inputs, limits, label_column, encode_labels)
    present = column_names(dataset)
    removed = [label_column] if prepared else [name for name in present if name not in columns.of_loss]
    removed = [name for name in removed if name in present]
    if isinstance(dataset, IterableDataset):
        return dataset.map(encode_rows, batched=True, with_indices=True, remove_columns=removed)
    dataset = dataset.with_format(None)
    if transform is None and (prepared or isinstance(processing_class, PreTrainedTokenizerBase)):
        # Map without the teacher's columns: `map` would copy them, and tokenize anew for another teacher.
        teacher = [name for name in columns.of_loss if name in present]
        with PartialState().main_process_first(), _file_row_told(dataset):
            own = dataset.remove_columns(teacher).map(
                encode_rows,
                batched=True,
                with_indices=True,
                remove_columns=[name for name in removed if name not in teacher],
                desc="Tokenizing",
            )
        return with_columns(own, dataset.select_columns(teacher)) if teacher else own
    if label_column in present:
        labels = encode_labels(column_values(dataset, label_column))
        dataset = with_columns(dataset, Dataset.from_dict({"labels": labels}))
    kept: list[str] = [name for name in ("labels", *columns.of_loss) if name in dataset.column_names]
    if transform is None:
        dataset = dataset.select_columns([*inputs, *kept])
    return dataset.with_transform(
        OnTheFly(
            processing_class,
            inputs,
            max_length,
            kept,
            transform,
            vocabulary=vocabulary,
            fewest_samples=fewest_samples,
        )
    )


@contextmanager
def _file_row_told(dataset: Dataset) -> Iterator[None]:
    """Let the error of a row within the block also tell its row in the file that the rows were drawn from."""
    try:
        yield
    except RowError as error:
        mistake = error.in_dataset(error.row, dataset)
        raise mistake from error


def _shown(dataset: AnyDataset, columns: RunColumns) -> AnyDataset:
    """Drop the columns that the dataset's format hides, but keep those of the loss."""
    if not isinstance(dataset, Dataset):
        return dataset
    shown = shown_columns(dataset)
    kept = [name for name in dataset.column_names if name in shown or name in columns.of_loss]
    return dataset if kept == dataset.column_names else dataset.select_columns(kept)


def _label_encoder(dataset: Any, label_column: str, classes: Classes) -> Callable[[Iterable[Any]], list[int]]:
    """Return a function from labels as they stand in the dataset to class indices of the run."""
    order = in_order_of(classes.names, (dataset.features or {}).get(label_column))

    def encode_labels(values: Iterable[Any]) -> list[int]:
        return [label if order is None or label < 0 else order[label] for label in classes.encode(values)]

    return encode_labels


def _encode(
    processing_class: Processor,
    batch: dict[str, Any],
    columns: Sequence[str],
    max_length: int | None,
    vocabulary: int | None,
    fewest_samples: int | None,
) -> dict[str, list[Any]]:
    """Encode a batch as the student's inputs; refuse tokens that it does not embed, and sounds too short for it."""
    encoded = encode(processing_class, batch, columns, max_length)
    if isinstance(processing_class, PreTrainedTokenizerBase):
        check_vocabulary(processing_class, encoded["input_ids"], vocabulary)
    if fewest_samples is not None:
        check_samples(encoded[input_name(processing_class)], fewest_samples)
    return encoded


def _row_encoder(
    processing_class: Processor | None,
    inputs: Sequence[str],
    limits: tuple[int | None, int | None, int | None],
    label_column: str,
    encode_labels: Callable[[Iterable[Any]], list[int]],
) -> Callable[[dict[str, Any], list[int]], dict[str, Any]]:
    """Return a function for `Dataset.map`, from a batch of raw rows to the student's inputs and labels."""

    # A closure, because datasets hashes its code for the cache. Of a method or a class it hashes only the name.
    def encode_rows(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        encoded: dict[str, Any] = {}
        if inputs and processing_class is not None:
            try:
                encoded = _encode(processing_class, batch, inputs, *limits)
            except RowError as error:
                mistake = error.in_dataset(rows[error.row])
                raise mistake from error
            except ValueError as error:
                raise ValueError(f"Rows {rows[0]} to {rows[-1]} of the dataset: {error}") from error
        return encoded | ({"labels": encode_labels(batch[label_column])} if label_column in batch else {})

    return encode_rows


def _with_one_label_column(dataset: Dataset, label_column: str, classes: Classes) -> tuple[Dataset, str]:
    """Free the name "labels" for our column, and return the dataset and the column to encode.

    Otherwise `map` would write our column with the type of the old one, and −100 as a boolean is true.
    """
    if not {"labels", label_column} <= {*dataset.column_names}:
        return dataset, label_column
    if label_column == "labels":
        return dataset.rename_column("labels", "labels as they came"), "labels as they came"
    _check_same_labels(dataset, label_column, classes)
    return dataset.remove_columns("labels"), label_column


def _check_same_labels(dataset: Dataset, label_column: str, classes: Classes) -> None:
    own, other = (classes.encode(column_values(dataset.with_format(None), name)) for name in (label_column, "labels"))
    if own != other:
        raise ValueError(
            f"The data has {label_column!r} and 'labels', and they differ. Drop or rename the column that is not meant,"
            " or set label_column."
        )


def _are_indices(dataset: Dataset, classes: Classes) -> bool:
    """Whether `labels` holds only class indices and −100 already."""
    values = dataset.unique("labels")
    return all(type(value) is int for value in values) and classes.encode(values) == values


def check_prepared(dataset: Any, input_name: str) -> None:
    """Check that a dataset has the model's inputs, where there is nothing to make them with.

    Raises:
        ValueError: if they are missing.
    """
    if not isinstance(dataset, Dataset) or transform_of(dataset) is not None:
        return
    if not {input_name, "inputs_embeds"} & {*dataset.column_names}:
        raise ValueError(
            f"The training data has no {input_name} (it has {', '.join(dataset.column_names)}), and there is nothing to"
            " make them with: pass the student's tokenizer, image processor or feature extractor as processing_class."
        )


@dataclass(frozen=True)
class OnTheFly:
    """Transforms rows into inputs each time that they are read: images, sound or augmented texts.

    Attributes:
        processing_class: of the student; `None` where `transform` does everything.
        columns: the ones that `processing_class` reads.
        max_length: see `encode`.
        kept: columns that pass as they are: labels and the teacher's.
        transform: the user's own, applied to all columns first. What it gives for `columns` is encoded, unless it
            gives the model's input itself.
        wanted: names of the model's arguments, to let through; `None` lets all but `columns` through.
        apart: columns that are read apart from the rows, and stay out of them.
        vocabulary: how many tokens the student embeds, where known.
        fewest_samples: how many samples of a sound the student needs, where known.
    """

    processing_class: Processor | None
    columns: Sequence[str]
    max_length: int | None
    kept: Sequence[str]
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    wanted: Collection[str] | None = None
    apart: Collection[str] = ()
    vocabulary: int | None = None
    fewest_samples: int | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the student's inputs for a batch of rows, and add the kept columns."""
        rows = dict(batch if self.transform is None else self.transform(dict(batch)))
        if self.columns and self.processing_class is not None and input_name(self.processing_class) not in rows:
            limits = (self.max_length, self.vocabulary, self.fewest_samples)
            rows |= _encode(self.processing_class, rows, self.columns, *limits)
        rows |= {name: batch[name] for name in self.kept if name not in self.apart}
        wanted = {*rows} - {*self.columns} if self.wanted is None else {*self.wanted, *self.kept}
        return {name: values for name, values in rows.items() if name in wanted and name not in self.apart}
