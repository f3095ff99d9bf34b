"""A file is whole or not there."""

import os
import time
from pathlib import Path

import pytest

from hf_lelp.files import remove_leftovers, write_atomically


def test_writes_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.json"
    write_atomically(target, lambda path: path.write_text("content"))
    assert target.read_text() == "content"
    assert list(target.parent.iterdir()) == [target]


def test_the_writer_sees_a_file_of_the_same_kind_beside_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    target.write_text("old")

    def write(path: Path) -> None:
        assert path != target and path.parent == tmp_path and path.suffix == ".json"
        path.write_text("new")
        assert target.read_text() == "old"

    write_atomically(target, write)
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["old", None])
def test_a_writer_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, error: type[BaseException], old: str | None
) -> None:
    target = tmp_path / "file.txt"
    if old is not None:
        target.write_text(old)

    def write(path: Path) -> None:
        path.write_text("half of")
        raise error

    with pytest.raises(error):
        write_atomically(target, write)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({"file.txt": old} if old else {})


def test_a_writer_that_makes_its_file_anew(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.unlink()
        path.write_bytes(b"new")

    write_atomically(tmp_path / "file", write)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_the_usual_ones(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "ours", lambda path: path.write_text(""))
        (tmp_path / "usual").write_text("")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_old_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".old", ".young", "kept"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".folder" / "inside").mkdir(parents=True)
    for name in (".old", "kept", ".folder"):
        os.utime(tmp_path / name, times=(time.time() - 4000,) * 2)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".young", "kept"]
    remove_leftovers(tmp_path, age=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
