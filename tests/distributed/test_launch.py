"""Real launches of several processes: the columns and projections of one process, each row run once."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import runs
import tiny
from accelerate.commands.config.config_args import load_config_from_file
from datasets import Dataset
from places import HELPERS, ROOT
from ports import free_port
from safetensors.torch import load_file

ROWS = 5000


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    teacher = tiny.named(tiny.classifier(hidden_size=32))
    for name, model in (("teacher", teacher), ("student", tiny.classifier(seed=1))):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    tiny.dataset(teacher, ROWS).to_parquet(folder / "train.parquet")
    tiny.dataset(teacher, 100, seed=1).to_parquet(folder / "test.parquet")
    return folder


def distill(launcher: list[str], assets: Path, name: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*launcher, str(ROOT / "run_distill.py"), "--use_cpu", "--config", "/dev/null"]
    options = {
        "teacher_model": "teacher",
        "student_model": "student",
        "train_file": "train.parquet",
        "eval_file": "test.parquet",
        "output_dir": f"{name}/out",
        "columns_cache_dir": f"{name}/columns",
        "num_subclasses": "3",
        "max_steps": "4",
        "report_to": "none",
        **more,
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    if launcher == [sys.executable]:
        return forked.run(*command[1:], *arguments, cwd=assets)
    return subprocess.run([*command, *arguments], cwd=assets, capture_output=True, text=True, timeout=300)


def launched(config: str, *command: str) -> list[str]:
    """The command line that `accelerate launch` takes; every launch has a port of its own."""
    file = str(ROOT / "examples" / "accelerate" / config)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file]
    return [*launch, "--main_process_port", str(free_port()), *command]


def columns(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("columns/teacher/*/*.arrow")}


def projected(folder: Path) -> np.ndarray:
    """The projections' directions are of sums over processes: the same to rounding, not to the bit."""
    (file,) = folder.glob("columns/projected/*/*.arrow")
    return np.array(Dataset.from_file(str(file))[:]["teacher_projections"])


def test_two_processes_give_the_columns_of_one_and_run_each_row_once(assets: Path) -> None:
    one = distill([sys.executable], assets, "one")
    assert one.returncode == 0, one.stderr
    two = distill(launched("cpu.yaml"), assets, "two")
    assert two.returncode == 0, two.stderr

    # Three shards of training rows, one of evaluation rows.
    assert columns(assets / "one") == columns(assets / "two") and len(columns(assets / "one")) == 3 + 1
    fits = [next((assets / name).glob("columns/projections/*/*.safetensors")) for name in ("one", "two")]
    fitted = [load_file(file) for file in fits]
    assert fits[0].parent.name == fits[1].parent.name and fitted[1]["count"].sum() == ROWS
    runs.assert_same(*fitted, tolerance=1e-5)
    np.testing.assert_allclose(projected(assets / "one"), projected(assets / "two"), atol=1e-5)
    # One table, and one student, from the main process alone.
    assert two.stdout.count("| lelp ") == 1
    # Both processes trained: an epoch has half as many steps as one process needs.
    state = {name: json.loads((assets / name / "out" / "trainer_state.json").read_text()) for name in ("one", "two")}
    assert state["two"]["epoch"] == pytest.approx(2 * state["one"]["epoch"], rel=0.01)
    shares = {
        process: int(rows) for rows, process in re.findall(rf"(\d+) of {ROWS} rows run by process (\d)", two.stderr)
    }
    texts = Dataset.from_parquet(str(assets / "train.parquet"), cache_dir=str(assets / "cache"))["text"]
    first, second, third = ({*texts[start : start + 2048]} for start in range(0, ROWS, 2048))
    assert shares == {"0": len(first | third), "1": len(second)}  # rows that come twice are run once in a process


def test_two_processes_choose_together_and_a_second_launch_finds_their_trials(assets: Path) -> None:
    auto = dict.fromkeys(("num_subclasses", "temperature", "subclass_temperature"), "auto")
    found = []
    for _ in range(2):
        done = distill(launched("cpu.yaml"), assets, "auto", student_head="auxiliary", **auto)
        assert done.returncode == 0, done.stderr
        (file,) = (assets / "auto").rglob("auto.json")
        chosen = re.findall(r"auto: (.*) was chosen on 1,000 validation rows", done.stderr)
        found.append((file.read_bytes(), file.stat().st_mtime_ns, set(chosen)))
    assert found[0] == found[1] and len(found[0][2]) == 1
    assert len(json.loads(found[0][0])["trials"]) == 4  # plain distillation at three temperatures, and LELP


def test_processes_that_do_not_know_of_each_other_are_refused(assets: Path) -> None:
    # Two processes, no GPU and no --use_cpu: each would think that it is alone.
    options = ["--teacher_model", "teacher", "--student_model", "student", "--train_file", "train.parquet"]
    command = launched("cpu.yaml", str(ROOT / "run_distill.py"), *options, "--output_dir", "alone/out")
    done = subprocess.run(
        command,
        cwd=assets,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "2 processes were launched, but each would train alone" in done.stderr


def test_several_processes_train_the_student_of_one_at_the_same_global_batch(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS)])}
    script = str(ROOT / "tests" / "distributed" / "train.py")
    alone = forked.run(script, "one", "16", cwd=tmp_path)
    command = launched("cpu.yaml", script, "two", "8")
    together = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    for done in (alone, together):
        assert done.returncode == 0, done.stderr
    one = load_file(tmp_path / "one" / "trainer.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    assert (one[name] - runs.student().state_dict()[name]).abs().max() > 1e-3  # they were trained at all
    for by in ("trainer", "sharded"):
        runs.assert_same(one, load_file(tmp_path / "two" / f"{by}.safetensors"), tolerance=1e-5)


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_are_read(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes == 2 and config.num_machines == 1
    assert str(config.distributed_type.value).split("_")[-1].lower() in ("gpu", path.stem)
