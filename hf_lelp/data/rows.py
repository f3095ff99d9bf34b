"""Reads, joins, splits and hashes the rows of a dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import xxhash
from datasets import Audio, Dataset, Features, Image, IterableDataset, concatenate_datasets
from datasets.table import ConcatenationTable, MemoryMappedTable, Table, embed_table_storage
from torch.utils.data import Subset

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
    table = _without_views(part.with_format("arrow")[:])
    # `take` copies: the buffers of a slice also hold the rows outside it.
    table = table.take(pa.array(range(len(table))))
    key = xxhash.xxh3_128()
    for name, feature in media_columns(part).items():
        # The files' bytes, not their paths; and how they are decoded.
        schema = Features({name: feature}).arrow_schema
        files = embed_table_storage(table.select([name]).cast(schema))[name].combine_chunks().field("bytes")
        table = table.set_column(table.schema.get_field_index(name), name, files)
        key.update(repr(feature).encode())
    table = table.combine_chunks().replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    key.update(sink.getvalue())
    return key.hexdigest()
