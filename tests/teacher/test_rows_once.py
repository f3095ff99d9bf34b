"""For one teacher a row is run once, whatever dataset, order or sample it comes in; and little is lost on the way."""

import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import killed_pass
import numpy as np
import pytest
import runs
import tiny
import tiny_media
from datasets import Dataset, Image, concatenate_datasets

from hf_lelp import Teacher
from hf_lelp.cli.options import errors_as_one_line
from hf_lelp.teacher.columns import merge_shares, run_teacher, teacher_columns

SHARD_ROWS = 20
TEXTS = list(dict.fromkeys(tiny.texts(220, shortest=3)))[:200]  # no two alike
RAW = Dataset.from_dict({"text": TEXTS})


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_lelp.teacher.columns.SHARD_ROWS", SHARD_ROWS)


def rows_run(dataset: Dataset, guide: Teacher, folder: Path) -> int:
    """How many rows went through the model; the columns are those of the teacher."""
    guide._checked = True  # else the first pass is made twice
    with runs.rows_seen(guide.model) as seen:
        columns = teacher_columns(dataset, guide, folder)
    some = [*range(0, len(dataset), 7)]
    expected = guide({name: dataset[some][name] for name in guide.input_columns})
    for name in ("teacher_logits", "teacher_embedding"):
        np.testing.assert_allclose(columns[some][name], expected[name], atol=1e-5)
    return sum(seen)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("teacher/*/[!.]*") if path.suffix != ".json"}


def test_samples_orders_and_neighbours_of_rows_that_were_run(tmp_path: Path) -> None:
    first = RAW.select(range(100))
    assert rows_run(first, runs.teacher(), tmp_path) == 100
    assert rows_run(first.select(range(50)), runs.teacher(), tmp_path) == 0
    assert rows_run(first.shuffle(seed=1).select(range(50)), runs.teacher(), tmp_path) == 0
    assert rows_run(first.select(range(13, 77)), runs.teacher(), tmp_path) == 0
    assert rows_run(concatenate_datasets([first, first.shuffle(seed=2)]), runs.teacher(), tmp_path) == 0
    shares_half = RAW.select(range(50, 150)).shuffle(seed=3)
    assert rows_run(shares_half, runs.teacher(), tmp_path) == 50
    assert rows_run(RAW.shuffle(seed=4), runs.teacher(), tmp_path) == 50
    assert rows_run(RAW, runs.teacher(), tmp_path) == 0


def test_rows_that_come_twice(tmp_path: Path) -> None:
    within = RAW.select([3, 1, 3, 3, 2])
    assert rows_run(within, runs.teacher(), tmp_path / "within") == 3
    across = concatenate_datasets([RAW.select(range(60)), RAW.select(range(30, 90))])
    assert rows_run(across, runs.teacher(), tmp_path / "across") == 90


def test_another_teacher_shares_nothing(tmp_path: Path) -> None:
    rows_run(RAW.select(range(20)), runs.teacher(), tmp_path)
    assert rows_run(RAW.select(range(20)).shuffle(seed=0), runs.teacher(max_length=5), tmp_path) == 20


def test_two_texts_images_and_sounds(tmp_path: Path) -> None:
    pairs = RAW.select(range(40)).add_column("other", TEXTS[100:140])
    both = Teacher(runs.teacher_model(), tiny.tokenizer(), input_columns=["text", "other"])
    assert rows_run(pairs, both, tmp_path) == 40
    crossed = Dataset.from_dict({"text": TEXTS[:40], "other": [*TEXTS[100:120], *TEXTS[:20]]})
    assert rows_run(crossed.shuffle(seed=0), both, tmp_path) == 20

    seeing = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])
    pictures = Dataset.from_dict({"img": tiny_media.pictures(30)}).cast_column("img", Image())
    assert rows_run(pictures, seeing, tmp_path) == 30
    assert rows_run(pictures.shuffle(seed=1).select(range(25)), seeing, tmp_path) == 0
    assert rows_run(pictures.cast_column("img", Image(mode="L")).shuffle(seed=1), seeing, tmp_path) == 30

    hearing = Teacher(tiny_media.wav2vec2(), tiny_media.wave_extractor(), input_columns=["audio"])
    sounds = Dataset.from_dict({"audio": tiny_media.sounds(25)})
    assert rows_run(sounds, hearing, tmp_path) == 25
    assert rows_run(sounds.shuffle(seed=1), hearing, tmp_path) == 0


