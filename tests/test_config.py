"""Every setting: its range, its way in from the command line and from files, and its way out again."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import HfArgumentParser, TrainingArguments

from hf_lelp.config import LELPConfig, effective_settings, what_changes

OWN = [field for field in dataclasses.fields(LELPConfig) if field.name not in TrainingArguments.__dataclass_fields__]


def config(**settings: Any) -> LELPConfig:
    return LELPConfig(output_dir="out", use_cpu=True, report_to=[], **settings)


def parse(*arguments: str) -> LELPConfig:
    parsed = HfArgumentParser(LELPConfig).parse_args_into_dataclasses(["--output_dir", "out", "--use_cpu", *arguments])
    return parsed[0]


def test_the_defaults_are_valid_and_the_papers() -> None:
    found = config()
    assert (found.alpha, found.student_head, found.null_space, found.random_rotation) == (0.0, "subclass", True, True)


class TestRanges:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *[(name, v) for name in ("temperature", "subclass_temperature") for v in (0, -1.0, float("inf"))],
            *[(name, float("nan")) for name in ("temperature", "subclass_temperature", "alpha")],
            *[(name, value) for name in ("num_subclasses", "teacher_batch_size") for value in (0, -3)],
            *[(name, value) for name in ("num_directions", "max_length", "teacher_max_length") for value in (0, -3)],
            *[("alpha", value) for value in (-0.1, 1.1)],
            ("rotation_seed", -1),
            ("student_head", "both"),
            ("columns_dtype", "int8"),
            ("num_directions", 7),  # num_subclasses is 8
            ("input_columns", []),
            ("input_columns", ["a", "b", "c"]),
            ("whitening", -0.1),
            ("whitening", 1.1),
            ("whitening", float("nan")),
        ],
    )
    def test_out_of_range(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"{name}="):
            config(**{name: value})

    @pytest.mark.parametrize(
        "settings",
        [
            {"alpha": 0},
            {"alpha": 1},
            {"temperature": 1e-3, "subclass_temperature": 1e3},
            {"num_subclasses": 1, "num_directions": 1},
            {"num_subclasses": 4, "num_directions": 16},
            {"student_head": "auxiliary"},
            {"input_columns": ["premise", "hypothesis"]},
            {"rotation_seed": 0},
            {"whitening": 0.0},
            {"whitening": 1.0},
            {"max_length": 1, "teacher_max_length": 1, "teacher_batch_size": 1},
        ],
    )
    def test_in_range(self, settings: dict[str, Any]) -> None:
        found = config(**settings)
        assert {name: getattr(found, name) for name in settings} == settings

    @pytest.mark.parametrize("name", ["temperature", "subclass_temperature", "alpha", "subclass_weight"])
    def test_what_is_no_number_is_named(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name}='Auto': a number is needed"):
            config(**{name: "Auto"})

    def test_the_home_folder_may_have_its_short_name(self) -> None:
        assert config(columns_cache_dir="~/columns").columns_cache_dir == str(Path.home() / "columns")

    def test_whitening_is_at_most_1(self) -> None:
        with pytest.raises(ValueError, match=r"whitening=2\.0: 0 leaves the directions as they are, and 1 is the most"):
            config(whitening="2")

    def test_the_types_that_columns_can_be_kept_in_are_named(self) -> None:
        with pytest.raises(ValueError, match="columns_dtype='bfloat16': 'float32' or 'float16'"):
            config(columns_dtype="bfloat16")

    def test_the_trainers_own_settings_are_checked_too(self) -> None:
        with pytest.raises(ValueError, match="no-such-strategy"):
            config(eval_strategy="no-such-strategy")


class TestCommandLine:
    def test_every_setting_has_a_help_text_and_a_docstring(self) -> None:
        documented = LELPConfig.__doc__ or ""
        for field in OWN:
            assert field.metadata["help"], field.name
            assert f"\n        {field.name}: " in documented, field.name

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ("--num_subclasses 4 --num_directions 16", {"num_subclasses": 4, "num_directions": 16}),
            ("--temperature 2 --subclass_temperature 1e-1", {"temperature": 2.0, "subclass_temperature": 0.1}),
            ("--num_subclasses auto --temperature auto", {"num_subclasses": "auto", "temperature": "auto"}),
            ("--subclass_temperature auto", {"subclass_temperature": "auto"}),
            ("--alpha 0.5", {"alpha": 0.5}),
            ("--student_head auxiliary", {"student_head": "auxiliary"}),
            ("--null_space false --random_rotation False", {"null_space": False, "random_rotation": False}),
            ("--no_null_space --no_check_teacher", {"null_space": False, "check_teacher": False}),
            ("--scale_projections true --check_teacher", {"scale_projections": True, "check_teacher": True}),
            ("--no_scale_projections", {"scale_projections": False}),
            ("--whitening 1", {"whitening": 1.0}),
            ("--rotation_seed 3", {"rotation_seed": 3}),
            ("--input_columns premise hypothesis", {"input_columns": ["premise", "hypothesis"]}),
            ("--teacher_class_order 1 0", {"teacher_class_order": [1, 0]}),
            ("--label_column y --columns_cache_dir there", {"label_column": "y", "columns_cache_dir": "there"}),
            ("--max_length 64 --teacher_max_length 128", {"max_length": 64, "teacher_max_length": 128}),
            ("--teacher_batch_size 8 --teacher_dtype bfloat16", {"teacher_batch_size": 8, "teacher_dtype": "bfloat16"}),
        ],
    )
    def test_settings(self, arguments: str, expected: dict[str, Any]) -> None:
        found = parse(*arguments.split())
        assert {name: getattr(found, name) for name in expected} == expected

    def test_without_any_the_defaults_stand(self) -> None:
        found, defaults = parse(), config()
        assert {f.name: getattr(found, f.name) for f in OWN} == {f.name: getattr(defaults, f.name) for f in OWN}

    def test_a_head_that_does_not_exist(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse("--student_head", "both")
        assert "invalid choice: 'both'" in capsys.readouterr().err


SETTINGS = """
output_dir: out
use_cpu: true
num_subclasses: 4
temperature: 2
subclass_temperature: 1e-1  # text to YAML, which wants 1.0e-1
alpha: 0
student_head: auxiliary
null_space: false
rotation_seed: null
input_columns: [premise, hypothesis]
teacher_class_order: [1, 0]
"""
MEANT = {
    "num_subclasses": 4,
    "temperature": 2.0,
    "subclass_temperature": 0.1,
    "alpha": 0.0,
    "student_head": "auxiliary",
    "null_space": False,
    "rotation_seed": None,
    "input_columns": ["premise", "hypothesis"],
    "teacher_class_order": [1, 0],
}


class TestFiles:
    def test_yaml(self, tmp_path: Path) -> None:
        (tmp_path / "run.yaml").write_text(SETTINGS)
        (found,) = HfArgumentParser(LELPConfig).parse_yaml_file(str(tmp_path / "run.yaml"))
        assert {name: getattr(found, name) for name in MEANT} == MEANT

    def test_json(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text(json.dumps(yaml.safe_load(SETTINGS)))
        (found,) = HfArgumentParser(LELPConfig).parse_json_file(str(tmp_path / "run.json"))
        assert {name: getattr(found, name) for name in MEANT} == MEANT

    def test_out_and_in_again(self) -> None:
        written = config(**MEANT).to_dict()
        assert {name: written[name] for name in MEANT} == MEANT
        again = LELPConfig(**{field.name: written[field.name] for field in OWN}, output_dir="out")
        assert all(getattr(again, field.name) == written[field.name] for field in OWN)
        json.dumps(written), yaml.safe_dump({field.name: written[field.name] for field in OWN})

    def test_pickles(self) -> None:
        assert pickle.loads(pickle.dumps(config(**MEANT))).to_dict() == config(**MEANT).to_dict()


def test_every_setting_declares_what_it_changes() -> None:
    kinds = {field.name: what_changes(field.name) for field in OWN}
    assert set(kinds.values()) == {"columns", "directions", "subclasses", "loss", "training", "nothing"}
    assert all("changes" in field.metadata and field.metadata["help"] for field in OWN)
    assert all(kinds[name] == "columns" for name in kinds if name.startswith("teacher_"))
    assert what_changes("learning_rate") == what_changes("baseline") == "training"
    assert what_changes("output_dir") == what_changes("hub_token") == what_changes("save_steps") == "nothing"


def test_settings_that_do_nothing_are_left_out() -> None:
    settings = {"num_subclasses": 1, "temperature": 2.0, "whitening": 0.5, "null_space": False, "learning_rate": 1.0}
    assert effective_settings(settings) == {"num_subclasses": 1, "temperature": 2.0, "learning_rate": 1.0}
    assert effective_settings({**settings, "num_subclasses": 2}) == {**settings, "num_subclasses": 2}
