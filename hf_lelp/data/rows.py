"""Reads, joins, splits and hashes the rows of a dataset."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Number
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from datasets import Audio, Dataset, Features, Image, IterableDataset, Value, concatenate_datasets
from datasets.formatting.formatting import LazyRow
from datasets.table import ConcatenationTable, MemoryMappedTable, Table, embed_table_storage
from numpy.typing import NDArray
from torch.utils.data import Subset

from hf_lelp.storage.shards import SHARD_ROWS

logger = logging.getLogger(__name__)

Transform = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class TransformOfColumns:
    """A transform that sees only some columns, as `set_transform(..., columns=…, output_all_columns=…)` says.

    Attributes:
        transform: the user's own.
        columns: the ones that it sees.
        output_all_columns: whether the other columns pass unchanged.
    """

    transform: Transform
    columns: Sequence[str]
    output_all_columns: bool

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return what the dataset gives for a batch of all its columns."""
        seen = {name: values for name, values in batch.items() if name in self.columns}
        others = {name: values for name, values in batch.items() if self.output_all_columns and name not in seen}
        return {**others, **self.transform(seen)}


class RowError(ValueError):
    """Raised for a value that no model can take; it names the row.

    Args:
        what: is wrong with the row; goes on from "Row 7 of the dataset".
        row: its number, from 0.
        where: the rows are counted.
    """

    def __init__(self, what: str, row: int, where: str = "a batch") -> None:
        super().__init__(f"Row {row} of {where} {what}")
        self.what, self.row = what, row

    def in_dataset(self, row: int, rows: Dataset | None = None) -> "RowError":
        """Return the same error of a row of the dataset.

        Args:
            row: its number in the dataset.
            rows: the dataset, or the part of it in which `self.row` counts; it tells the row of the file, where the
                rows were drawn from one.
        """
        indices = None if rows is None else rows._indices
        where = "the dataset"
        if indices is not None:
            where += f" (row {indices.column(0)[self.row].as_py()} of the file or dataset that it was drawn from)"
        return RowError(self.what, row, where)


def transform_of(dataset: Any) -> Transform | None:
    """Return a dataset's transform (`set_transform`) as a function of all its columns, or `None`."""
    if not isinstance(dataset, Dataset) or dataset.format["type"] != "custom":
        return None
    form = dataset.format
    transform: Transform = form["format_kwargs"]["transform"]
    if {*form["columns"]} == {*dataset.column_names}:
        return transform
    return TransformOfColumns(transform, tuple(form["columns"]), form["output_all_columns"])


def shown_columns(dataset: Dataset) -> list[str]:
    """Return the columns that a dataset shows: `set_format(..., columns=…)` hides the others."""
    form = dataset.format
    return dataset.column_names if form["output_all_columns"] else list(form["columns"])


def rows_of(dataset: Any) -> Any:
    """Return a `torch.utils.data.Subset` of a `datasets.Dataset` as a dataset of its rows; all else comes as it is."""
    if not isinstance(dataset, Subset):
        return dataset
    whole = rows_of(dataset.dataset)
    return whole.select(dataset.indices) if isinstance(whole, Dataset) else dataset


def column_names(dataset: Dataset | IterableDataset) -> list[str]:
    """Return the column names of a dataset; a stream that does not know them is asked for its first row."""
    names: list[str] | None = dataset.column_names
    return names or list(next(iter(dataset), {}))


def check_batched(batch: Any, column: str, given: str) -> None:
    """Refuse one row where a batch is expected: `Dataset.map` without `batched=True` gives one.

    Args:
        batch: what `map` gave.
        column: one that is read.
        given: what was mapped; for the message.

    Raises:
        ValueError: if it is a row.
    """
    value: Any = None if isinstance(batch, LazyRow) else batch[column]
    is_row = isinstance(value, str | Mapping) or not hasattr(value, "__len__")
    if is_row or (len(value) and isinstance(value[0], Number)):
        raise ValueError(f"One row was given, and batches of rows are expected: dataset.map({given}, batched=True).")


def column_values(dataset: Dataset, column: str) -> Any:
    """Return a whole column at once, in the dataset's format: a `Column` would be read row by row."""
    return dataset.select_columns([column])[:][column]