def test_half_size_columns_keep_to_themselves(tmp_path: Path) -> None:
    rows = RAW.select(range(40))
    teacher_columns(rows, runs.teacher(), tmp_path, dtype="float16")
    assert rows_run(rows, runs.teacher(), tmp_path) == 40
    with runs.rows_seen((guide := runs.teacher()).model) as seen:
        narrow = teacher_columns(rows.shuffle(seed=0), guide, tmp_path, dtype="float16")
    assert seen == [] and narrow.features["teacher_logits"].feature.dtype == "float16"


def test_a_shard_without_sidecar_gets_it_when_its_rows_are_at_hand(tmp_path: Path) -> None:
    first, guide = RAW.select(range(60)), runs.teacher()
    rows_run(first, guide, tmp_path)
    whole = files(tmp_path)
    for path in tmp_path.glob("teacher/*/*.rows"):
        path.unlink()
    # Of the dataset itself, and of one whose other shard is missing and has its rows.
    assert rows_run(first, guide, tmp_path) == 0 and files(tmp_path) == whole
    for path in tmp_path.glob("teacher/*/*.rows"):
        path.unlink()
    assert rows_run(concatenate_datasets([first, first.select(range(59, -1, -1))]), guide, tmp_path) == 0
    # Without sidecar and rows at hand the rows are run.
    for path in tmp_path.glob("teacher/*/*.rows"):
        path.unlink()
    assert rows_run(first.shuffle(seed=3), guide, tmp_path) == 60


