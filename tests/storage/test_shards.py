"""Shards: whole or not there, checked when they are read, made once each."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from hf_lelp.data.rows import mapped_anew, split_rows
from hf_lelp.storage.shards import (
    DIGEST_BYTES,
    RECORD_NAME,
    Progress,
    check_shard,
    make_missing_shards,
    open_shards,
    write_shard,
)

ROWS = [3, 3, 1]


def values(place: int) -> dict[str, NDArray]:
    matrix = np.arange(ROWS[place] * 4, dtype=np.float32).reshape(ROWS[place], 2, 2) + 100 * place
    return {"number": np.full(ROWS[place], place), "matrix": matrix}


class Maker:
    """Makes the columns of a shard, and remembers of which."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, place: int, progress: Progress, following: int | None) -> dict[str, NDArray]:
        self.made.append(place)
        return values(place)


def names(folder: Path) -> list[Path]:
    return [folder / "key" / f"{name}.arrow" for name in "abc"]


def filled(folder: Path, share: tuple[int, int] = (0, 1)) -> tuple[list[int], int]:
    """Which shards were made, and how many rows."""
    make = Maker()
    rows = make_missing_shards(names(folder), make, ROWS, description="Making", share=share)
    return make.made, rows


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    assert filled(tmp_path) == ([0, 1, 2], 7)
    dataset = open_shards(names(tmp_path))
    assert dataset[:]["number"] == [0, 0, 0, 1, 1, 1, 2]
    expected = np.concatenate([values(place)["matrix"] for place in range(3)])
    np.testing.assert_array_equal(dataset.with_format("numpy")[:]["matrix"], expected)
    assert filled(tmp_path) == ([], 0)
    with pa.OSFile(str(names(tmp_path)[0])) as stream:  # an Arrow stream like any other
        assert pa.ipc.open_stream(stream).read_all().column_names == ["number", "matrix"]


def test_the_fingerprint_is_that_of_the_names_wherever_the_files_are(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        filled(tmp_path / folder)
    here, there = (open_shards(names(tmp_path / folder)) for folder in ("here", "there"))
    assert here._fingerprint == there._fingerprint
    other_order = open_shards(names(tmp_path / "here")[::-1])
    assert other_order._fingerprint != here._fingerprint and other_order[0]["number"] == 2


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "cut short":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    elif how == "without its end":
        content = content[:-DIGEST_BYTES]
    else:
        content[{"a bit of the data": -60, "a bit of the header": 40, "a bit of the checksum": -1}[how]] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "how",
    ["cut short", "empty", "without its end", "a bit of the data", "a bit of the header", "a bit of the checksum"],
)
def test_a_damaged_shard_is_named_and_made_again(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path)
    before = [file.read_bytes() for file in names(tmp_path)]
    damage(names(tmp_path)[1], how)
    assert names(tmp_path)[1].read_bytes() != before[1]
    with pytest.raises(ValueError, match="does not match its checksum: it was cut short or changed"):
        check_shard(names(tmp_path)[1])
    assert filled(tmp_path) == ([1], 3)
    assert [file.read_bytes() for file in names(tmp_path)] == before
    assert f"{names(tmp_path)[1]} is made again: its content does not match" in caplog.text
    assert "a.arrow" not in caplog.text and "c.arrow" not in caplog.text


def test_damage_of_the_old_size_is_found(tmp_path: Path) -> None:
    filled(tmp_path)
    file = names(tmp_path)[0]
    status = file.stat()
    damage(file, "a bit of the data")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert filled(tmp_path)[0] == [0]


def test_a_file_is_read_through_only_when_it_may_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    checked: list[str] = []
    monkeypatch.setattr("hf_lelp.storage.shards.check_shard", lambda file: checked.append(file.name))
    assert filled(tmp_path)[0] == [] and checked == []
    names(tmp_path)[2].touch()
    assert filled(tmp_path)[0] == [] and checked == ["c.arrow"]
    filled(tmp_path)
    assert checked == ["c.arrow"]
    for record in ("{", "[1]", None):  # damaged or missing: everything is read through
        checked.clear()
        path = tmp_path / "key" / RECORD_NAME
        path.unlink() if record is None else path.write_text(record)
        assert filled(tmp_path)[0] == [] and checked == ["a.arrow", "b.arrow", "c.arrow"]


def test_a_shard_in_another_s_place_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    first, second, _ = names(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"was written as .*key/a.arrow.* and .*key/b.arrow.* was expected"):
        check_shard(second)
    assert filled(tmp_path)[0] == [1]
    moved = tmp_path / "other" / "a.arrow"
    moved.parent.mkdir()
    moved.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"key/a\.arrow"):
        check_shard(moved)


