"""Makes batches of the student's rows, with the teacher's columns beside them: one array a batch, not lists a row."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.table import Table
from numpy.typing import NDArray

from hf_lelp.data.rows import transform_of
from hf_lelp.training.student_inputs import OnTheFly

COPIED_BYTES = 16 * 2**20  # of a column in several chunks; as one array it is read in a tenth of the time


class ColumnArrays:
    """A column of numbers, or of lists of one shape, whose rows are gathered by number.

    Holds a view of each chunk of the column, and copies only small columns of several chunks. A process that gets it
    pickled makes its own views.

    Args:
        table: with the column alone.
        views: of the chunks that have rows, (n, ...) each, of one shape and dtype.
    """

    def __init__(self, table: Table, views: list[NDArray]) -> None:
        self.table = table
        self.shape, self.dtype = views[0].shape[1:], views[0].dtype
        self._whole = views[0] if len(views) == 1 else None
        if len(views) > 1 and sum(view.nbytes for view in views) <= COPIED_BYTES:
            self._whole = np.concatenate(views)
        self._row_bytes = views[0][:1].nbytes
        self._chunks = [view.reshape(-1).view(np.uint8).data for view in views]
        self._starts = np.cumsum([0, *map(len, views[:-1])])

    @classmethod
    def of(cls, table: Table, name: str) -> "ColumnArrays | None":
        """Return the arrays of a column; `None` if it has no rows, or they are not all numbers of one shape."""
        own = table.select([name])
        views = [chunk_view(chunk) for chunk in own.column(0).chunks if len(chunk)]
        found = [view for view in views if view is not None and view.size]
        if not found or len(found) < len(views) or len({view.shape[1:] for view in found}) > 1:
            return None
        return cls(own, found)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Table, str]]:
        return ColumnArrays.of, (self.table, self.table.column_names[0])

    def __call__(self, rows: NDArray[np.integer]) -> NDArray:
        """Gather rows, (n,) numbers from 0 on: (n, ...), in the column's dtype."""
        if self._whole is not None:
            return np.take(self._whole, rows, axis=0)
        rows = rows.astype(np.int64)
        chunks = self._starts.searchsorted(rows, side="right") - 1
        firsts = (rows - self._starts[chunks]) * self._row_bytes
        # The rows of a batch may be in as many chunks: bytes are joined faster than NumPy is called for each chunk.
        places = zip(chunks.tolist(), firsts.tolist(), strict=True)
        joined = bytearray().join([self._chunks[chunk][first : first + self._row_bytes] for chunk, first in places])
        return np.frombuffer(joined, self.dtype).reshape(len(rows), *self.shape)


def row_order(dataset: Dataset) -> ColumnArrays | None:
    """Return the stored row of each row of a dataset that was shuffled or selected; `None` if it is as stored."""
    return None if dataset._indices is None else ColumnArrays.of(dataset._indices, "indices")


def chunk_view(chunk: pa.Array) -> NDArray | None:
    """Return the numbers of a chunk where they lie, (n, ...); `None` if its lists differ in shape or one is missing."""
    shape: list[int] = []
    values, rows = chunk, len(chunk)
    while isinstance(values, pa.ExtensionArray) or hasattr(values.type, "value_type"):
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
            continue
        if values.null_count:
            return None
        if pa.types.is_fixed_size_list(values.type):
            width = values.type.list_size
        elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            widths = np.diff(values.offsets)
            width = int(widths[0]) if len(widths) else 0
            if (widths != width).any():
                return None
        else:
            return None
        shape.append(width)
        values = values.flatten()
    if values.null_count or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        return None
    return values.to_numpy(zero_copy_only=True).reshape(rows, *shape)


class Batch(NamedTuple):
    """What the data collator is given, and what goes around it.

    Attributes:
        rows: of the student.
        columns: of the teacher, by name; one row each for `rows`, in their order.
    """

    rows: list[dict[str, Any]]
    columns: dict[str, torch.Tensor]


