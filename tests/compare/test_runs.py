"""Runs are kept: none is done twice, none is half there, and another result has another file."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tasks
import torch
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from places import HELPERS, ROOT
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from hf_lelp.compare import methods
from hf_lelp.compare import run as one_run
from hf_lelp.compare.report import comparison_table, summarise
from hf_lelp.compare.run import Run, run_or_read, task_fingerprint
from hf_lelp.compare.runs import run_all
from hf_lelp.compare.task import Task
from hf_lelp.config import LELPConfig
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.metrics import few_class_metrics

Loaders = dict[str, Callable[[], Task]]


def load(seed: int = 0, evaluation_rows: int = 64) -> Task:
    """A task whose student is counted; at module level, so that other processes can load it."""
    task = tasks.task(seed=seed, student=counted_student)
    return replace(task, evaluation=task.evaluation.select(range(evaluation_rows)))


PASSES: list[int] = []  # one for every forward pass in this process
ONE_RUN = 2 + 8  # passes: steps of training, and batches of evaluation
DEADLY = "LAST_PASS"  # environment variable: the forward pass at which this process is killed


def counted_student() -> Any:
    model = tasks.student()

    def count(*_: Any) -> None:
        PASSES.append(1)
        if os.environ.get(DEADLY) == str(len(PASSES)):
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_pre_hook(count)
    return model


LOADERS: Loaders = {"one": load}
TIMES = ("train_seconds", "auto_trials", "threads")  # the trials tell theirs


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Number and time of every file below the folder, hidden ones too."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def assert_same_runs(one: dict[str, list[Run]], other: dict[str, list[Run]], but: tuple[str, ...] = ()) -> None:
    assert one.keys() == other.keys()
    for name, of_task in one.items():
        for ours, theirs in zip(of_task, other[name], strict=True):
            assert (ours.method, ours.seed) == (theirs.method, theirs.seed)
            np.testing.assert_array_equal(ours.logits, theirs.logits)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            first, second = ({k: v for k, v in run.figures.items() if k not in but} for run in (ours, theirs))
            assert first == second


def test_the_order_is_by_seed_and_then_by_method(tmp_path: Path) -> None:
    found = run_all(LOADERS, ["lelp", "kd"], [3, 1], tmp_path)
    assert list(found) == ["one"]
    assert [(run.seed, run.method) for run in found["one"]] == [(3, "lelp"), (3, "kd"), (1, "lelp"), (1, "kd")]
    assert len(files(tmp_path)) == 4
    logits = [run.logits for run in found["one"]]
    assert not any(np.array_equal(one, other) for i, one in enumerate(logits) for other in logits[:i])


def test_the_figures_are_those_of_the_student_on_the_evaluation_rows(tmp_path: Path) -> None:
    run = run_all(LOADERS, ["lelp:temperature=2"], [0], tmp_path)["one"][0]
    task = load()
    assert run.logits.shape == (64, 2) and run.logits.dtype == np.float32
    np.testing.assert_array_equal(run.labels, task.evaluation["labels"])
    expected = few_class_metrics(run.logits, run.labels, np.array(task.evaluation["teacher_logits"]))
    assert {name: run.figures[name] for name in expected} == pytest.approx(expected)
    assert "teacher_agreement" in expected
    assert run.correct.mean() == pytest.approx(expected["accuracy"])
    student = tasks.student()
    # The final layer has S rows for each class.
    assert run.figures["parameters"] == sum(p.numel() for p in student.parameters()) + 2 * (4 + 1)
    assert run.figures["train_rows"] == 64 and run.figures["train_seconds"] > 0 and run.figures["auto_trials"] == []
    settings = run.figures["settings"]
    assert (settings["kind"], settings["temperature"], settings["num_subclasses"]) == ("lelp", 2, 2)
    assert settings["learning_rate"] == 0.1 and settings["subclass_temperature"] == 1
    json.dumps(settings)


def test_a_student_that_diverged_ends_nothing_and_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    methods = ["kd", "kd:learning_rate=1e38"]
    runs = run_all(LOADERS, methods, [0], tmp_path)["one"]
    assert "kd:learning_rate=1e38 with seed 0 diverged" in caplog.text
    good, bad = runs
    assert bad.figures["rows_not_finite"] == 64 and not bad.logits.any() and "rows_not_finite" not in good.figures
    assert bad.figures["accuracy"] == bad.correct.mean() == (bad.labels == 0).mean()
    assert_same_runs({"one": runs}, run_all(LOADERS, methods, [0], tmp_path))
    summary = summarise(runs, methods, "kd")
    assert summary["methods"]["kd:learning_rate=1e38"]["diverged"] == [0]
    assert "Diverged, and counted as always giving the first class: kd:learning_rate=1e38 with seed 0." in (
        comparison_table(summary)
    )


def test_rows_without_a_label_are_neither_right_nor_wrong() -> None:
    logits = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
    run = Run("kd", 0, {}, logits, np.array([0, NO_LABEL, 1, 1]))
    assert run.correct.tolist() == [True, False, True]


def test_a_second_call_trains_nothing(tmp_path: Path) -> None:
    first = run_all(LOADERS, ["kd", "lelp"], [0], tmp_path)
    before = files(tmp_path)
    PASSES.clear()
    again = run_all(LOADERS, ["kd", "lelp"], [0], tmp_path)
    assert not PASSES and files(tmp_path) == before and len(before) == 2
    assert_same_runs(first, again)
    # One more method costs its own run alone.
    more = run_all(LOADERS, ["kd", "direct", "lelp"], [0], tmp_path)
    now = files(tmp_path)
    assert len(PASSES) == ONE_RUN and len(now) == 3 and before.items() < now.items()
    assert [run.method for run in more["one"]] == ["kd", "direct", "lelp"]
    # And so does one more seed.
    run_all(LOADERS, ["kd", "lelp"], [0, 1], tmp_path)
    assert len(PASSES) == 3 * ONE_RUN and len(files(tmp_path)) == 5


def test_several_processes_give_the_same(tmp_path: Path) -> None:
    loaders: Loaders = {"one": load, "other": partial(load, 1)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the processes then has
    try:
        alone = run_all(loaders, ["kd", "lelp"], [0], tmp_path / "alone")
        together = run_all(loaders, ["kd", "lelp"], [0], tmp_path / "together", processes=2)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert list(together) == ["one", "other"]
    assert_same_runs(alone, together, but=("train_seconds",))
    assert {*files(tmp_path / "alone")} == {*files(tmp_path / "together")}
    assert not np.array_equal(alone["one"][0].logits, alone["other"][0].logits)


def key(folder: Path, method: str = "lelp", seed: int = 0, task: Task | None = None) -> str:
    """The name of the run's file, with the run left undone: one stands there already."""
    found: list[str] = []

    class Stop(Exception):
        pass

    def stop(path: Path, *_: Any) -> Run:
        found.append(path.name)
        raise Stop

    task = task or tasks.task()
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(one_run, "_read", stop)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    try:
        with pytest.raises(Stop):
            run_or_read(task, task_fingerprint(task), method, seed, folder)
    finally:
        monkeypatch.undo()
    return found[0]


