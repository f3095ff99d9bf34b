"""The comparison from files to report: as a command, as a function, and what it refuses before any work is done."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from datasets import Dataset
from PIL import Image
from places import ROOT

from hf_lelp import LELPConfig
from hf_lelp.compare.comparison import PROGRAM, CompareArguments, choose_reference, compare, load_task
from hf_lelp.compare.methods import SUBCLASS_LOGITS_COLUMN, Method, build_trainer
from hf_lelp.compare.report import publish, summarise
from hf_lelp.compare.run import Run, task_fingerprint
from hf_lelp.compare.statistics import paired_difference
from hf_lelp.metrics import few_class_metrics

SECRET = "hf_notforthereport"
TRAINING: dict[str, Any] = {
    "num_subclasses": 2,
    "max_steps": 2,
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "report_to": "none",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student and two CSV files, the training data with a column of finer groups."""
    folder = tmp_path_factory.mktemp("data")
    teacher = tiny.named(tiny.classifier(hidden_size=24))
    for name, model in (("teacher", teacher), ("student", tiny.classifier(hidden_size=8, seed=1))):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    train = tiny.dataset(teacher, 90)
    groups = [f"{label} {len(text) % 3}" for text, label in zip(train["text"], train["label"], strict=True)]
    train.add_column("topic", groups).to_csv(folder / "train.csv")
    train.select_columns(["text"]).to_csv(folder / "more.csv")
    holes = [group if place % 3 else None for place, group in enumerate(groups)]
    train.add_column("holes", holes).to_csv(folder / "holes.csv")
    tiny.dataset(teacher, 40, seed=1).to_csv(folder / "eval.csv")
    return folder


def arguments(data: Path, **settings: Any) -> CompareArguments:
    paths = {"teacher_model": "teacher", "student_model": "student"}
    paths |= {"train_file": "train.csv", "eval_file": "eval.csv"}
    defaults = {"methods": ["kd", "lelp"], "seeds": 2, **{name: str(data / path) for name, path in paths.items()}}
    return CompareArguments(**{**defaults, **settings})


def config(folder: Path, data: Path, **settings: Any) -> LELPConfig:
    """With the teacher's columns kept beside the data, for all tests."""
    places = {"output_dir": str(folder / "out"), "columns_cache_dir": str(data / "columns")}
    return LELPConfig(**{**TRAINING, **places, **settings})


def kept(out: Path) -> dict[str, int]:
    """The time of every run's file."""
    return {file.name: file.stat().st_mtime_ns for file in (out / "runs").rglob("*.safetensors")}


