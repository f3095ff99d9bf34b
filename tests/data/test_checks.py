"""Columns that come with the data: taken, or refused with the row."""

import math
from typing import Any

import numpy as np
import pytest
import tiny
from datasets import Array2D, Dataset, Features, List, Value

from hf_lelp.data.checks import check_numbers, check_tokens
from hf_lelp.data.text import vocabulary_size

GOOD = [[0.5, 1.0], [2.0, -3.0], [0.0, 7.0]]


@pytest.mark.parametrize(
    ("rows", "dimensions", "shape"),
    [
        (GOOD, 1, (2,)),
        ([[1, 2], [3, 4]], 1, (2,)),
        ([GOOD, GOOD], 2, (3, 2)),
        (np.zeros((5000, 2), dtype=np.float32), 1, (2,)),
    ],
)
def test_numbers_of_one_shape(rows: Any, dimensions: int, shape: tuple[int, ...]) -> None:
    assert check_numbers(Dataset.from_dict({"x": rows}), "x", dimensions) == shape


def test_declared_shapes() -> None:
    fixed = Features({"x": List(Value("float16"), length=2)})
    assert check_numbers(Dataset.from_dict({"x": GOOD}, features=fixed), "x", 1) == (2,)
    arrays = Features({"x": Array2D((3, 2), "float32")})
    assert check_numbers(Dataset.from_dict({"x": [GOOD, GOOD]}, features=arrays), "x", 2) == (3, 2)


@pytest.mark.parametrize("rows", [[1.0, 2.0], ["0"], [["0", "1"]], [[[0.0]]], [None], [[True, False]]])
def test_another_type_is_refused(rows: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"The column x holds .* and lists of numbers are expected under that name"):
        check_numbers(Dataset.from_dict({"x": rows}), "x", 1)


@pytest.mark.parametrize("bad", [[0.0], [0.0] * 3, []])
@pytest.mark.parametrize("row", [0, 1, 4999])
def test_a_row_of_another_shape_is_named(bad: list[float], row: int) -> None:
    rows = [[0.0, 1.0]] * 5000
    rows[row] = bad
    with pytest.raises(ValueError, match=rf"Row {row or 1} of the column x has shape .*, where others have"):
        check_numbers(Dataset.from_dict({"x": rows}), "x", 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_a_row_that_is_not_finite_is_named(bad: float | None) -> None:
    rows: list[Any] = [[0.0, 1.0]] * 5000
    rows[4500] = [0.0, bad]
    with pytest.raises(ValueError, match=r"The x of row 4500 is not finite \(NaN, infinite or missing\)"):
        check_numbers(Dataset.from_dict({"x": rows}), "x", 1)


def test_a_missing_row_is_named_and_counts_only_where_it_is_in_the_dataset() -> None:
    data = Dataset.from_dict({"x": [*GOOD, None]})
    with pytest.raises(ValueError, match="Row 3 of the column x is missing"):
        check_numbers(data, "x", 1)
    assert check_numbers(data.select(range(3)), "x", 1) == (2,)


def test_no_rows() -> None:
    with pytest.raises(ValueError, match="The column x has no rows"):
        check_numbers(Dataset.from_dict({"x": GOOD}).select([]), "x", 1)


def test_tokens_of_the_students_vocabulary() -> None:
    size = vocabulary_size(tiny.classifier())
    assert size == 20
    rows = [[2, size - 1, 3], [], [0]]
    check_tokens(Dataset.from_dict({"input_ids": rows}), size)
    check_tokens(Dataset.from_dict({"text": ["a"]}), size)
    for bad in (size, -1):
        with pytest.raises(ValueError, match=rf"input_ids of row 3 go from .* vocabulary from 0 to {size - 1}"):
            check_tokens(Dataset.from_dict({"input_ids": [*rows, [1, bad]]}), size)
    with pytest.raises(ValueError, match="lists of whole numbers are expected"):
        check_tokens(Dataset.from_dict({"input_ids": ["text"]}), size)
