"""A full disk, a folder that cannot be written to or goes away, two processes at once, clocks that are wrong."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
from datasets import Dataset
from places import HELPERS, ROOT
from safetensors import SafetensorError
from transformers import TrainerCallback

from hf_lelp import LELPConfig, load_student
from hf_lelp.cli.distill import DistillArguments, distill
from hf_lelp.compare.comparison import CompareArguments, compare
from hf_lelp.export.export import ExportArguments, export
from hf_lelp.projections.cache import fit_projections
from hf_lelp.storage.shards import RECORD_NAME
from hf_lelp.student.checkpoints import check_checkpoint, last_checkpoint
from hf_lelp.teacher.columns import teacher_columns

CHECKPOINTS: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 KB."""
    if not shutil.which("mount"):
        pytest.skip("there is no mount here to make a small disk with")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path, but: int = 0) -> Path:
    """A file that leaves so many bytes free."""
    filler = disk / "filler"
    with filler.open("ab") as file:
        file.write(bytes(max(shutil.disk_usage(disk).free - but, 0)))
    return filler


def content(folder: Path) -> dict[str, bytes]:
    """Of all files but the records of shards, which hold times."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD_NAME]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def many(rows: int = 5000) -> Dataset:
    return Dataset.from_dict({"text": tiny.texts(rows)})


class TestFullDisk:
    def test_the_teacher_s_pass_keeps_what_it_has_and_goes_on(self, small_disk: Path, tmp_path: Path) -> None:
        columns = small_disk / "columns"
        filler = fill(small_disk, but=240_000)  # one shard of 2,048 rows fits
        with pytest.raises(OSError, match=r"No space left on device|[Ee]rrno 28"):
            teacher_columns(many(), runs.teacher(), columns)
        kept = content(columns)
        assert [Path(name).suffix for name in kept] == [".arrow", ".rows"]
        filler.unlink()
        shutil.move(columns, tmp_path / "columns")
        found = teacher_columns(many(), runs.teacher(), tmp_path / "columns")
        assert content(tmp_path / "columns").items() >= kept.items()
        assert found[:] == teacher_columns(many(), runs.teacher(), tmp_path / "others")[:]

    def test_a_checkpoint_that_does_not_fit_is_removed_and_those_before_it_stay(self, small_disk: Path) -> None:
        out = small_disk / "out"
        args = runs.config(small_disk.parent, output_dir=str(out), **CHECKPOINTS)

        class Fill(TrainerCallback):
            def on_save(self, *args: Any, **kwargs: Any) -> None:
                fill(small_disk, but=30_000)

        run = runs.trainer(args, callbacks=[Fill()])
        with pytest.raises(OSError, match=r"checkpoint-4 could not be written, and was removed .* 0\.0 MB are free"):
            run.train()
        assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-2"]
        check_checkpoint(out / "checkpoint-2")
        (small_disk / "filler").unlink()
        resumed = runs.trainer(args)
        resumed.train(resume_from_checkpoint=True)
        whole = runs.trainer(runs.config(small_disk.parent, **CHECKPOINTS))
        whole.train()
        runs.assert_same(runs.weights(resumed.model), runs.weights(whole.model))

    def test_a_student_and_projections_are_not_replaced_by_half_of_new_ones(self, small_disk: Path) -> None:
        args = runs.config(small_disk.parent, output_dir=str(small_disk / "out"))
        run = runs.trainer(args)
        run.save_model()
        before = content(small_disk / "out")
        run.train()
        assert run.projections is not None
        run.projections.directions[:, 0] *= -1
        fill(small_disk, but=8_000)
        with pytest.raises((OSError, SafetensorError), match="No space left on device"):
            run.save_model()
        fill(small_disk)
        with pytest.raises((OSError, SafetensorError), match="No space left on device"):
            run.projections.save_pretrained(small_disk / "out" / "class_projections")
        assert content(small_disk / "out") == before  # and nothing is left of the attempts
        load_student(str(small_disk / "out"))


def test_every_command_looks_first_whether_it_can_write(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    # What is named does not exist: nothing is loaded before.
    data: dict[str, Any] = {"train_file": "none.csv"}
    models = {"student_model": "none", "teacher_model": "none"}
    config = LELPConfig(output_dir=str(small_disk / "out"), report_to="none")
    for command in (
        lambda: distill(DistillArguments(**data, **models), config),
        lambda: compare(CompareArguments(**data, **models), config),
        lambda: export(ExportArguments(student="none", **data, to=["plain"], output_dir=str(small_disk / "out"))),
    ):
        with pytest.raises(ValueError, match=r"Nothing can be written to .*disk/out \(Read-only file system\)"):
            command()
    trainer = runs.trainer(runs.config(small_disk.parent, **CHECKPOINTS))
    trainer.args.output_dir = str(small_disk / "out")
    with pytest.raises(ValueError, match=r"Nothing can be written to .*disk/out \(Read-only file system\)"):
        trainer.train()


def test_a_complete_cache_that_is_read_only_serves_the_command_too(small_disk: Path, tmp_path: Path) -> None:
    for name, model in (("teacher", runs.teacher_model()), ("student", runs.student())):
        model.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    runs.data(60).to_parquet(tmp_path / "train.parquet")
    arguments = DistillArguments(
        train_file=str(tmp_path / "train.parquet"),
        student_model=str(tmp_path / "student"),
        teacher_model=str(tmp_path / "teacher"),
    )
    config = runs.config(tmp_path, columns_cache_dir=str(small_disk / "columns"), max_steps=1)
    first = distill(arguments, config)["results"]
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    again = distill(arguments, config)["results"]
    assert again["lelp"]["accuracy"] == first["lelp"]["accuracy"]
    config.num_subclasses = 3  # which takes other projections
    with pytest.raises(ValueError, match=r"Nothing can be written to .*projections .Read-only"):
        distill(arguments, config)


class TestVanishedFolders:
    def test_the_cache_of_columns_while_a_student_trains(self, tmp_path: Path) -> None:
        whole = runs.trainer(runs.config(tmp_path))
        whole.train()

        class Remove(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                shutil.rmtree(tmp_path / "columns", ignore_errors=True)

        run = runs.trainer(runs.config(tmp_path), callbacks=[Remove()])
        run.train()
        assert not (tmp_path / "columns").exists()
        runs.assert_same(runs.weights(run.model), runs.weights(whole.model))
        again = runs.trainer(runs.config(tmp_path))
        again.train()
        runs.assert_same(runs.weights(again.model), runs.weights(whole.model))

    def test_the_output_while_a_student_trains(self, tmp_path: Path) -> None:
        class Remove(TrainerCallback):
            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == 2:
                    shutil.rmtree(tmp_path / "out")

        run = runs.trainer(runs.config(tmp_path, **CHECKPOINTS), callbacks=[Remove()])
        run.train()
        assert last_checkpoint(tmp_path / "out") == str(tmp_path / "out" / "checkpoint-4")


PREPARE = """
import sys, time
from pathlib import Path
import runs, test_faults
from hf_lelp.projections.cache import fit_projections
from hf_lelp.teacher.columns import teacher_columns
folder = Path(sys.argv[1])
teacher, rows = runs.teacher(), test_faults.many()
(folder / sys.argv[2]).touch()
deadline = time.monotonic() + 60
while len(list(folder.glob("ready*"))) < 2:
    assert time.monotonic() < deadline, "the other process is not there"
    time.sleep(0.01)
