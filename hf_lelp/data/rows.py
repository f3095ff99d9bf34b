"""Rows of a dataset: reading whole columns, joining, splitting, and what they are known by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import xxhash
from datasets import Audio, Dataset, Features, Image, IterableDataset, concatenate_datasets
from datasets.table import ConcatenationTable, MemoryMappedTable, Table, embed_table_storage

Transform = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class TransformOfColumns:
    """A transform that sees some columns alone, as `set_transform(..., columns=…, output_all_columns=…)` says.

    Attributes:
        transform: the user's own.
        columns: that it sees.
        output_all_columns: whether the others pass as they are.
    """

    transform: Transform
    columns: Sequence[str]
    output_all_columns: bool

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the dataset gives for a batch of all its columns."""
        seen = {name: values for name, values in batch.items() if name in self.columns}
        others = {name: values for name, values in batch.items() if self.output_all_columns and name not in seen}
        return {**others, **self.transform(seen)}


def transform_of(dataset: Any) -> Transform | None:
    """The transform that was set on a dataset (`set_transform`), if any, to be applied to all its columns."""
    if not isinstance(dataset, Dataset) or dataset.format["type"] != "custom":
        return None
    form = dataset.format
    transform: Transform = form["format_kwargs"]["transform"]
    if {*form["columns"]} == {*dataset.column_names}:
        return transform
    return TransformOfColumns(transform, tuple(form["columns"]), form["output_all_columns"])


def shown_columns(dataset: Dataset) -> list[str]:
    """The columns that a dataset shows: `set_format(..., columns=…)` hides the others."""
    form = dataset.format
    return dataset.column_names if form["output_all_columns"] else list(form["columns"])


def column_names(dataset: Dataset | IterableDataset) -> list[str]:
    """Those of the dataset; a stream that does not tell is asked for its first row."""
    names: list[str] | None = dataset.column_names
    return names or list(next(iter(dataset), {}))


def column_values(dataset: Dataset, column: str) -> Any:
    """A whole column at once, in the dataset's format: a `Column` would be read row by row."""
    return dataset.select_columns([column])[:][column]


def with_columns(dataset: Dataset, columns: Dataset) -> Dataset:
    """The dataset with further columns, row by row; columns of the same name are replaced, its format stays."""
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
    """The dataset in parts of so many rows, the last one shorter."""
    starts = range(0, len(dataset), rows)
    return [dataset.select(range(start, min(start + rows, len(dataset)))) for start in starts]


def mapped_anew(part: Dataset) -> Dataset:
    """The same rows through memory maps of their own, which go when it goes; without a format.

    Pages of a file that were read count as this process's memory for as long as the map is there that they were read
    through: with the maps of a whole dataset, all of it would in the end.
    """
    if part._indices is not None:  # a selection of rows here and there
        return part.with_format(None)
    return Dataset(_mapped_anew(part.data), info=part.info, fingerprint=part._fingerprint)


def _mapped_anew(table: Table) -> Table:
    if isinstance(table, ConcatenationTable):
        return ConcatenationTable.from_blocks([[_mapped_anew(block) for block in row] for row in table.blocks])
    # A slice of no columns to the end comes back whole from a replay (pyarrow forgets its rows).
    if not isinstance(table, MemoryMappedTable) or not table.num_columns:
        return table
    return MemoryMappedTable.from_file(table.path, table.replays)


def media_columns(dataset: Dataset) -> dict[str, Image | Audio]:
    """The columns that are decoded when they are read."""
    return {name: feature for name, feature in dataset.features.items() if isinstance(feature, Image | Audio)}


def content_hash(part: Dataset) -> str:
    """Hash of the rows themselves, whatever file, order of operations or library version they came through."""
    table = part.with_format("arrow")[:]
    # take copies: a slice's buffers would carry what is outside it.
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