def test_the_command_writes_a_report_and_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    settings = asdict(arguments(data, methods=["direct", "kd", "lelp:num_subclasses=3"], seeds=1))
    given = {name: value for name, value in settings.items() if value is not None and name != "seeds"}
    given |= {**TRAINING, "columns_cache_dir": str(data / "columns"), "output_dir": "out", "hub_token": SECRET}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "hf_lelp.compare", "--config", "compare.yaml", "--seeds", "2"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    hidden = ("_PROGRESS_BARS", "TQDM_DISABLE")
    environment = {name: value for name, value in os.environ.items() if not name.endswith(hidden)}
    environment["PYTHONPATH"] = path
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    told = done.stderr.split("Running the teacher", 1)[-1]
    assert "Comparing: 6 runs in " in told and "Loading weights" not in told and "Projecting" not in told
    out = tmp_path / "out"
    assert {file.name for file in out.iterdir()} >= {"comparison.json", "comparison.md", "accuracy.png", "runs"}
    summary = json.loads((out / "comparison.json").read_text())["all rows"]
    assert list(summary["methods"]) == ["direct", "kd", "lelp:num_subclasses=3"]
    assert (summary["reference"], summary["seeds"], summary["train_rows"], summary["evaluation_rows"]) == (
        *("kd", [42, 43], 90, 40),
    )
    table = (out / "comparison.md").read_text(encoding="utf-8")
    assert table.startswith("### all rows\n\n") and table in done.stdout and "| lelp:num_subclasses=3 " in table
    assert len(kept(out)) == 6
    everything = b"".join(file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert SECRET.encode() not in everything and SECRET not in done.stdout + done.stderr

    # The same again in this process: nothing is trained, and the same is said.
    before = kept(out)
    mine, training = PROGRAM.parse(["--config", str(tmp_path / "compare.yaml"), "--seeds", "2"])
    training.output_dir = str(out)
    again = compare(mine, training)
    assert json.loads(json.dumps(again)) == {"all rows": summary}
    assert kept(out) == before


def test_the_function_compares_on_all_rows_and_on_fewer(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    given = arguments(data, methods=["kd", "lelp", "lelp:num_subclasses=3", "oracle"], fine_column="topic", seeds=1)
    given.train_sizes = [32]
    summaries = compare(given, config(tmp_path, data))
    assert {name: summary["train_rows"] for name, summary in summaries.items()} == {"all rows": 90, "32 rows": 32}
    for summary in summaries.values():
        assert list(summary["methods"]) == given.methods and summary["evaluation_rows"] == 40
        for method, figures in summary["methods"].items():
            assert len(figures["accuracies"]) == 1 and figures["accuracy"]["std"] is None
            assert figures["accuracy"]["mean"] == pytest.approx(figures["accuracies"][0])
            assert ("difference" in figures) == (method != "kd")
    out = tmp_path / "out"
    for name in ("accuracy.png", "sizes.png", "settings.png"):
        assert np.asarray(Image.open(out / name)).std() > 5
    assert (out / "comparison.md").read_text(encoding="utf-8").count("### ") == 2


def test_the_report_names_no_place_on_this_machine(data: Path, tmp_path: Path) -> None:
    settings = {"logging_dir": str(tmp_path / "logs")} if hasattr(LELPConfig, "logging_dir") else {}
    compare(arguments(data, methods=["kd"], seeds=1), config(tmp_path, data, hub_token=SECRET, **settings))
    for name in ("comparison.json", "comparison.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert SECRET not in text and "token" not in text
        for place in (data, tmp_path, Path.home()):
            assert str(place) not in text, name


def test_another_place_is_not_another_run(data: Path, tmp_path: Path) -> None:
    given = arguments(data, methods=["kd"], seeds=1)
    compare(given, config(tmp_path, data))
    before = kept(tmp_path / "out")
    compare(given, config(tmp_path, data, columns_cache_dir=str(tmp_path / "columns")))
    assert kept(tmp_path / "out") == before


def test_columns_that_differ_in_rounding_are_not_another_run(data: Path, tmp_path: Path) -> None:
    given = arguments(data, methods=["kd"], seeds=1)
    args = config(tmp_path, data, columns_cache_dir=str(tmp_path / "other"), teacher_batch_size=3)
    one, other = load_task(given, config(tmp_path, data)), load_task(given, args)
    assert task_fingerprint(one) != task_fingerprint(other) and one.columns == other.columns
    assert load_task(given, args, 40).columns != other.columns
    compare(given, config(tmp_path, data))
    (kept_task,) = (tmp_path / "out" / "runs").glob("task-*.json")
    assert json.loads(kept_task.read_text()) == {"fingerprint": task_fingerprint(one)}  # as earlier versions name runs
    before = kept(tmp_path / "out")
    compare(given, args)
    assert kept(tmp_path / "out") == before
    kept_task.write_text("{")
    compare(given, args)
    assert len(kept(tmp_path / "out")) == 2 * len(before)


def test_a_task_has_what_the_methods_need(data: Path, tmp_path: Path) -> None:
    args = config(tmp_path, data, temperature=2.0)
    task = load_task(arguments(data, fine_column="topic"), args)
    tokens = ["input_ids", "attention_mask", "token_type_ids"]
    columns = [*tokens, "labels", "teacher_logits"]
    assert {*task.train.column_names} == {*columns, "teacher_embedding", "fine_label"}
    assert {*task.evaluation.column_names} == {*columns}
    raw = Dataset.from_csv(str(data / "train.csv"), cache_dir=str(tmp_path))
    assert task.train["labels"][:] == raw["label"][:]
    assert task.train[7]["input_ids"] == tiny.tokenizer()(raw[7]["text"])["input_ids"]
    assert [sorted({*raw["topic"]})[index] for index in task.train["fine_label"]] == raw["topic"][:]
    assert task.fine_column == "fine_label" and task.head.weight.shape == (2, 24)
    assert {"temperature", "max_steps"} <= {*task.settings} and task.settings["temperature"] == 2
    assert not {"output_dir", "hub_token", "report_to"} & {*task.settings}

    some, again, all_rows = (load_task(arguments(data), args, size) for size in (20, 20, None))
    assert len(some.train) == 20 and some.train[:] == again.train[:]
    texts = [tuple(row) for row in all_rows.train["input_ids"]]
    drawn = [texts.index(tuple(row)) for row in some.train["input_ids"]]
    assert drawn != sorted(drawn)  # at random
    assert some.evaluation[:] == all_rows.evaluation[:]
    assert task_fingerprint(some) == task_fingerprint(again) != task_fingerprint(all_rows)
    assert load_task(arguments(data), config(tmp_path, data, seed=1), 20).train[:] != some.train[:]


# ---- Summary ----


def run_of(method: str, seed: int, right: int, **figures: float) -> Run:
    """Of ten labelled rows and one without a label so many are answered rightly."""
    labels = np.array([0, 1] * 5 + [-100])
    answers = np.where(np.arange(11) < right, labels, 1 - labels).clip(0, 1)
    logits = np.eye(2, dtype=np.float32)[answers]
    measured = {"train_rows": 50, "settings": {"kind": "kd", "seed": seed}, **few_class_metrics(logits, labels)}
    return Run(method, seed, {**measured, "train_seconds": 2.0 * seed, **figures}, logits, labels)


def test_the_summary_pairs_methods_seed_by_seed() -> None:
    right = {"kd": [6, 7, 8], "lelp": [7, 8, 9]}
    runs = [run_of(method, seed, right[method][seed]) for seed in range(3) for method in right]
    summary = summarise(runs, ["kd", "lelp"], "kd")
    assert {name: summary[name] for name in ("reference", "seeds", "train_rows", "evaluation_rows")} == {
        "reference": "kd",
        "seeds": [0, 1, 2],
        "train_rows": 50,
        "evaluation_rows": 10,
    }
    kd, lelp = summary["methods"]["kd"], summary["methods"]["lelp"]
    assert kd["accuracies"] == [0.6, 0.7, 0.8] and "difference" not in kd
    assert kd["accuracy"] == {"mean": pytest.approx(0.7), "std": pytest.approx(0.1)}
    assert kd["train_seconds"] == {"mean": 2.0, "std": 2.0}
    assert "teacher_agreement" not in kd
    assert lelp["difference"]["mean"] == pytest.approx(10)
    correct = {m: np.array([run.correct for run in runs if run.method == m]) for m in right}
    assert lelp["difference"] == paired_difference(correct["lelp"], correct["kd"])
    assert kd["settings"] == {"kind": "kd"}
    other = summarise(runs, ["kd", "lelp"], "lelp")
    assert other["methods"]["kd"]["difference"]["mean"] == pytest.approx(-10)


def test_a_teacher_that_teaches_less_than_the_labels_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def published(folder: str, kd: list[int], seeds: int = 3) -> str:
        right = {"direct": [9, 10, 9], "kd": kd}
        found = [run_of(method, seed, right[method][seed]) for seed in range(seeds) for method in right]
        alphas = {"direct": 1.0, "kd": 0.0}
        for run in found:
            run.figures["settings"]["alpha"] = alphas[run.method]
        publish({"all rows": found}, list(right), "kd", tmp_path / folder)
        return (tmp_path / folder / "comparison.md").read_text(encoding="utf-8")

    with caplog.at_level("WARNING"):
        for folder, kd, seeds in (("alike", [9, 10, 9], 3), ("above", [10, 10, 10], 3), ("one seed", [1, 1, 1], 1)):
            assert "Warning" not in published(folder, kd, seeds)
        assert "labels alone" not in caplog.text
        report = published("below", [2, 2, 1])
    words = "below labels alone, beyond the noise: kd by 76.67 points (-91.01 to -62.32 over seeds, "
    assert words in report and words in caplog.text and words in capsys.readouterr().out
    summary = json.loads((tmp_path / "below" / "comparison.json").read_text())["all rows"]["methods"]
    assert summary["kd"]["above_labels"]["finding"] == "worse" and "above_labels" not in summary["direct"]


# ---- What is refused, and when ----


def test_the_reference_is_the_first_plain_distillation_or_else_the_first() -> None:
    assert choose_reference(["direct", "kd:temperature=4", "kd"], None) == "kd:temperature=4"
    assert choose_reference(["lelp", "direct"], None) == "lelp"
    assert choose_reference(["lelp", "kd"], "lelp") == "lelp"
    with pytest.raises(ValueError, match="reference='rkd' is none of the methods: kd, lelp"):
        choose_reference(["kd", "lelp"], "rkd")
    for methods in ([], ["kd", "kd"]):
        with pytest.raises(ValueError, match="one or more different ones"):
            choose_reference(methods, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["kd", "lalp"]}, "method 'lalp': one of direct, kd, lelp"),
        ({"methods": ["kd", "lelp:temperature"]}, "method 'lelp:temperature'"),
        ({"methods": ["kd", "kd"]}, "one or more different ones are needed"),
        ({"reference": "rkd"}, "reference='rkd' is none of the methods: kd, lelp"),
        ({"student_model": None}, "student_model is missing"),
        ({"train_file": None}, "either dataset_name or train_file"),
        (
            {"methods": ["oracle"], "fine_column": "topic", "unlabelled_file": "f.csv"},
            "rows of unlabelled_file have none",
        ),
        ({"seeds": 0}, "seeds=0: at least 1"),
        ({"processes": 0}, "processes=0: at least 1"),
    ],
)
def test_mistakes_show_before_anything_is_loaded(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        arguments(Path("nowhere"), **settings)


def test_a_retrained_teacher_s_logits_come_with_the_data(data: Path, tmp_path: Path) -> None:
    train = Dataset.from_csv(str(data / "train.csv"))
    logits = np.random.default_rng(0).normal(size=(len(train), 2, 3)).tolist()
    train.add_column(SUBCLASS_LOGITS_COLUMN, logits).to_parquet(tmp_path / "train.parquet")
    methods = ["kd", "subclass_distillation"]
    given = arguments(data, methods=methods, seeds=1, train_file=str(tmp_path / "train.parquet"))
    summary = compare(given, config(tmp_path, data, check_teacher=False))["all rows"]  # random logits
    assert list(summary["methods"]) == methods
    assert SUBCLASS_LOGITS_COLUMN not in load_task(arguments(data), config(tmp_path, data)).train.column_names


def test_rows_that_are_made_or_added_are_told_apart_and_labels_alone_leave_them(data: Path, tmp_path: Path) -> None:
    more = [" ".join(words) for words in (tiny.WORDS, reversed(tiny.WORDS))]
    Dataset.from_dict({"text": more}).to_csv(tmp_path / "more.csv")
    given = arguments(data, methods=["direct", "kd"], seeds=1, unlabelled_file=str(tmp_path / "more.csv"))
    given.train_sizes = [32]
    training = config(tmp_path, data, windows=2, views=1, max_length=10)
    summaries = compare(given, training)
    assert {name: summary["train_rows"] for name, summary in summaries.items()} == {"all rows": 90, "32 rows": 32}
    added = summaries["all rows"]["added_rows"]
    assert (
        added["unlabelled"] == 2 and added["window"] >= 2 and added["view"] > summaries["32 rows"]["added_rows"]["view"]
    )
    table = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert f"90 training rows (and {added['window']} windows, {added['view']} views, 2 unlabelled), 40 eval" in table

    task = load_task(given, training)
    labels_alone, distilled = (
        build_trainer(task, method, method.config(task, output_dir=str(tmp_path / "run"))).train_dataset
        for method in map(Method.parse, given.methods)
    )
    assert len(distilled) == 90 + sum(added.values())
    assert len(labels_alone) < len(distilled) - 2 and -100 not in labels_alone["labels"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_sizes": [32, 91, 1000]}, r"train_sizes=\[91, 1000\]: the training data has 90 rows"),
        ({"train_sizes": [0]}, "train_sizes"),
        ({"fine_column": "theme"}, "fine_column=theme; the data has text, label, topic"),
        ({"fine_column": "holes", "methods": ["oracle"]}, "fine_column=holes: 30 of 90 rows hold no finer class"),
        (
            {"methods": ["kd", "direct"], "seeds": 1},
            "method 'direct' learns from labels alone, and the training data has",
        ),
        ({"methods": ["kd", "oracle"]}, "fine_column"),
        ({"methods": ["kd", "lelp:num_subclases=2"]}, "no setting num_subclases"),
        ({"methods": ["kd", "vid:num_subclasses=2"]}, "num_subclasses=2"),
        ({"methods": ["kd", "kmeans"]}, "method 'kmeans': kmeans needs embeddings, and fit_rows=60 keeps none"),
        ({"methods": ["kd", "rkd"]}, "method 'rkd': rkd needs embeddings"),
        ({"methods": ["kd", "random_directions"]}, "random_directions needs embeddings"),
        ({"methods": ["kd", "lelp_no_null_space"]}, "lelp_no_null_space': null_space needs embeddings"),
        ({"methods": ["lelp:num_subclasses=3,fit_rows=9"]}, "num_directions, fit_rows needs embeddings"),
        ({"methods": ["lelp:num_subclasses=auto"]}, "num_directions needs embeddings"),
        ({"train_sizes": [60]}, "train_sizes fits on the rows of each size, and fit_rows on one sample"),
    ],
)
def test_mistakes_show_before_anything_is_trained(
    settings: dict[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    fit_rows = 60 if "fit" in message or "embeddings" in message else None
    with pytest.raises(ValueError, match=message):
        of_holes = {"train_file": str(data / "holes.csv")} if "holes" in message else {}
        if "labels alone" in message:
            of_holes = {"train_file": str(data / "more.csv")}
        compare(arguments(data, **settings, **of_holes), config(tmp_path, data, fit_rows=fit_rows))
    assert not kept(tmp_path / "out")


def test_methods_without_embeddings_compare_on_a_sampled_fit(data: Path, tmp_path: Path) -> None:
    methods = ["kd", "lelp", "lelp_no_rotation", "oracle"]
    given = arguments(data, methods=methods, seeds=1, fine_column="topic")
    args = config(tmp_path, data, fit_rows=60)
    task = load_task(given, args)
    assert task.projections is not None and task.projections.count.sum() == 60
    assert "teacher_embedding" not in task.train.column_names
    report = compare(given, args)
    assert [*report["all rows"]["methods"]] == methods


def test_a_mistake_on_the_command_line_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, message in (
        (["--train_file", "f.csv", "--teacher_model", "t"], "student_model is missing"),
        (["--methods", "kd", "lalp"], "method 'lalp'"),
        (["--methods", "kd", "--reference", "lelp"], "reference='lelp' is none"),
    ):
        given = ["--teacher_model", "t", "--student_model", "s", "--train_file", "f.csv"]
        with pytest.raises(SystemExit) as ended:
            PROGRAM.main(argv if "--train_file" in argv else [*given, *argv])
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_neither_a_teacher_nor_soft_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher_model is missing: .* or name columns of soft labels"):
        compare(arguments(tmp_path, teacher_model=None), LELPConfig(output_dir=str(tmp_path)))


def test_a_list_of_one_needs_no_brackets_in_yaml(tmp_path: Path) -> None:
    given = {"teacher_model": "t", "student_model": "s", "train_file": "f.csv", "methods": "kd", "train_sizes": 32}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump({**given, "report_to": "none"}))
    mine, _ = PROGRAM.parse(["--config", str(tmp_path / "compare.yaml")])
    assert (mine.methods, mine.train_sizes) == (["kd"], [32])


@pytest.mark.parametrize("method", ["kmeans", "subclass_distillation"])
def test_what_is_auto_for_all_methods_is_checked_with_each(method: str, data: Path, tmp_path: Path) -> None:
    asked = arguments(data, methods=["kd", method])
    with pytest.raises(ValueError, match=f"method '{method}': .* number"):
        compare(asked, config(tmp_path, data, num_subclasses="auto", temperature="auto"))
    assert not (tmp_path / "out" / "runs").exists()


def test_labels_alone_need_a_teacher_all_the_same(data: Path, tmp_path: Path) -> None:
    """alpha=1 for all methods leaves nothing to compare."""
    with pytest.raises(ValueError, match="alpha=1"):
        compare(arguments(data), config(tmp_path, data, alpha=1.0))