def test_what_a_result_depends_on_makes_another_file(tmp_path: Path) -> None:
    first, task = key(tmp_path), tasks.task()
    labels = np.array(task.train["labels"])
    labels[5] = 1 - labels[5]
    head = replace(task.head, fingerprint="another")
    keys = {
        "seed": key(tmp_path, seed=1),
        "kind": key(tmp_path, "lelp_no_rotation"),
        "kind, all else the same": key(tmp_path, "random_directions"),
        "our setting": key(tmp_path, "lelp:temperature=2"),
        "a setting of Trainer's": key(tmp_path, "lelp:learning_rate=0.2"),
        "another value of it": key(tmp_path, "lelp:learning_rate=0.3"),
        "the task's setting": key(tmp_path, task=replace(task, settings={**task.settings, "max_steps": 3})),
        "a label": key(
            tmp_path, task=replace(task, train=task.train.remove_columns("labels").add_column("labels", labels))
        ),
        "the order of the rows": key(tmp_path, task=replace(task, train=task.train.select([1, 0, *range(2, 64)]))),
        "fewer rows": key(tmp_path, task=replace(task, train=task.train.select(range(63)))),
        "the evaluation": key(tmp_path, task=replace(task, evaluation=task.evaluation.select(range(63)))),
        "the teacher": key(tmp_path, task=replace(task, head=head)),
        "the student's weights": key(tmp_path, task=replace(task, student=other_student)),
        "the student's settings": key(tmp_path, task=replace(task, student=other_settings)),
        "a baseline": key(tmp_path, "vid"),
        "another baseline": key(tmp_path, "crd"),
    }
    assert len({first, *keys.values()}) == len(keys) + 1, {name for name in keys if keys[name] == first}


