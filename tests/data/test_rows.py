"""Rows of a dataset: reading, joining and what its format says."""

import pytest
import runs
from datasets import Dataset
from streams import stream

from hf_lelp.data.rows import column_names, shown_columns, transform_of, with_columns


def test_transform_of() -> None:
    dataset = Dataset.from_dict({"text": ["good"]})
    assert transform_of(dataset) is transform_of(dataset.with_format("torch")) is transform_of([1]) is None
    assert transform_of(dataset.to_iterable_dataset()) is None
    assert transform_of(dataset.with_transform(runs.losses)) is runs.losses


def test_column_names() -> None:
    raw = runs.data(4)
    assert column_names(stream(raw)) == column_names(raw) == ["text", "label"]


def test_with_columns() -> None:
    left = Dataset.from_dict({"a": [1, 2, 3], "b": [4, 5, 6]}).select([2, 0])
    right = Dataset.from_dict({"b": [7, 8], "c": [9, 10]})
    assert with_columns(left, right)[:] == {"a": [3, 1], "b": [7, 8], "c": [9, 10]}


def test_with_columns_keeps_what_a_format_hides() -> None:
    left = Dataset.from_dict({"a": [1, 2], "b": [4, 5]}).with_format("numpy", columns=["a"])
    joined = with_columns(left, Dataset.from_dict({"c": [7, 8]}))
    assert shown_columns(joined) == ["a", "c"] and joined.column_names == ["a", "b", "c"]
    assert {*joined[0]} == {"a", "c"} and joined.format["type"] == "numpy"


def test_a_transform_of_some_columns_sees_those_alone() -> None:
    dataset = Dataset.from_dict({"a": [1, 2], "b": [4, 5]})

    def double(batch: dict[str, list[int]]) -> dict[str, list[int]]:
        return {name: [2 * value for value in values] for name, values in batch.items()}

    for output_all in (False, True):
        formatted = dataset.with_transform(double, columns=["a"], output_all_columns=output_all)
        transform = transform_of(formatted)
        assert transform is not None and transform(dataset[:]) == dict(formatted[:])
        # The same, set on all columns: as a run sets it again on a dataset with further columns.
        assert dict(dataset.with_transform(transform)[:]) == dict(formatted[:])


def test_one_row_is_no_batch() -> None:
    guide = runs.teacher()
    data = runs.data(6)
    words = r"One row was given, and batches of rows are expected: dataset.map\({}, batched=True\)"
    for dataset in (data, data.to_iterable_dataset()):
        with pytest.raises(ValueError, match=words.format("teacher")):
            next(iter(dataset.map(guide)))
    columns, projections = runs.prepared()
    embeddings = columns.select_columns(["teacher_embedding"])
    for dataset in (embeddings, embeddings.to_iterable_dataset()):
        with pytest.raises(ValueError, match=words.format("projections")):
            next(iter(dataset.map(projections)))
