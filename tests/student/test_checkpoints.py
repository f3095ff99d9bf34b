"""A checkpoint that is not whole, or of another run, is told and not gone on from."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_lelp import LELPTrainer
from hf_lelp.storage.checksums import CHECKSUMS_NAME, write_checksums
from hf_lelp.student.checkpoints import check_checkpoint, last_checkpoint

SETTINGS: dict[str, Any] = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
Damage = Callable[[Path], object]


def trainer(folder: Path, **settings: Any) -> LELPTrainer:
    return runs.trainer(runs.config(folder, **{**SETTINGS, "student_head": "auxiliary", **settings}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps with a checkpoint after every second."""
    folder = tmp_path_factory.mktemp("whole")
    trainer(folder).train()
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


FILES = ["model.safetensors", "auxiliary_head.safetensors", "optimizer.pt", "trainer_state.json", "distillation.json"]


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", [*FILES, "class_projections/class_projections.safetensors"])
def test_damage_is_told(run: Path, name: str, damage: Damage) -> None:
    checkpoint = run / "out" / "checkpoint-6"
    check_checkpoint(checkpoint)
    damage(checkpoint / name)
    with pytest.raises(ValueError, match=f"checkpoint-6.*{name}"):
        check_checkpoint(checkpoint)


def test_the_last_whole_one_is_taken(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = run / "out"
    assert last_checkpoint(out) == str(out / "checkpoint-6")
    flip(out / "checkpoint-6" / "optimizer.pt")
    assert last_checkpoint(out) == str(out / "checkpoint-4")
    assert "Passed over" in caplog.text and "optimizer.pt is not the one that was saved" in caplog.text
    (out / "checkpoint-4" / "trainer_state.json").unlink()
    (out / "checkpoint-nonsense").mkdir()
    assert last_checkpoint(out) == str(out / "checkpoint-2")
    shutil.rmtree(out / "checkpoint-2")
    assert last_checkpoint(out) is None
    assert last_checkpoint(run / "nowhere") is None


def test_ten_steps_come_after_nine(run: Path) -> None:
    (run / "out" / "checkpoint-6").rename(run / "out" / "checkpoint-10")
    assert last_checkpoint(run / "out") == str(run / "out" / "checkpoint-10")


def test_resuming_passes_over_what_is_not_whole_and_ends_the_same(run: Path, whole: Path) -> None:
    for name in ("model.safetensors", "trainer_state.json"):
        expected = (whole / "out" / "checkpoint-6" / name).read_bytes()
        (run / "out" / "checkpoint-6" / name).write_bytes(expected[: len(expected) // 2])
    resumed = trainer(run)
    with pytest.raises(ValueError, match=r"checkpoint-6 is no whole checkpoint: trainer_state\.json, the last file"):
        resumed.train(resume_from_checkpoint=str(run / "out" / "checkpoint-6"))
    resumed.train(resume_from_checkpoint=True)
    for name in ("model.safetensors", "auxiliary_head.safetensors"):
        found, expected = (folder / "out" / "checkpoint-6" / name for folder in (run, whole))
        assert found.read_bytes() == expected.read_bytes()
    check_checkpoint(run / "out" / "checkpoint-6")


def test_without_a_whole_one_there_is_nothing_to_resume(run: Path) -> None:
    for checkpoint in (run / "out").glob("checkpoint-*"):
        (checkpoint / "trainer_state.json").unlink()
    with pytest.raises(ValueError, match=r"There is no whole checkpoint in .*out to resume from"):
        trainer(run).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("kept", [CHECKSUMS_NAME, "trainer_state.json", "model.safetensors"])
def test_one_whose_removal_was_cut_off_is_not_whole(run: Path, kept: str) -> None:
    checkpoint = run / "out" / "checkpoint-2"
    for path in [*checkpoint.rglob("*")]:
        if path.is_file() and path.name != kept:
            path.unlink()
    words = {CHECKSUMS_NAME: "trainer_state.json, the last", "trainer_state.json": "its removal was cut off"}
    with pytest.raises(ValueError, match=f"checkpoint-2 is no whole checkpoint: .*{words.get(kept, '')}"):
        check_checkpoint(checkpoint)


def test_with_a_single_one_kept_there_is_always_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def killed(folder: Path) -> None:
        written.append(folder)
        if len(written) == 2:
            raise KeyboardInterrupt
        write_checksums(folder)

    monkeypatch.setattr("hf_lelp.overrides.saving.write_checksums", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, save_total_limit=1).train()
    assert last_checkpoint(tmp_path / "out") == str(tmp_path / "out" / "checkpoint-4") == str(written[-1])


def test_checkpoints_of_before_checksums_can_be_resumed(run: Path, whole: Path) -> None:
    shutil.rmtree(run / "out" / "checkpoint-6")
    (run / "out" / "checkpoint-4" / CHECKSUMS_NAME).unlink()
    trainer(run).train(resume_from_checkpoint=True)
    found, expected = (folder / "out" / "checkpoint-6" / "model.safetensors" for folder in (run, whole))
    assert found.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("subclasses", [2, 1])
def test_another_teacher_is_refused(tmp_path: Path, subclasses: int) -> None:
    settings = {"max_steps": 2, "num_subclasses": subclasses}
    trainer(tmp_path, **settings).train()
    other = runs.trainer(
        runs.config(tmp_path, **{**SETTINGS, "student_head": "auxiliary", **settings}),
        teacher_model=tiny.named(tiny.classifier(seed=7)),
        train_dataset=tiny.dataset(tiny.named(tiny.classifier(seed=7)), runs.ROWS),
    )
    with pytest.raises(ValueError, match=r"was trained with \{'teacher': '.*\}, and this run has \{'teacher': '"):
        other.train(resume_from_checkpoint=True)


def test_another_order_of_classes_is_refused(run: Path) -> None:
    file = run / "out" / "checkpoint-6" / "distillation.json"
    settings = json.loads(file.read_text())
    assert settings["classes"] == tiny.LABEL_NAMES
    file.write_text(json.dumps({**settings, "classes": tiny.LABEL_NAMES[::-1]}))
    (file.parent / CHECKSUMS_NAME).unlink()
    with pytest.raises(ValueError, match=r"trained with \{'classes': \['positive', 'negative'\]\}, and this run has"):
        trainer(run).train(resume_from_checkpoint=True)


def test_an_auxiliary_layer_never_starts_anew_on_resuming(tmp_path: Path) -> None:
    trainer(tmp_path, student_head="subclass", num_subclasses=1).train()
    with pytest.raises(ValueError, match=", and this student has an auxiliary layer, which would start anew"):
        trainer(tmp_path).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("content", ["[1]", "null", "{"])
def test_damage_is_told_without_checksums_too(run: Path, content: str) -> None:
    checkpoint = run / "out" / "checkpoint-6"
    (checkpoint / CHECKSUMS_NAME).unlink()
    cut(checkpoint / "auxiliary_head.safetensors")
    with pytest.raises(ValueError, match=r"auxiliary_head\.safetensors is damaged, or of another student"):
        trainer(run).train(resume_from_checkpoint=True)
    (checkpoint / "distillation.json").write_text(content)
    with pytest.raises(ValueError, match=r"distillation\.json is damaged .*Resume from another checkpoint"):
        trainer(run).train(resume_from_checkpoint=True)


class TestOfOthers:
    """Checkpoints that transformers or a user's callback made or changed on purpose are whole."""

    def test_on_sigterm(self, tmp_path: Path) -> None:
        class Stop(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.4 if state.global_step >= 2 else 0)  # transformers waits three seconds for a SIGKILL

        before = signal.getsignal(signal.SIGTERM)
        settings: dict[str, Any] = {"max_steps": 40, "save_strategy": "no", "enable_jit_checkpoint": True}
        try:
            run = runs.trainer(runs.config(tmp_path, **settings), callbacks=[Stop()])
            run.train()
        finally:
            signal.signal(signal.SIGTERM, before)
        found = last_checkpoint(tmp_path / "out")
        assert found is not None and 2 < run.state.global_step < 40
        resumed = runs.trainer(runs.config(tmp_path, max_steps=run.state.global_step + 1))
        resumed.train(resume_from_checkpoint=True)
        assert resumed.state.global_step == run.state.global_step + 1
        (Path(found) / "checkpoint-is-incomplete.txt").write_text("in progress")
        with pytest.raises(ValueError, match=r"is no whole checkpoint: checkpoint-is-incomplete\.txt is in it"):
            check_checkpoint(Path(found))

    def test_changed_by_a_callback(self, tmp_path: Path) -> None:
        class Slim(TrainerCallback):
            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "optimizer.pt").unlink()

        run = trainer(tmp_path)
        run.add_callback(Slim())
        run.train()
        check_checkpoint(tmp_path / "out" / "checkpoint-4")
        assert last_checkpoint(tmp_path / "out") == str(tmp_path / "out" / "checkpoint-6")

    def test_of_a_plain_trainer(self, tmp_path: Path) -> None:
        args = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=3,
            save_steps=1,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        rows = [{**tiny.tokenizer()(text), "labels": 0} for text in tiny.texts(8)]
        Trainer(runs.student(), args, train_dataset=rows, processing_class=tiny.tokenizer()).train()
        for step in (1, 2, 3):
            check_checkpoint(tmp_path / "out" / f"checkpoint-{step}")
        run = runs.trainer(runs.config(tmp_path, num_subclasses=1, max_steps=3, optim="adamw_torch"))
        run.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
        assert run.state.global_step == 3