def other_student() -> Any:
    model = tasks.student()
    with torch.no_grad():
        model.classifier.bias[0] += 1e-3
    return model


def other_settings() -> Any:
    model = tasks.student()
    model.config.layer_norm_eps = 1e-3
    return model


def test_the_same_result_has_the_same_file(tmp_path: Path) -> None:
    first, task = key(tmp_path), tasks.task()
    assert key(tmp_path / "elsewhere") == first
    assert key(tmp_path, "lelp:num_subclasses=2") == first  # the task's own
    assert key(tmp_path, "lelp:temperature=1.0,alpha=0") == first  # the defaults
    assert key(tmp_path, task=replace(task, train=task.train.with_format("torch"))) == first
    torch.manual_seed(123)
    assert key(tmp_path) == first


@dataclass
class OtherDefault(LELPConfig):
    subclass_temperature: float | str = 0.5


def test_another_default_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = key(tmp_path)
    monkeypatch.setattr(methods, "LELPConfig", OtherDefault)
    assert key(tmp_path) != first
    assert key(tmp_path, "lelp:subclass_temperature=1.0") == first


def test_another_search_is_another_run_where_something_was_searched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(tmp_path), key(tmp_path, "lelp:temperature=auto")
    monkeypatch.setattr(one_run, "SEARCH_VERSION", one_run.SEARCH_VERSION + 1)
    after = key(tmp_path), key(tmp_path, "lelp:temperature=auto")
    assert after[0] == before[0] and after[1] != before[1]


