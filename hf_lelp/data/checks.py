"""Checks the library's columns: are they there, who made them, and can the loss and the student use their values?

Checks of values run before training. They read a column in pieces, and name the first row that is wrong.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray
from torch.utils.data import Subset

PIECE_ROWS = 4096


def check_numbers(dataset: Dataset, column: str, dimensions: int) -> tuple[int, ...]:
    """Check that every row of a column holds finite numbers in lists of one shape, and return that shape.

    Args:
        dataset: with the column.
        column: its name.
        dimensions: 1 for lists of numbers, 2 for lists of such lists.

    Raises:
        ValueError: if the column has another type or no rows, or a row has another shape or is not finite.
    """
    if not len(dataset):
        raise ValueError(f"The column {column} has no rows: there is nothing to train on.")
    check_type(dataset, column, dimensions)
    shape: tuple[int, ...] | None = None
    start = 0
    for batch in dataset.select_columns([column]).with_format("numpy").iter(PIECE_ROWS):
        values = as_array(batch[column], column, dimensions, start)
        shape = values.shape[1:] if shape is None else shape
        if values.shape[1:] != shape:
            raise ValueError(
                f"Row {start} of the column {column} has shape {values.shape[1:]}, where others have {shape}. Make the"
                " column again, or drop that row."
            )
        check_finite(values, column, start)
        start += len(values)
    assert shape is not None
    return shape


def check_type(dataset: Dataset, column: str, dimensions: int, *, whole: bool = False) -> None:
    """Check that a column is declared as lists of numbers, and that no row is missing.

    Args:
        dataset: with the column.
        column: its name.
        dimensions: how deep the lists are.
        whole: whether the numbers must be integers.

    Raises:
        ValueError: if it is declared as something else, or a row is missing.
    """
    type_ = dataset.features.arrow_schema.field(column).type
    depth = 0
    while isinstance(type_, pa.ExtensionType) or hasattr(type_, "value_type"):
        depth += not isinstance(type_, pa.ExtensionType)
        type_ = type_.storage_type if isinstance(type_, pa.ExtensionType) else type_.value_type
    if depth != dimensions or not (pa.types.is_integer(type_) or (not whole and pa.types.is_floating(type_))):
        expected = f"{'lists of ' * dimensions}{'whole ' if whole else ''}numbers"
        raise ValueError(
            f"The column {column} holds {dataset.features[column]}, and {expected} are expected under that name."
            " Make it again, or rename it if it is something else."
        )
    if dataset.data.column(column).null_count:  # also counts rows that a selection left out
        values = dataset.select_columns([column]).with_format(None)[:][column]
        row = next((row for row, value in enumerate(values) if value is None), None)
        if row is not None:
            raise ValueError(f"Row {row} of the column {column} is missing. Make the column again, or drop that row.")


def as_array(values: Any, column: str, dimensions: int, first_row: int) -> NDArray[np.floating]:
    """Convert rows of a column to an array, (n, ...): floats keep their type, all else becomes float64.

    Args:
        values: n rows, as the "numpy" format of datasets gives them.
        column: its name, for messages.
        dimensions: of a row.
        first_row: number of the first row, for messages.

    Raises:
        ValueError: if a row does not have the shape of the first one.
    """
    try:
        array = np.asarray(values)
        array = array if array.dtype.kind == "f" else array.astype(np.float64)
    except (TypeError, ValueError):  # rows of several shapes
        array = np.empty(0)
    if array.ndim == 1 + dimensions:
        return array
    shapes = [np.shape(value) for value in values]
    first = next((shape for shape in shapes if len(shape) == dimensions), ())
    row = next((row for row, shape in enumerate(shapes) if shape != first), 0)
    raise ValueError(
        f"Row {first_row + row} of the column {column} has shape {shapes[row]}, where others have {first}. Make the"
        " column again, or drop that row."
    )


def check_finite(values: NDArray[np.floating], column: str, first_row: int) -> None:
    """Check that no row of (n, ...) holds NaN or infinity.

    Raises:
        ValueError: naming the first row that does.
    """
    finite = np.isfinite(values).reshape(len(values), -1).all(-1)
    if not finite.all():
        raise ValueError(
            f"The {column.replace('_', ' ')} of row {first_row + int(finite.argmin())} is not finite (NaN, infinite or"
            " missing). Check what the teacher read there, or run it in float32 (teacher_dtype)."
        )


def check_mark(found: Collection[str], expected: str, maker: str) -> None:
    """Refuse columns that the teacher or projections at hand did not make.

    Args:
        found: values of the column that holds the maker's fingerprint.
        expected: fingerprint of the teacher or projections at hand.
        maker: "teacher" or "projections".

    Raises:
        ValueError: naming both fingerprints.
    """
    others = sorted(set(found) - {expected})
    if others:
        raise ValueError(
            f"The prepared columns were made by the {maker} of fingerprint {', '.join(others)}, and the {maker} at hand"
            f" is {expected} (other weights, data type, settings or order of classes). Use the {maker} that made them,"
            " or make the columns again."
        )


def require_columns(present: list[str], *names: str) -> None:
    """Refuse a dataset that the teacher was not run over.

    Args:
        present: columns of the dataset.
        names: columns that are needed.

    Raises:
        ValueError: naming the missing columns and those of the dataset.
    """
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(
            f"The dataset has no column {', '.join(missing)} (it has {', '.join(present)})."
            " Run the teacher over it first: dataset.map(teacher, batched=True)."
        )


def check_tokens(dataset: Any, size: int | None) -> None:
    """Check that the `input_ids` of a dataset are in the student's vocabulary. Data without them passes.

    Args:
        dataset: of any kind.
        size: see `vocabulary_size`.

    Raises:
        ValueError: if the column holds something else, or tokens outside the vocabulary.
    """
    if (
        not isinstance(dataset, Dataset)
        or "input_ids" not in dataset.column_names
        or dataset.format["type"] == "custom"
    ):
        return
    check_type(dataset, "input_ids", 1, whole=True)
    start = 0
    for table in dataset.select_columns(["input_ids"]).with_format("arrow").iter(PIECE_ROWS):
        tokens = table["input_ids"].combine_chunks()
        found = pc.min_max(tokens.flatten()).as_py()
        if found["min"] is not None and (found["min"] < 0 or (size is not None and found["max"] >= size)):
            row = next(row for row, of_row in enumerate(tokens.to_pylist()) if not _in_range(of_row, size))
            of_row = tokens[row].as_py()
            raise ValueError(
                f"The input_ids of row {start + row} go from {min(of_row)} to {max(of_row)}, and the student's"
                f" vocabulary from 0 to {size - 1 if size else 'its end'}. Make them with the student's tokenizer, or"
                " rename the column if it is something else."
            )
        start += len(tokens)


def check_rows(dataset: Any, input_name: str | None = None) -> None:
    """Refuse data that Trainer cannot read, or would read as something else.

    Args:
        dataset: what was passed as the dataset.
        input_name: the model's first input, which every row of a list must have; `None` where rows may be anything.

    Raises:
        ValueError: for a file name, a dictionary of splits, a pandas DataFrame, or a list of raw rows.
    """
    if isinstance(dataset, Subset):
        check_rows(dataset.dataset, input_name)
        return
    kind, advice = type(dataset).__name__, None
    if isinstance(dataset, str):
        advice = "load the file: datasets.load_dataset('csv', data_files=...)['train']"
    elif isinstance(dataset, Mapping):
        advice = f"choose one of its splits ({', '.join(map(str, dataset))})"
    elif kind == "DataFrame":
        advice = "use datasets.Dataset.from_pandas(...)"
    elif isinstance(dataset, list) and dataset and input_name is not None:
        if isinstance(dataset[0], str):
            advice = "use datasets.Dataset.from_dict({'text': [...]})"
        elif isinstance(dataset[0], Mapping) and not {input_name, "inputs_embeds"} & {*dataset[0]}:
            advice = f"its rows have no {input_name}. Use datasets.Dataset.from_list(...)"
    if advice is not None:
        raise ValueError(f"A {kind} is no dataset of raw rows: {advice}.")


def check_directions(num_directions: int, num_subclasses: int) -> None:
    """Refuse more subclasses, S, than the projections have directions, K.

    Raises:
        ValueError: if S > K.
    """
    if num_subclasses > num_directions:
        raise ValueError(
            f"num_subclasses={num_subclasses}, but these projections hold {num_directions} directions per class. Fit"
            f" them with num_directions={num_subclasses} or more."
        )


def _in_range(tokens: list[int], size: int | None) -> bool:
    return all(token >= 0 and (size is None or token < size) for token in tokens)