def test_a_shard_of_another_version_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_lelp.storage.shards.FORMAT_VERSION", "0")
    filled(tmp_path)
    assert filled(tmp_path)[0] == []
    monkeypatch.undo()
    assert filled(tmp_path)[0] == [0, 1, 2]  # though the record has them as whole
    check_shard(names(tmp_path)[0])


def test_shares_are_disjoint_and_together_whole(tmp_path: Path) -> None:
    assert filled(tmp_path, (0, 2)) == ([0, 2], 4)
    assert filled(tmp_path, (1, 2)) == ([1], 3)
    assert filled(tmp_path) == ([], 0)


def test_the_same_file_twice_is_made_once(tmp_path: Path) -> None:
    first, second, _ = names(tmp_path)
    make = Maker()
    assert make_missing_shards([first, second, first], make, [3, 3, 3], description="Making") == 6
    assert make.made == [0, 1]
    assert open_shards([first, second, first])[:]["number"] == [0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_half_a_shard_is_never_seen_and_leftovers_go(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    folder.mkdir()
    for name, age in ((".old.arrow.x.arrow", 7200), (".young.arrow.x.arrow", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, times=(time.time() - age,) * 2)

    def fail(place: int, progress: Progress, following: int | None) -> dict[str, NDArray]:
        if place == 1:
            raise KeyboardInterrupt
        return values(place)

    with pytest.raises(KeyboardInterrupt):
        make_missing_shards(names(tmp_path), fail, ROWS, description="Making")
    assert sorted(path.name for path in folder.iterdir()) == [".young.arrow.x.arrow", "a.arrow"]


def test_numbers_are_kept_to_the_bit(tmp_path: Path) -> None:
    file = tmp_path / "key" / "x.arrow"
    for dtype in ("float32", "float16"):
        odd = np.array([[0.1, -0.0, np.inf], [np.nan, 1e-7, 60000]], dtype=dtype)
        write_shard(file, {"odd": odd.T})  # not contiguous
        table = open_shards([file]).data.table
        read = table["odd"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(3, 2)
        assert read.dtype == dtype and read.tobytes() == np.ascontiguousarray(odd.T).tobytes()


def test_cut() -> None:
    parts = split_rows(Dataset.from_dict({"x": list(range(7))}), 3)
    assert [part[:]["x"] for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]


def resident_file_pages() -> int:
    """Bytes of mapped files that are in this process's memory; those of a tmpfs count as shared memory."""
    status = Path("/proc/self/status").read_text()
    return sum(int(status.split(f"{kind}:")[1].split()[0]) * 1024 for kind in ("RssFile", "RssShmem"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what is in memory is told by Linux alone")
def test_rows_mapped_anew_leave_memory_when_they_were_read(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.arrow" for number in range(8)]
    for number, file in enumerate(files):
        write_shard(file, {"values": np.full((2048, 1024), number, dtype=np.float32)})  # 8 MB
    whole = open_shards(files)
    before = resident_file_pages()
    parts = split_rows(whole, 4096)
    total = 0.0
    for part in parts:
        again = mapped_anew(part)
        total += sum(batch["values"].sum(dtype=np.float64) for batch in again.with_format("numpy").iter(1024))
        del again
    assert total == sum(range(8)) * 2048 * 1024
    through_parts = resident_file_pages() - before
    # Through its own maps the dataset stays.
    assert whole.with_format("numpy")[:]["values"].sum(dtype=np.float64) == total
    assert through_parts < (resident_file_pages() - before) / 3


def test_rows_mapped_anew_are_the_same_rows(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.arrow" for number in range(3)]
    for number, file in enumerate(files):
        write_shard(file, {"a": np.arange(10) + 10 * number, "b": np.ones((10, 2), dtype=np.float32) * number})
    mapped = open_shards(files)
    beside = concatenate_datasets([mapped.select_columns("a"), Dataset.from_dict({"c": [*range(30)]})], axis=1)
    for name in "cd":
        write_shard(tmp_path / f"{name}.arrow", {name: np.arange(30)})
    from_files = concatenate_datasets([open_shards([tmp_path / f"{name}.arrow"]) for name in "cd"], axis=1)
    for dataset in (
        mapped,
        mapped.select(range(5, 25)),
        mapped.select([3, 1, 29]),
        beside,
        *split_rows(from_files.select_columns("c"), 20),
        *split_rows(from_files.select_columns("d"), 20),
        Dataset.from_dict({"a": [1]}),
    ):
        assert mapped_anew(dataset)[:] == dataset[:]
        assert mapped_anew(dataset).features == dataset.features