class RowsAndColumns(torch.utils.data.Dataset):
    """Rows of the student, and columns of the teacher, which a DataLoader reads as a `Batch`.

    Attributes:
        dataset: the rows: a `Dataset`, or arrays in memory.
        columns: by name; they are read as they are stored.
        order: the stored row of each row, where these differ.
    """

    def __init__(self, dataset: Any, columns: dict[str, ColumnArrays], order: ColumnArrays | None) -> None:
        self.dataset = dataset
        self.columns = columns
        self.order = order

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        columns = self._columns_of([row])
        return {**self.dataset[row], **{name: values[0] for name, values in columns.items()}}

    def __getitems__(self, rows: list[int]) -> Batch:
        """Return a batch; torch's DataLoader calls this with the rows of one."""
        return Batch(self.dataset.__getitems__(rows), self._columns_of(rows))

    def _columns_of(self, rows: list[int]) -> dict[str, torch.Tensor]:
        numbers = np.asarray(rows) % len(self)  # as datasets counts
        stored = numbers if self.order is None else self.order(numbers)
        return {name: as_floats(gather(stored)) for name, gather in self.columns.items()}


def as_floats(values: np.ndarray) -> torch.Tensor:
    """Return a tensor in float16 or float32 as they come; all other numbers become float32, as from Python lists."""
    tensor = torch.from_numpy(values)
    return tensor if tensor.dtype in (torch.float16, torch.float32) else tensor.float()


@dataclass(frozen=True)
class AroundCollator:
    """Collates a `Batch`: the rows by the run's collator, and the teacher's columns as they are.

    Attributes:
        collate: from rows to a batch, as in Trainer. It must keep the rows and their order.
    """

    collate: Callable[[list[dict[str, Any]]], Any]

    def __call__(self, batch: Batch) -> Any:
        """Return what the collator makes of the rows, with the teacher's columns added.

        Raises:
            ValueError: if the labels show that the collator dropped, repeated or reordered rows.
        """
        given = [row.get("labels") for row in batch.rows]
        collated = self.collate(batch.rows)
        if batch.columns:
            check_order(given, collated.get("labels"))
            collated.update(batch.columns)
        return collated


def check_order(given: list[Any], collated: Any) -> None:
    """Refuse a collator that drops, repeats or reorders rows, where labels show it. It may change the labels.

    Args:
        given: the rows' labels.
        collated: those of the batch, (n,); anything else is not checked.

    Raises:
        ValueError: if the rows of the teacher would not be those of the student.
    """
    if not isinstance(collated, torch.Tensor) or collated.ndim != 1 or given == (after := collated.tolist()):
        return
    if len(given) != len(after) or (None not in given and sorted(map(int, given)) == sorted(after)):
        raise ValueError(
            f"The data collator was given {len(given)} rows and returned {len(after)}, or in another order: their"
            " labels differ. The teacher's columns are added after it, in the order of the rows that it was given. Let"
            " it keep all rows in their order."
        )


def rows_and_columns(
    dataset: Dataset, of_loss: Collection[str], wanted: Collection[str] | None
) -> RowsAndColumns | None:
    """Take the columns of the loss, the teacher's above all, out of a prepared dataset's rows.

    A column with a missing row, or with rows of several shapes, stays in the rows for the collator to handle.

    Args:
        dataset: prepared for the student.
        of_loss: names of such columns, whether the dataset has them or not.
        wanted: the columns to read; `None` is all.

    Returns:
        `None` if there is nothing to take out.
    """
    if not is_readable(dataset):
        return None
    present = [name for name in of_loss if name in dataset.column_names]
    arrays = {name: ColumnArrays.of(dataset.data, name) for name in present if wanted is None or name in wanted}
    columns = {name: found for name, found in arrays.items() if found is not None}
    apart = [name for name in present if name in columns or name not in arrays]
    return RowsAndColumns(rows_without(dataset, apart), columns, row_order(dataset)) if apart else None


def is_readable(dataset: Any) -> bool:
    """Whether rows of a dataset can be read without some of its columns: no transform but ours makes them."""
    return isinstance(dataset, Dataset) and isinstance(transform_of(dataset), OnTheFly | None)


def rows_without(dataset: Dataset, apart: Collection[str]) -> Dataset:
    """Return a dataset whose rows lack some columns; a transform of the user's own still sees them."""
    transform = transform_of(dataset)
    if isinstance(transform, OnTheFly):
        dataset = dataset.with_transform(replace(transform, apart=apart))
        if transform.transform is not None:
            return dataset
    return dataset.remove_columns([name for name in apart if name in dataset.column_names])
