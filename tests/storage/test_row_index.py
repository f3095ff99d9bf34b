"""The index of rows: every row that a shard holds is found, and no other."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hf_lelp.storage.row_index import RowIndex, has_sidecar, key_columns, write_sidecar
from hf_lelp.storage.shards import read_columns, write_shard


def keys_of(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Keys whose first halves are often alike."""
    return np.stack([values % 50, values], axis=1).astype(np.uint64)


def shard(folder: Path, name: str, values: NDArray[np.int64], *, sidecar: bool = True) -> Path:
    file = folder / "key" / f"{name}.arrow"
    write_shard(file, {"value": values, "matrix": np.stack([values, -values], axis=1).astype(np.float32)})
    if sidecar:
        write_sidecar(file, keys_of(values))
    return file


def found(index: RowIndex, values: NDArray[np.int64]) -> list[int]:
    """The values that the index finds, copied right."""
    into = {"value": np.full(len(values), -1), "matrix": np.zeros((len(values), 2), dtype=np.float32)}
    known, files = index.copy(keys_of(values), into)
    assert (into["value"][known] == values[known]).all() and (into["value"][~known] == -1).all()
    assert (into["matrix"][known] == np.stack([values, -values], axis=1)[known]).all()
    assert len(files) == known.sum()
    return values[known].tolist()


@pytest.mark.parametrize("loaded", [0, 1, 5])
def test_rows_of_shards_loaded_and_added(loaded: int, tmp_path: Path) -> None:
    # One value of each rest: halves that two rows have in common may hide one of them, which then is run again.
    groups = np.arange(50).reshape(10, 5)
    for number in range(loaded):
        shard(tmp_path, f"{number}", groups[number])
    (tmp_path / "key").mkdir(exist_ok=True)
    index = RowIndex(tmp_path / "key")
    for number in range(loaded, 10):
        assert found(index, np.arange(60)) == [*range(5 * number)]
        index.add(shard(tmp_path, f"{number}", groups[number]), keys_of(groups[number]))
    assert found(index, np.array([49, 3, 77, 3])) == [49, 3, 3]
    assert found(index, np.array([50, 99])) == []  # their first halves are those of 0 and 49


def test_parts_and_shards_without_sidecars(tmp_path: Path) -> None:
    values = np.arange(5)
    file = shard(tmp_path, "a", values, sidecar=False)
    assert not has_sidecar(file) and found(RowIndex(file.parent), values) == []
    matrix = np.stack([values, -values], axis=1).astype(np.float32)
    write_shard(file.with_name("b.part"), {"value": values, "matrix": matrix, **key_columns(keys_of(values))})
    assert found(RowIndex(file.parent), values) == [*range(5)]
    write_sidecar(file.with_name("gone.arrow"), keys_of(np.arange(5, 9)))
    assert found(RowIndex(file.parent), np.arange(9)) == [*range(5)]


def test_a_row_of_a_damaged_shard_is_taken_from_another(tmp_path: Path) -> None:
    first, second = (shard(tmp_path, name, np.arange(5)) for name in "ab")
    index = RowIndex(first.parent)
    first.write_bytes(first.read_bytes()[:-1])
    assert found(index, np.arange(5)) == [*range(5)]
    second.unlink()
    assert found(RowIndex(first.parent), np.arange(5)) == []


def test_columns_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "key" / "a.arrow"
    columns = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(8, dtype=np.float16).reshape(2, 2, 2)}
    write_shard(file, columns)
    for name, values in read_columns(file).items():
        np.testing.assert_array_equal(values, columns[name])
        assert values.dtype == columns[name].dtype
