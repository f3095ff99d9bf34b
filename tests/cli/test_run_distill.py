"""The command line, as a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import forked
import pytest
import tiny
import yaml
from places import ROOT
from transformers import TrainingArguments

from hf_lelp.cli.data import DataArguments, load_data
from hf_lelp.cli.distill import PROGRAM
from hf_lelp.cli.options import WIDTH, errors_as_one_line


def run(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return forked.run(ROOT / "run_distill.py", *argv, cwd=cwd)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    teacher = tiny.named(tiny.classifier(hidden_size=32))
    for name, model in (("teacher", teacher), ("student", tiny.classifier(seed=1))):
        model.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    tiny.dataset(teacher, 120).to_csv(tmp_path / "train.csv")
    return {
        "teacher_model": "teacher",
        "student_model": "student",
        "train_file": "train.csv",
        "output_dir": "out",
        "columns_cache_dir": "columns",
        "num_subclasses": 2,
        "max_steps": 2,
        "learning_rate": "1e-3",  # as YAML reads 1e-3
        "report_to": "none",
    }


def test_options_come_from_yaml_and_the_command_line_wins(tmp_path: Path, settings: dict[str, object]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**settings, "method": ["kd", "lelp"]}))
    done = run("--config", "run.yaml", "--method", "lelp", "--num_subclasses", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| lelp " in done.stdout
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())["results"]
    assert set(results) == {"teacher", "lelp"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_subclasses"] == 3


def test_an_unknown_option_in_yaml_is_named(tmp_path: Path, settings: dict[str, object]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**settings, "num_subclases": 3}))
    done = run("--config", "run.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown options: num_subclases" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("teacher_model: [unclosed", "run.yaml cannot be read as YAML"),
        ("a: !!python/object/apply:os.system ['touch harm']", "run.yaml cannot be read as YAML"),
        ("- teacher_model", "run.yaml holds no options, one 'name: value' a line, but a list"),
        ("1: 2\nnull: 3", "unknown options: 1, None"),
        ("method: 3", "error:"),
        ("max_steps: [1, 2]", "error:"),
        (b"\xff\xfe\x00", "run.yaml cannot be read as YAML"),
        ("[" * 100_000, "run.yaml cannot be read as YAML"),
    ],
)
def test_yaml_that_cannot_be_used_ends_with_the_reason(
    tmp_path: Path, content: str | bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SystemExit) as ended:
        PROGRAM.parse(["--config", str(file), "--output_dir", str(tmp_path)])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"run.yaml"} and not Path("harm").exists()


def test_a_missing_yaml_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        PROGRAM.parse(["--config", str(tmp_path / "none.yaml")])
    assert "none.yaml" in capsys.readouterr().err


def test_a_bad_value_is_an_error_without_a_traceback(tmp_path: Path, settings: dict[str, object]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**settings, "alpha": 2}))
    done = run("--config", "run.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "alpha=2.0: the weight of the labels is between 0 and 1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train_fle", "t.csv"], "there is no option --train_fle; did you mean --train_file?"),
        (["--num_subclasses", "eight"], "num_subclasses='eight': a whole number is needed"),
        (["--temperature", "Auto"], "temperature='Auto': a number is needed"),
    ],
)
def test_options_that_are_misspelt(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, object]
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit) as ended:
        PROGRAM.parse(["--config", str(tmp_path / "run.yaml"), *options])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_mistake_in_data_or_models_ends_with_its_reason_alone(tmp_path: Path, settings: dict[str, object]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**settings, "label_column": "lable"}))
    command = [sys.executable, "-m", "hf_lelp", "--use_cpu", "--config", "run.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: The training data has no column 'lable' (it has text, label")
    assert "Set label_column to the one of the labels, or leave it out if there are none." in done.stderr


def test_errors_of_others_keep_their_traceback() -> None:
    with pytest.raises(ValueError, match="invalid literal"), errors_as_one_line():
        int("x")
    with pytest.raises(SystemExit, match=r"error: none\.csv: there is no such file\."), errors_as_one_line():
        load_data(DataArguments(train_file="none.csv"), seed=0)


def test_help_fits_on_two_pages_and_shows_each_option_of_ours_once() -> None:
    done = run("--help")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) <= 100 and max(map(len, lines)) <= WIDTH
    shown = [line.split()[0].rstrip(",") for line in lines if line.startswith("  --")]
    names = {field.name for kind in PROGRAM.kinds for field in fields(kind)} - {
        field.name for field in fields(TrainingArguments)
    }
    assert sorted(shown) == sorted(["--config", "--help-all", *(f"--{name}" for name in names)])
    assert done.stdout.index("--student_model") < done.stdout.index("--num_subclasses")
    told = " ".join(done.stdout.split())
    assert "--null_space, --no_null_space Fit in" in told and "Seed of the rotations (default: seed). --" in told
    assert "(default: None)" not in told and "(default: 8)" in told and "(default: lelp)" in told
    assert "--help-all shows them" in told


def test_help_all_shows_the_options_of_training_too() -> None:
    done = run("--help-all")
    ours, lelp, training = (
        done.stdout.index(f"\n  --{name} ") for name in ("method", "num_subclasses", "warmup_steps")
    )
    assert done.returncode == 0 and ours < lelp < training
    shown = [line.split()[0].rstrip(",") for line in done.stdout.splitlines() if line.startswith("  --")]
    assert len(shown) == len({*shown}) > 100 and {field.name for field in fields(TrainingArguments)} <= {
        name.removeprefix("--") for name in shown
    }


def test_the_demo_yaml_has_only_known_options() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from run_distill import DEMO
    finally:
        sys.path.remove(str(ROOT))
    arguments, config = PROGRAM.parse(["--config", str(DEMO)])
    assert arguments.method == ["direct", "kd", "lelp"]
    assert config.num_subclasses > 1 and {arguments.train_file, arguments.unlabelled_file} == {
        f"~/.cache/hf_lelp/demo/{name}.parquet" for name in ("labelled", "unlabelled")
    }