fit_projections(teacher_columns(rows, teacher, folder / "columns"), None, teacher.head, 2, cache_dir=folder / "columns")
"""


def test_two_processes_that_prepare_the_same_data_at_once(tmp_path: Path) -> None:
    columns = teacher_columns(many(), runs.teacher(), tmp_path / "alone")
    fit_projections(columns, None, runs.teacher().head, 2, cache_dir=tmp_path / "alone")
    places = os.pathsep.join([str(Path(__file__).parent), str(HELPERS), str(ROOT)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(tmp_path), f"ready{number}"],
            env={**os.environ, "PYTHONPATH": places},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for process in processes:
            errors = process.communicate(timeout=300)[1]
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    assert content(tmp_path / "columns") == content(tmp_path / "alone")


@pytest.mark.parametrize("moment", [0, 2**32])  # 1970 and 2106
def test_file_times_decide_nothing(tmp_path: Path, moment: int) -> None:
    def set_times() -> None:
        for path in tmp_path.rglob("*"):
            os.utime(path, (moment, moment))

    settings = {**CHECKPOINTS, "max_steps": 6, "save_total_limit": 2}
    whole = runs.trainer(runs.config(tmp_path / "whole", **settings))
    whole.train()
    runs.trainer(runs.config(tmp_path, **settings), callbacks=[runs.StopAt(4)]).train()
    set_times()
    teacher = runs.teacher_model()
    with runs.rows_seen(teacher) as seen:
        resumed = runs.trainer(runs.config(tmp_path, **settings), teacher_model=teacher)
    assert seen == []  # the columns are those of the first run
    resumed.train(resume_from_checkpoint=True)
    runs.assert_same(runs.weights(resumed.model), runs.weights(whole.model))
    assert resumed.state.global_step == 6
    # Trainer drops the oldest by their times; whatever those are, the last one stays.
    assert {path.name for path in (tmp_path / "out").glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
