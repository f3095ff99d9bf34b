"""A file that has changed is told by its name."""

import json
from pathlib import Path

import pytest

from hf_lelp.storage.checksums import CHECKSUMS_NAME, check_checksums, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(256)))
    (folder / "inner" / "config.json").write_text("{}")
    write_checksums(folder)
    return folder


def test_what_is_as_it_was_passes(folder: Path) -> None:
    assert set(json.loads((folder / CHECKSUMS_NAME).read_text())) == {"weights", "inner/config.json"}
    check_checksums(folder)
    (folder / "more").write_text("a further file")
    check_checksums(folder)


def test_a_card_may_be_edited(folder: Path) -> None:
    (folder / "inner" / "README.md").write_text("a card")
    write_checksums(folder)
    (folder / "inner" / "README.md").write_text("a better card")
    check_checksums(folder)


def test_a_folder_without_checksums_passes(folder: Path) -> None:
    (folder / CHECKSUMS_NAME).unlink()
    check_checksums(folder)


@pytest.mark.parametrize("place", [0, 100, 255])
def test_one_bit(folder: Path, place: int) -> None:
    content = bytearray((folder / "weights").read_bytes())
    content[place] ^= 4
    (folder / "weights").write_bytes(content)
    with pytest.raises(ValueError, match=r"student: weights is not the one that was saved, by checksums\.json"):
        check_checksums(folder)


def test_a_missing_file(folder: Path) -> None:
    (folder / "inner" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"inner/config\.json is missing"):
        check_checksums(folder)


@pytest.mark.parametrize("content", ['{"weights": ', "[]", "null", "[" * 100_000])
def test_damaged_checksums(folder: Path, content: str) -> None:
    (folder / CHECKSUMS_NAME).write_text(content)
    with pytest.raises(ValueError, match=r"checksums\.json cannot be read \(.*\): it is damaged"):
        check_checksums(folder)


def test_a_checksum_that_is_none(folder: Path) -> None:
    (folder / CHECKSUMS_NAME).write_text('{"weights": 3}')
    with pytest.raises(ValueError, match=r"weights is not the one that was saved, by checksums\.json"):
        check_checksums(folder)


def test_a_name_outside_the_folder_is_not_followed(folder: Path) -> None:
    (folder.parent / "secret").write_bytes((folder / "weights").read_bytes())
    forged = json.loads((folder / CHECKSUMS_NAME).read_text())
    (folder / CHECKSUMS_NAME).write_text(json.dumps({"../secret": forged["weights"]}))
    with pytest.raises(ValueError, match=r"\.\./secret is missing"):
        check_checksums(folder)


def test_temporary_files_are_no_part_of_it(folder: Path) -> None:
    (folder / "_new-killed").mkdir()
    (folder / "_new-killed" / "weights").write_text("half")
    (folder / ".config.json.x.json").write_text("half")
    write_checksums(folder)
    assert set(json.loads((folder / CHECKSUMS_NAME).read_text())) == {"weights", "inner/config.json"}


def test_some_files_of_another_folder(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    write_checksums(target, "*.json", of=folder)
    assert set(json.loads((target / CHECKSUMS_NAME).read_text())) == {"inner/config.json"}
