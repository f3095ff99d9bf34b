"""Rows of a dataset: reading, joining and what its format says."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import runs
from datasets import Array2D, Dataset, Features, Value
from streams import stream

from hf_lelp.data.rows import column_names, row_keys, shown_columns, split_at_random, transform_of, with_columns


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


VALUES: dict[str, list[Any]] = {
    "texts": ["good", "", "bad", "good\0", "é"],
    "missing texts": ["good", None, "", "None", "none"],
    "bytes": [b"good", b"", b"bad", b"\0", b"\0\0"],
    "numbers": [0.0, 1.5, -1.5, 2.0, 1e300],
    "missing numbers": [0, None, 1, -1, 255],
    "truths": [True, False, None],
    "lists": [[1.0, 2.0], [], [1.0], [2.0, 1.0], [0.0]],
    "lists that miss numbers": [[1.0, None], [0.0], [None], [None, None], [1.0, 0.0]],
    "lists of texts": [["a", "b"], ["ab"], [], ["a"], ["a, b"]],
    "lists of lists": [[[1], [2]], [[1, 2]], [[1, 2], []], [], [[]]],
    "fields": [{"a": 1, "b": "x"}, {"a": 1, "b": ""}, {"a": 0, "b": "x"}, {"a": 10, "b": "x"}, {"a": 1, "b": "1"}],
    "sounds": [{"array": [0.5, 1.0], "rate": 8}, {"array": [0.5], "rate": 8}, {"array": [0.5], "rate": 9}],
    "days": [datetime.date(2026, 1, day) for day in (1, 2, 3, 4, 5)],
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_a_row_has_one_key_wherever_it_is(values: list[Any], tmp_path: Path) -> None:
    rows = Dataset.from_dict({"x": values, "y": [7] * len(values)})
    keys = row_keys(rows.select_columns("x"))
    assert keys.shape == (len(values), 2) and keys.dtype == np.uint64
    assert len({key.tobytes() for key in keys}) == len(values)
    order = [2, 0, 1, 2]
    np.testing.assert_array_equal(row_keys(rows.select_columns("x").select(order)), keys[order])
    np.testing.assert_array_equal(row_keys(rows.select_columns("x").select(range(1, 3))), keys[1:3])
    rows.save_to_disk(tmp_path / "rows", num_shards=2)
    np.testing.assert_array_equal(row_keys(Dataset.load_from_disk(str(tmp_path / "rows")).select_columns("x")), keys)
    both = row_keys(rows)
    assert len({key.tobytes() for key in both}) == len(values) and not (both == keys).all()


def test_two_columns_are_not_run_together() -> None:
    keys = row_keys(Dataset.from_dict({"a": ["x", "xy", "y"], "b": ["yz", "z", "x"]}))
    other = row_keys(Dataset.from_dict({"b": ["x", "xy", "y"], "a": ["yz", "z", "x"]}))
    assert len({key.tobytes() for key in [*keys, *other]}) == 6


def test_texts_have_the_same_key_whatever_their_offsets_are_and_numbers_by_type() -> None:
    texts = [
        row_keys(Dataset(pa.table({"x": pa.array(["good", "bad"], kind)}))) for kind in (pa.string(), pa.large_string())
    ]
    np.testing.assert_array_equal(*texts)
    numbers = [row_keys(Dataset.from_dict({"x": [1, 2]}, Features({"x": Value(kind)}))) for kind in ("int32", "int64")]
    assert not (numbers[0] == numbers[1]).any()


def test_matrices_have_keys() -> None:
    features = Features({"x": Array2D((2, 2), "float32")})
    keys = row_keys(Dataset.from_dict({"x": [[[1, 2], [3, 4]], [[1, 2], [3, 5]]]}, features))
    assert (keys[0] != keys[1]).any()


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


def test_equal_rows_are_held_out_together(caplog: pytest.LogCaptureFixture) -> None:
    texts = [f"text {row}" for row in range(100)]
    alone = Dataset.from_dict({"text": texts, "number": range(100)})
    left, held_out = split_at_random(alone, 0.1, seed=3)
    drawn = alone.train_test_split(test_size=0.1, seed=3)
    assert (left["text"][:], held_out["text"][:]) == (drawn["train"]["text"][:], drawn["test"]["text"][:])
    assert not caplog.text

    planted = held_out["text"][4]
    twice = Dataset.from_dict({"text": [*texts[:-1], planted], "number": range(100)})  # numbers tell no rows apart
    left, held_out = split_at_random(twice, 0.1, seed=3)
    assert planted not in left["text"][:] and held_out["text"][:].count(planted) == 2
    assert len(left) + len(held_out) == 100 and "1 more rows are held out" in caplog.text
    assert split_at_random(twice, 0.1, seed=3)[1]["number"][:] == held_out["number"][:]

    # A text with an id of its own beside it is another, unless it is known what a student reads.
    named = twice.add_column("id", [f"id {row}" for row in range(100)])
    for columns, together in ((None, False), (["text"], True)):
        left, held_out = split_at_random(named, 0.1, 3, columns)
        assert (planted not in left["text"][:]) is together


def test_rows_without_texts_or_media_are_drawn_alone() -> None:
    left, held_out = split_at_random(Dataset.from_dict({"number": [0] * 10}), 0.5, seed=0)
    assert (len(left), len(held_out)) == (5, 5)