def with_columns(dataset: Dataset, columns: Dataset) -> Dataset:
    """Add columns to a dataset, row by row: they replace columns of the same name, and its format stays."""
    form = dataset.format
    own = dataset.with_format(None)
    replaced = [name for name in columns.column_names if name in own.column_names]
    joined = concatenate_datasets([own.remove_columns(replaced), columns.with_format(None)], axis=1)
    shown = [name for name in form["columns"] if name in own.column_names and name not in replaced]
    return joined.with_format(
        form["type"],
        columns=[*shown, *columns.column_names],
        output_all_columns=form["output_all_columns"],
        **form["format_kwargs"],
    )


def split_rows(dataset: Dataset, rows: int) -> list[Dataset]:
    """Split a dataset into parts of `rows` rows; the last one may be shorter."""
    starts = range(0, len(dataset), rows)
    return [dataset.select(range(start, min(start + rows, len(dataset)))) for start in starts]


def mapped_anew(part: Dataset) -> Dataset:
    """Return the same rows, without a format, through memory maps of their own, which close with them.

    Pages read through a memory map count as this process's memory until that map closes. With the maps of a whole
    dataset, all of it would count in the end.
    """
    if part._indices is not None:  # scattered rows
        return part.with_format(None)
    return Dataset(_mapped_anew(part.data), info=part.info, fingerprint=part._fingerprint)


def _mapped_anew(table: Table) -> Table:
    if isinstance(table, ConcatenationTable):
        return ConcatenationTable.from_blocks([[_mapped_anew(block) for block in row] for row in table.blocks])
    # A replayed slice to the end of a table without columns comes back whole: pyarrow forgets its rows.
    if not isinstance(table, MemoryMappedTable) or not table.num_columns:
        return table
    return MemoryMappedTable.from_file(table.path, table.replays)


def media_columns(dataset: Dataset) -> dict[str, Image | Audio]:
    """Return the image and sound columns: those that are decoded when they are read."""
    return {name: feature for name, feature in dataset.features.items() if isinstance(feature, Image | Audio)}


