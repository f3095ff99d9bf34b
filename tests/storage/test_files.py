"""A file is whole or not there."""

import os
import time
from pathlib import Path

import pytest

from hf_lelp.storage.files import check_writable, new_files, read_json, remove_leftovers, write_atomically, write_json


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


def test_new_files_go_where_they_belong_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "config.json").write_text("old")
    with new_files(tmp_path, last="config.json") as temporary:
        (temporary / "config.json").write_text("new")
        (temporary / "inner").mkdir()
        (temporary / "inner" / "weights").write_text("new")
        assert (tmp_path / "config.json").read_text() == "old"
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"other": "other", "config.json": "new", "inner/weights": "new"}
    assert {path.name for path in tmp_path.iterdir()} == {"other", "config.json", "inner"}


def test_new_files_of_a_block_that_fails_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(OSError), new_files(tmp_path, last="config.json") as temporary:
        (temporary / "config.json").write_text("new")
        raise OSError("No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"


def test_old_files_and_new_are_never_together_with_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "config.json", "z"):
        (tmp_path / name).write_text("old")
    seen = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        replace(source, target)
        seen.append({path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()})

    monkeypatch.setattr(os, "replace", watched)
    with new_files(tmp_path, last="config.json") as temporary:
        for name in ("a", "config.json", "z"):
            (temporary / name).write_text("new")
    assert len(seen) == 3
    assert all(len(set(files.values())) == 1 for files in seen if "config.json" in files)


def test_a_folder_that_can_be_written_to(tmp_path: Path) -> None:
    check_writable(tmp_path)
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Nothing can be written to .*file/out \(Not a directory\)\. Choose another"):
        check_writable(tmp_path / "file" / "out")


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000, b"\xff\xfe"])
def test_a_damaged_dictionary_is_named(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "some.json"
    write_json(file, {"a": [1], "ü": None})
    assert read_json(file) == {"a": [1], "ü": None}
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=r"some\.json cannot be read \(.*\): it is damaged\."):
        read_json(file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read_json(file)