@pytest.mark.parametrize("disabled", [False, True])
def test_progress_bars_are_left_as_they_were(disabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests' own environment variable would have priority.
    monkeypatch.setattr(sys.modules["datasets.utils.tqdm"], "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    before = are_progress_bars_disabled()
    (disable_progress_bars if disabled else enable_progress_bars)()
    try:
        run_all(LOADERS, ["kd"], [0], tmp_path)
        assert are_progress_bars_disabled() == disabled
    finally:
        (disable_progress_bars if before else enable_progress_bars)()


def test_a_method_s_own_learning_rate_is_not_read_from_another_s_run(tmp_path: Path) -> None:
    slow, fast = run_all(LOADERS, ["kd", "kd:learning_rate=0.5"], [0], tmp_path)["one"]
    assert not np.array_equal(slow.logits, fast.logits)
    assert fast.figures["settings"]["learning_rate"] == 0.5


def test_an_unknown_method_is_an_error_before_anything_is_trained(tmp_path: Path) -> None:
    PASSES.clear()
    for wrong in ("lalp", "lelp:num_subclases=4", "lelp:temperature=-1", "vid:num_subclasses=2"):
        with pytest.raises(ValueError):
            run_all(LOADERS, ["kd", wrong], [0], tmp_path)
        assert not PASSES and not files(tmp_path), wrong


def test_a_run_s_file_has_all_of_it_and_the_usual_permissions(tmp_path: Path) -> None:
    run = run_all(LOADERS, ["lelp"], [0], tmp_path / "new" / "folder")["one"][0]
    (file,) = (tmp_path / "new" / "folder").rglob("*.safetensors")
    with safe_open(file, framework="np") as stored:
        assert {*stored.keys()} == {"logits", "labels"}
        np.testing.assert_array_equal(stored.get_tensor("logits"), run.logits)
        assert json.loads(stored.metadata()["figures"]) == json.loads(json.dumps(run.figures))
    plain = tmp_path / "plain"
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode


def test_a_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(one_run, "save_file", full)
    with pytest.raises(OSError, match="disk full"):
        run_all(LOADERS, ["kd"], [0], tmp_path)
    assert not files(tmp_path)


def test_a_killed_command_goes_on_where_it_was(tmp_path: Path) -> None:
    names, folder, scratch = ["kd", "lelp"], tmp_path / "runs", tmp_path / "scratch"
    scratch.mkdir()
    program = (
        f"import pathlib, test_runs; test_runs.run_all(test_runs.LOADERS, {names}, [0], pathlib.Path({str(folder)!r}))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(HELPERS), str(ROOT)])
    # In the second step of the second run.
    settings = {DEADLY: str(ONE_RUN + 2), "TMPDIR": str(scratch), "PYTHONPATH": path}
    killed = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = files(folder)
    assert len(before) == 1 and {Path(name).suffix for name in before} == {".safetensors"}

    PASSES.clear()
    resumed = run_all(LOADERS, names, [0], folder)
    now = files(folder)
    assert len(PASSES) == ONE_RUN and len(now) == 2 and before.items() < now.items()
    # What was done before the end is as good as new.
    whole = run_all(LOADERS, ["kd"], [0], tmp_path / "whole")
    assert_same_runs({"one": resumed["one"][:1]}, whole, but=("train_seconds",))


@pytest.mark.parametrize(
    ("place", "words"), [(0.3, r"\.safetensors is damaged \(\w+: .*\)"), (0.95, "its contents have changed")]
)
def test_a_damaged_run_is_made_again(
    tmp_path: Path, place: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Changed in the header, and in the logits.
    before = run_all(LOADERS, ["kd"], [0], tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    PASSES.clear()
    assert_same_runs(run_all(LOADERS, ["kd"], [0], tmp_path), before, but=("train_seconds",))
    assert len(PASSES) == ONE_RUN
    assert "The run kd with seed 0 is made again" in caplog.text and re.search(words, caplog.text)
    PASSES.clear()
    run_all(LOADERS, ["kd"], [0], tmp_path)
    assert not PASSES


def test_runs_of_before_checksums_are_read(tmp_path: Path) -> None:
    before = run_all(LOADERS, ["kd"], [0], tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    with safe_open(file, "np") as stored:
        figures = stored.metadata()["figures"]
    save_file(load_file(file), file, {"figures": figures})
    PASSES.clear()
    assert_same_runs(run_all(LOADERS, ["kd"], [0], tmp_path), before)
    assert not PASSES


def test_a_text_task_and_its_tokenizer(tmp_path: Path) -> None:
    import runs as text  # the helper of that name in tests/
    import tiny

    columns = text.data(32).map(text.teacher(), batched=True)
    tokens = columns.map(lambda row: tiny.tokenizer()(row["text"])).rename_column("label", "labels")
    guide = text.teacher()
    task = Task(
        train=tokens.remove_columns(["text", "teacher_fingerprint"]),
        evaluation=tokens.select(range(7)).select_columns(["input_ids", "attention_mask", "token_type_ids", "labels"]),
        head=guide.head,
        student=text.student,
        processing_class=tiny.tokenizer(),
        settings=copy.deepcopy(tasks.SETTINGS),
    )
    run = run_or_read(task, "hash", "lelp", 0, tmp_path)
    assert run.logits.shape == (7, 2) and "teacher_agreement" not in run.figures


KD_AUTO, LELP_AUTO = "kd:temperature=auto", "lelp:num_subclasses=auto,temperature=auto,subclass_temperature=auto"
ONE_TRIAL = 2 + 2  # passes: steps, and batches of the rows held back


def alone(method: str, folder: Path) -> tuple[Run, int]:
    """A run with nothing before it, and how many passes it took."""
    PASSES.clear()
    (run,) = run_all(LOADERS, [method], [0], folder)["one"]
    return run, len(PASSES)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As each of several processes has: with more the sums are in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("processes", [1, 2])
def test_searches_share_their_trials_and_give_what_they_give_alone(
    processes: int, tmp_path: Path, one_thread: None
) -> None:
    methods = ["lelp", LELP_AUTO, "random_directions:num_subclasses=auto,temperature=auto", KD_AUTO]
    each = {method: alone(method, tmp_path / str(number)) for number, method in enumerate(methods)}
    assert each[KD_AUTO][1] == 3 * ONE_TRIAL + ONE_RUN and each[LELP_AUTO][1] == 4 * ONE_TRIAL + ONE_RUN
    PASSES.clear()
    together = run_all(LOADERS, methods, [0], tmp_path / "together", processes=processes)["one"]
    if processes == 1:
        # Of plain distillation once, and of LELP with its own directions and with random ones.
        finals = {run.logits.tobytes() for run in together}
        assert len(PASSES) == (3 + 2) * ONE_TRIAL + len(finals) * ONE_RUN
    assert_same_runs({"one": together}, {"one": [each[method][0] for method in methods]}, but=TIMES)
    for run in together:
        searched = sum(trial["seconds"] for trial in run.figures["auto_trials"][:-1])
        # As if alone: a trial that another method's search had made already counts too.
        assert run.figures["train_seconds"] > searched and (searched > 0) == (run.method != "lelp")


def test_what_was_chosen_is_the_run_of_these_numbers(tmp_path: Path) -> None:
    searched, _ = alone(KD_AUTO, tmp_path)
    chosen = searched.figures["auto_trials"][-1]["temperature"]
    run, passes = alone(f"kd:temperature={chosen}", tmp_path)
    assert passes == 0 and np.array_equal(run.logits, searched.logits)
    assert run.figures["train_seconds"] < searched.figures["train_seconds"]
    trials = sum(trial["seconds"] for trial in searched.figures["auto_trials"][:-1])
    assert searched.figures["train_seconds"] == pytest.approx(run.figures["train_seconds"] + trials)
    assert alone(KD_AUTO, tmp_path)[0].figures == searched.figures
    assert searched.figures["settings"] == {**run.figures["settings"], "search": one_run.SEARCH_VERSION}
    # The other way round, and by another name of the same.
    numbers = tmp_path / "numbers"
    run, _ = alone(f"lelp:num_subclasses=1,student_head=auxiliary,temperature={chosen}", numbers)
    assert run.figures["settings"]["kind"] == "lelp"
    same, passes = alone(f"lelp_no_null_space:num_subclasses=1,temperature={chosen}", numbers)
    assert passes == 0 and np.array_equal(same.logits, run.logits)
    named = {"kind": "lelp_no_null_space", "null_space": False, "student_head": "subclass"}
    assert named.items() <= same.figures["settings"].items()
    other, passes = alone("lelp_no_null_space:num_subclasses=1,temperature=auto", tmp_path)
    assert passes == 0 and (named | {"temperature": chosen}).items() <= other.figures["settings"].items()
    again, passes = alone(KD_AUTO, numbers)
    assert passes == 3 * ONE_TRIAL and np.array_equal(again.logits, run.logits)
    assert alone(f"direct:temperature={chosen}", numbers)[1] == ONE_RUN
    assert alone(f"vid:temperature={chosen}", numbers)[1] > 0


def test_trials_of_before_a_loss_changed_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(KD_AUTO, tmp_path)
    monkeypatch.setattr(one_run, "RESULTS_VERSION", one_run.RESULTS_VERSION + 1)
    assert alone(KD_AUTO, tmp_path)[1] == 3 * ONE_TRIAL + ONE_RUN


def test_a_search_that_was_cut_off_keeps_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(one_run, "train_student", None)
        with pytest.raises(TypeError):
            alone(KD_AUTO, tmp_path)
    assert len(PASSES) == 3 * ONE_TRIAL
    assert alone(KD_AUTO, tmp_path)[1] == ONE_RUN


def test_what_auto_chose_is_recorded(tmp_path: Path) -> None:
    (run,) = run_all(LOADERS, ["kd:temperature=auto"], [0], tmp_path)["one"]
    assert run.figures["settings"]["temperature"] == run.figures["auto_trials"][-1]["temperature"] != "auto"