def _without_views(table: pa.Table) -> pa.Table:
    """Give texts that are stored as views, as polars does, the plain type: some functions of pyarrow take no views."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    fields = [field.with_type(plain.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields, table.schema.metadata))


def content_hash(part: Dataset) -> str:
    """Hash the rows themselves, whatever file, order of operations or library version they came through."""
    key = xxhash.xxh3_128()
    for feature in media_columns(part).values():
        key.update(repr(feature).encode())
    table = _content(part).combine_chunks().replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    key.update(sink.getvalue())
    return key.hexdigest()


def row_keys(part: Dataset) -> NDArray[np.uint64]:
    """Hash each row by its content alone: the same row has the same key in every dataset.

    Returns:
        (n, 2), the halves of 128 bits. Rows of equal keys hold the same values in columns of the same names and types.
    """
    table, media = _content(part), media_columns(part)
    columns = [
        [digest for chunk in table[name].chunks for digest in _digests(chunk, f"{name} {media.get(name, '')}")]
        for name in table.column_names
    ]
    return np.frombuffer(b"".join(_joined(columns)), dtype=np.uint64).reshape(-1, 2)


def as_bytes(keys: NDArray[np.uint64]) -> NDArray[np.void]:
    """Return the keys of `row_keys` as one value of 16 bytes a row, (n,), that can be sorted and looked for."""
    return np.ascontiguousarray(keys).view(np.dtype((np.void, 16))).ravel()


def all_keys(dataset: Dataset) -> NDArray[np.void]:
    """Hash what each row of a dataset of any size holds, (n,), values of 16 bytes; see `row_keys`."""
    parts = [row_keys(part) for part in split_rows(dataset, SHARD_ROWS)]
    return as_bytes(np.concatenate(parts)) if parts else np.empty(0, dtype="V16")


def split_at_random(
    dataset: Dataset, share: float, seed: int, columns: Sequence[str] | None = None
) -> tuple[Dataset, Dataset]:
    """Split a dataset at random, and keep rows together whose texts, images and sounds are all equal.

    Args:
        dataset: to split.
        share: of the rows to hold out.
        seed: of the choice.
        columns: that a student reads, to look in for these; `None` is all.

    Returns:
        The rows that are left, and those held out: the share that was drawn, and behind it whatever equals one of them.
    """
    drawn = Dataset.from_dict({"row": np.arange(len(dataset))}).train_test_split(test_size=share, seed=seed)
    left, held_out = (np.asarray(column_values(drawn[name], "row")) for name in ("train", "test"))
    media = media_columns(dataset)
    compared = [
        name
        for name, feature in dataset.features.items()
        if (columns is None or name in columns)
        and (name in media or (isinstance(feature, Value) and "string" in feature.dtype))
    ]
    if compared:
        keys = all_keys(dataset.with_format(None).select_columns(compared))
        equal = np.isin(keys[left], keys[held_out])
        if equal.any():
            logger.warning(f"{equal.sum():,} more rows are held out: each equals one of those drawn")
            left, held_out = left[~equal], np.concatenate([held_out, left[equal]])
    return dataset.select(left), dataset.select(held_out)


def _content(part: Dataset) -> pa.Table:
    """Return the rows in buffers of their own; of a file its bytes, not its path."""
    table = _without_views(part.with_format("arrow")[:])
    # `take` copies: the buffers of a slice also hold the rows outside it.
    table = table.take(pa.array(range(len(table))))
    for name, feature in media_columns(part).items():
        schema = Features({name: feature}).arrow_schema
        files = embed_table_storage(table.select([name]).cast(schema))[name].combine_chunks().field("bytes")
        table = table.set_column(table.schema.get_field_index(name), name, files)
    return table


def _digests(array: pa.Array, kind: str) -> list[bytes]:
    """Hash each value; `kind` says what column it is of, and seeds the hash together with the values' type."""
    if not len(array):
        return []
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_struct(array.type) and array.type.num_fields:
        fields = zip(array.type, array.flatten(), strict=True)
        own, seed = _joined([_digests(values, f"{kind} {field.name}") for field, values in fields]), 0
    else:
        bounds, content, form = _buffer(array) or _written_out(array)
        seed = xxhash.xxh3_64_intdigest(f"{kind} {form}".encode())
        own = [xxhash.xxh3_128_digest(content[start:end], seed) for start, end in pairwise(bounds)]
    if not array.null_count:
        return own
    none = xxhash.xxh3_128_digest(b"", seed ^ 1)
    return [digest if valid else none for digest, valid in zip(own, array.is_valid().to_pylist(), strict=True)]


def _joined(columns: Sequence[list[bytes]]) -> list[bytes]:
    """Make one hash of several a row."""
    if len(columns) == 1:
        return columns[0]
    return [xxhash.xxh3_128_digest(b"".join(row)) for row in zip(*columns, strict=True)]


def _buffer(array: pa.Array) -> tuple[list[int], memoryview, str] | None:
    """Return where each value begins and ends in a buffer, the buffer, and the values' type; `None` for nested ones.

    Arrow keeps texts, bytes, numbers and lists of numbers so.
    """
    kind, count, (first, last) = array.type, len(array), (array.offset, array.offset + len(array))
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if texts or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
        _, places, content = array.buffers()
        bounds = np.frombuffer(places, dtype=np.int64 if large else np.int32)[first : last + 1]
        return bounds.tolist(), memoryview(content or b""), "text" if texts else "bytes"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values, bounds = array.values, array.offsets.to_numpy()
    elif pa.types.is_fixed_size_list(kind):
        values, bounds = array.values, np.arange(first, last + 1) * kind.list_size
    else:
        values, bounds = array, np.arange(count + 1)
    if not pa.types.is_primitive(values.type) or (values is not array and values.null_count):
        return None
    form = f"{'a number' if values is array else 'numbers'} {values.type}"
    if pa.types.is_boolean(values.type):  # bits
        values = values.cast(pa.uint8())
    width = values.type.bit_width // 8
    content = memoryview(values.buffers()[1] or b"")[values.offset * width :]
    return (bounds * width).tolist(), content, form


def _written_out(array: pa.Array) -> tuple[list[int], memoryview, str]:
    """Return what `_buffer` does, of the values as Python writes them: slow, for values of any type."""
    written = [repr(value).encode() for value in array.to_pylist()]
    bounds = np.cumsum([0, *map(len, written)])
    return bounds.tolist(), memoryview(b"".join(written)), f"written {array.type}"
