"""Real launches of several processes: the columns and projections of one process, each row run once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parent.parent.parent
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


def distill(launcher: list[str], assets: Path, name: str) -> subprocess.CompletedProcess[str]:
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
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    return subprocess.run([*command, *arguments], cwd=assets, capture_output=True, text=True, timeout=300)


def columns(folder: Path) -> dict[str, bytes]:
    files = [path for path in (folder / "columns").rglob("*") if path.suffix in (".arrow", ".safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_two_processes_give_the_columns_of_one_and_run_each_row_once(assets: Path) -> None:
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    one = distill([sys.executable], assets, "one")
    assert one.returncode == 0, one.stderr
    two = distill([*accelerate, "--main_process_port", "29511"], assets, "two")
    assert two.returncode == 0, two.stderr

    assert columns(assets / "one") == columns(assets / "two")
    # Three shards of training rows, one of evaluation rows, the projected rows, the projections.
    assert len(columns(assets / "one")) == 3 + 1 + 1 + 1
    # One table, and one student, from the main process alone.
    assert two.stdout.count("| lelp ") == 1
    # Both processes trained: an epoch has half as many steps as one process needs.
    state = {name: json.loads((assets / name / "out" / "trainer_state.json").read_text()) for name in ("one", "two")}
    assert state["two"]["epoch"] == pytest.approx(2 * state["one"]["epoch"], rel=0.01)
    shares = {
        process: int(rows) for rows, process in re.findall(rf"(\d+) of {ROWS} rows run by process (\d)", two.stderr)
    }
    assert set(shares) == {"0", "1"} and all(shares.values())
    assert sum(shares.values()) == ROWS


def test_processes_that_do_not_know_of_each_other_are_refused(assets: Path) -> None:
    # Two processes, no GPU and no --use_cpu: each would think that it is alone.
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    options = ["--teacher_model", "teacher", "--student_model", "student", "--train_file", "train.parquet"]
    done = subprocess.run(
        [
            *accelerate,
            "--main_process_port",
            "29512",
            str(ROOT / "run_distill.py"),
            *options,
            "--output_dir",
            "alone/out",
        ],
        cwd=assets,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "2 processes were launched, but each would train alone" in done.stderr
