"""The command line, as a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from places import ROOT

from hf_lelp.__main__ import parse
from hf_lelp.cli.data import DataArguments, load_data
from hf_lelp.cli.distill import DistillArguments
from hf_lelp.cli.options import errors_as_one_line, parse_options


def run(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "run_distill.py", *argv], cwd=cwd, capture_output=True, text=True)


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
        parse_options(DistillArguments, ["--config", str(file), "--output_dir", str(tmp_path)], description="")
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"run.yaml"} and not Path("harm").exists()


def test_a_missing_yaml_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(DistillArguments, ["--config", str(tmp_path / "none.yaml")], description="")
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
        parse_options(DistillArguments, ["--config", str(tmp_path / "run.yaml"), *options], description="")
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


def test_help_shows_ours_before_those_of_training_arguments() -> None:
    done = run("--help")
    assert done.returncode == 0
    ours, lelp, training = (
        done.stdout.index(name) for name in ("--student_model", "--num_subclasses", "--warmup_steps")
    )
    assert ours < lelp < training
    told = " ".join(done.stdout.split())
    assert "Turns --null_space off." in told and "Seed of the rotations (default: seed). --" in told
    assert "(default: None)" not in told and "(default: 8)" in told


def test_the_demo_yaml_has_only_known_options() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from run_distill import DEMO
    finally:
        sys.path.remove(str(ROOT))
    arguments, config = parse(["--config", str(DEMO)])
    assert arguments.method == ["direct", "kd", "lelp"]
    assert config.num_subclasses > 1