@pytest.mark.parametrize("how", ["cut short", "a bit", "of another shard"])
def test_a_damaged_sidecar_is_made_again(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, guide = RAW.select(range(60)), runs.teacher()
    rows_run(first, guide, tmp_path)
    whole = files(tmp_path)
    sidecar, other, _ = sorted(tmp_path.glob("teacher/*/*.rows"))
    content = bytearray(sidecar.read_bytes())
    content[len(content) // 2] ^= 1
    sidecar.write_bytes({"cut short": content[:-40], "a bit": content, "of another shard": other.read_bytes()}[how])
    half = first.select(range(59, 29, -1))
    assert 0 < rows_run(half, guide, tmp_path / "new") == 30
    assert rows_run(half, guide, tmp_path) <= SHARD_ROWS  # its rows are not taken for others
    assert rows_run(first, guide, tmp_path) == 0 and f"{sidecar} is made again" in caplog.text
    assert whole.items() <= files(tmp_path).items()


def test_damaged_rows_are_not_copied(tmp_path: Path) -> None:
    first, guide = RAW.select(range(60)), runs.teacher()
    rows_run(first, guide, tmp_path)
    shard = sorted(tmp_path.glob("teacher/*/*.arrow"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    assert rows_run(first.shuffle(seed=5), guide, tmp_path) == SHARD_ROWS
    # The rows of the damaged shard are in others by now.
    assert rows_run(first.shuffle(seed=6), guide, tmp_path) == 0
    assert rows_run(first, guide, tmp_path) == 0


def test_another_format_makes_all_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, guide = RAW.select(range(40)), runs.teacher()
    rows_run(first, guide, tmp_path)
    monkeypatch.setattr("hf_lelp.storage.shards.FORMAT_VERSION", "2")
    assert rows_run(first.shuffle(seed=0), guide, tmp_path) == 40
    assert rows_run(first, guide, tmp_path) == 0  # copied from the shuffled ones
    shutil.rmtree(tmp_path / "teacher")
    assert rows_run(first, guide, tmp_path) == 40


def test_shares_bring_their_sidecars(tmp_path: Path) -> None:
    first, guide = RAW.select(range(100)), runs.teacher()
    for share in range(2):
        run_teacher(first, guide, tmp_path / f"part{share}", share=(share, 2))
    merge_shares([first], guide, [str(tmp_path / f"part{share}") for share in range(2)], tmp_path / "whole")
    assert rows_run(first.shuffle(seed=0), guide, tmp_path / "whole") == 0


def stopped(folder: Path, how: signal.Signals, passes: int) -> str:
    """The pass of `killed_pass`, killed before its next forward pass after so many; its last words."""
    command = [sys.executable, killed_pass.__file__, str(folder), str(passes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        process.send_signal(how)
        words = process.communicate(timeout=60)[1]
    assert process.returncode == -how
    return words


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_of_a_shard(how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_lelp.teacher.columns.SHARD_ROWS", killed_pass.SHARD_ROWS)
    # One pass into the fifth shard, or two, as the rows are alike or not.
    words = stopped(tmp_path / "killed", how, 18)
    raw, run = killed_pass.data(), 18 * killed_pass.BATCH
    (part,) = tmp_path.glob("killed/teacher/*/*.part")
    if how is signal.SIGINT:
        kept, again = words.splitlines()[-2:]
        assert f"of 320 rows are kept in {part.parent}." in kept and kept.startswith("Stopped: ")
        assert again == "The same command goes on from there."
    guide = runs.teacher(batch_size=killed_pass.BATCH)
    # A pass has fewer rows where it is the last one of a shard with rows alike.
    seen = rows_run(raw, guide, tmp_path / "killed")
    assert len({*raw["text"]}) - run <= seen < len({*raw["text"]}) - 4 * killed_pass.SHARD_ROWS + 8
    assert rows_run(raw, guide, tmp_path / "whole") == len({*raw["text"]})
    assert files(tmp_path / "killed") == files(tmp_path / "whole")  # and the part is gone


def test_what_was_run_is_found_in_a_part_by_other_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_lelp.teacher.rows_once.KEEP_SECONDS", 0.0)
    guide, first = runs.teacher(batch_size=4), RAW.select(range(SHARD_ROWS))
    interrupt(guide, first, tmp_path, after=3)
    assert rows_run(first.shuffle(seed=0), guide, tmp_path) == 8
    assert rows_run(first, guide, tmp_path) == 0
    assert not [*tmp_path.rglob("*.part")]


def interrupt(guide: Teacher, dataset: Dataset, folder: Path, after: int) -> KeyboardInterrupt:
    """Ctrl-C before the next forward pass."""
    passes: list[Any] = []

    def stop(*args: Any) -> None:
        if len(passes) == after:
            raise KeyboardInterrupt
        passes.append(args)

    guide._checked = True
    hook = guide.model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        teacher_columns(dataset, guide, folder)
    hook.remove()
    return caught.value


def test_ctrl_c_keeps_all_and_tells(tmp_path: Path) -> None:
    guide, first = runs.teacher(batch_size=8), RAW.select(range(60))
    told = interrupt(guide, first, tmp_path, after=4)  # 20 rows in 3 passes
    (folder,) = (tmp_path / "teacher").iterdir()
    assert told.__notes__ == [f"Stopped: 28 of 60 rows are kept in {folder}.", "The same command goes on from there."]
    assert rows_run(first, guide, tmp_path) == 32


def test_a_program_ends_with_these_two_lines_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = interrupt(runs.teacher(batch_size=8), RAW.select(range(20)), tmp_path, after=1)
    with pytest.raises(SystemExit) as ended, errors_as_one_line():
        raise told
    assert ended.value.code == 130 and capsys.readouterr().err.splitlines() == told.__notes__
    with pytest.raises(KeyboardInterrupt), errors_as_one_line():
        raise KeyboardInterrupt


@pytest.mark.parametrize("batch_size", [4, 3])
def test_images_go_on_with_the_same_bytes(batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_lelp.teacher.columns.DECODED_ROWS", 8)
    guide = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"], batch_size=batch_size)
    pictures = Dataset.from_dict({"img": tiny_media.pictures(20)}).cast_column("img", Image())
    interrupt(guide, pictures, tmp_path / "stopped", after=1)
    assert rows_run(pictures, guide, tmp_path / "stopped") == 20 - batch_size
    rows_run(pictures, guide, tmp_path / "whole")
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_progress_comes_by_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[int] = []

    monkeypatch.setattr("hf_lelp.storage.shards.stage", lambda *args, **kwargs: nullcontext(moves.append))
    rows_run(RAW.select([*range(20), 0, 1]), runs.teacher(batch_size=8), tmp_path)
    assert [rows for rows in moves if rows] == [8, 8, 4, 2]


def test_a_sidecar_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, guide = RAW.select(range(60)), runs.teacher()
    rows_run(first, guide, tmp_path)
    for path in tmp_path.glob("teacher/*/*.rows"):
        path.unlink()
        path.mkdir()  # nothing can be written there, whoever asks
    assert rows_run(first, guide, tmp_path) == 0
    assert caplog.text.count("will not be found again in other datasets") == 1


def test_the_row_with_a_fault_is_numbered_as_in_its_shard(tmp_path: Path) -> None:
    rows_run(RAW.select(range(15)), runs.teacher(), tmp_path)
    faulty = Dataset.from_dict({"text": [*TEXTS[:17], None]})
    with pytest.raises(ValueError, match=r"Row 17 of the dataset has None"):
        teacher_columns(faulty, runs.teacher(), tmp_path)
