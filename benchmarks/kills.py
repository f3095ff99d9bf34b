"""Kill every stage with SIGKILL at random moments, run it again, compare with a run that nobody disturbed.

    python -m benchmarks.kills                                  # all; writes results/kills.json
    python -m benchmarks.kills --only training --kills 5 --output /tmp/kills.json

Each run is a process of its own, forked from this one, which has imported the libraries but started no thread: a run
then takes a second, not ten. The moments are drawn, one in each of as many equal parts of the stage's duration as
there are kills. A run that was quicker and ended before its moment is made anew, with a moment drawn in the same part
of the quicker run's duration. After a kill the same command runs to its end, and what it leaves must be what an
undisturbed run leaves: files byte by byte, reports without their times.
"""

import argparse
import hashlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # and not where a test imports this
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
    }

import datasets
import matplotlib.figure  # noqa: F401  # for the plots of compare
import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny

import run_distill
from hf_lelp import ClassProjections, LELPConfig, LELPTrainer, Teacher, load_student
from hf_lelp import compare as compare_command
from hf_lelp import export as export_command
from hf_lelp.checkpoints import check_checkpoint
from hf_lelp.columns import fit_projections, teacher_columns
from hf_lelp.files import write_atomically
from hf_lelp.shards import RECORD_NAME
from hf_lelp.students import place_student_head, student_head

RESULTS = Path(__file__).parent / "results" / "kills.json"
LONGEST = 300.0  # seconds of one run
# Times, hashes of files with times in them, and what a tokenizer's file says of the last call.
VARYING = {"train_seconds", "examples_per_second", "sha256", "truncation", "padding"}

Started = Callable[[], None]


@dataclass(frozen=True)
class Stage:
    """Something that can be killed.

    Attributes:
        name: for the table.
        kills: as many as a whole campaign has.
        run: does the work in a folder, from the shared inputs; calls its last argument when the work begins.
        result: what must be the same in the end, by name.
        check: run after a kill, before the work is done again; raises if something half-done can be read as whole.
    """

    name: str
    kills: int
    run: Callable[[Path, Path, Started], None]
    result: Callable[[Path], dict[str, Any]]
    check: Callable[[Path, Path], None] | None = None


def make_inputs(folder: Path) -> None:
    """A tiny teacher and student, rows, and a finished student with its projections."""
    teacher = tiny.named(tiny.classifier(hidden_size=32))
    for name, model in (("teacher", teacher), ("student", tiny.classifier(seed=1))):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    for name, rows in (("many", 5 * 2048), ("train", 320), ("test", 160)):
        tiny.dataset(teacher, rows, seed=rows).to_parquet(folder / f"{name}.parquet")
    guide = _teacher(folder)
    columns = teacher_columns(_rows(folder, "train"), guide, folder / "columns")
    ClassProjections.fit(columns, guide.head, 2).save_pretrained(folder / "projections")
    _trainer(folder, folder / "finished", temperature=1.0, seed=5).save_model()


def _rows(inputs: Path, name: str) -> Dataset:
    return Dataset.from_parquet(str(inputs / f"{name}.parquet"), cache_dir=str(inputs / "cache"))


def _teacher(inputs: Path) -> Teacher:
    return Teacher.from_pretrained(str(inputs / "teacher"))


def _student(temperature: float, seed: int) -> PreTrainedModel:
    model = tiny.named(tiny.classifier(seed=seed))
    place_student_head(model, 2, "subclass", temperature)
    return model


def _trainer(inputs: Path, folder: Path, *, temperature: float, seed: int) -> LELPTrainer:
    args = LELPConfig(output_dir=str(folder), num_subclasses=2, temperature=temperature, use_cpu=True, report_to="none")
    projections = ClassProjections.from_pretrained(inputs / "projections")
    return LELPTrainer(_student(temperature, seed), args, processing_class=tiny.tokenizer(), projections=projections)


# ---- The stages ----


def run_teacher(inputs: Path, folder: Path, started: Started) -> None:
    rows, teacher = _rows(inputs, "many"), _teacher(inputs)
    started()
    teacher_columns(rows, teacher, folder / "columns")


def run_fit(inputs: Path, folder: Path, started: Started) -> None:
    rows, teacher = _rows(inputs, "many"), _teacher(inputs)
    columns = teacher_columns(rows, teacher, inputs / "columns")
    started()
    fit_projections(columns, np.asarray(rows["label"]), teacher, 4, cache_dir=folder / "columns")


def run_saving(inputs: Path, folder: Path, started: Started) -> None:
    """Save a student, with its projections, where an earlier one is."""
    if not (folder / "model").exists():
        _trainer(inputs, folder / "model", temperature=1.0, seed=5).save_model()
    trainer = _trainer(inputs, folder / "model", temperature=2.0, seed=6)
    started()
    trainer.save_model()


def check_saving(inputs: Path, folder: Path) -> None:
    """The old student or the new one, or none that loads; a mixture would have one's weights and the other's τ."""
    try:
        found = load_student(str(folder / "model"))
    except ValueError:
        return
    head = student_head(found)
    temperature = float(getattr(head, "temperature", 0))
    expected = _student(temperature, {1.0: 5, 2.0: 6}[temperature]).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items()), "a mixture"


def _options(inputs: Path, folder: Path, **options: Any) -> list[str]:
    given: dict[str, Any] = {
        "teacher_model": inputs / "teacher",
        "student_model": inputs / "student",
        "train_file": inputs / "train.parquet",
        "eval_file": inputs / "test.parquet",
        "output_dir": folder / "out",
        "columns_cache_dir": folder / "columns",
        "num_subclasses": 2,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "report_to": "none",
        **options,
    }
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def run_training(inputs: Path, folder: Path, started: Started) -> None:
    checkpoints = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 3, "resume_from_checkpoint": "last"}
    sys.argv[1:] = _options(inputs, folder, max_steps=60, logging_steps=4, student_head="auxiliary", **checkpoints)
    started()
    run_distill.main()


def check_training(inputs: Path, folder: Path) -> None:
    """A checkpoint that passes for whole loads, in every part."""
    for checkpoint in (folder / "out").glob("checkpoint-*"):
        try:
            check_checkpoint(checkpoint)
        except ValueError:
            continue
        load_student(str(checkpoint))
        ClassProjections.from_pretrained(checkpoint / "class_projections")
        assert (checkpoint / "optimizer.pt").exists() and (checkpoint / "auxiliary_head.safetensors").exists()


def run_export(inputs: Path, folder: Path, started: Started) -> None:
    data = ["--train_file", str(inputs / "train.parquet"), "--eval_file", str(inputs / "test.parquet")]
    started()
    export_command.main(
        [str(inputs / "finished"), "--to", "plain", "torch", "--output_dir", str(folder / "out"), *data]
    )


def run_compare(inputs: Path, folder: Path, started: Started) -> None:
    started()
    compare_command.main([*_options(inputs, folder, seeds=2, max_steps=4, methods="kd"), "lelp"])


# ---- What must be the same ----


def files(*patterns: str, but: Iterable[str] = ()) -> Callable[[Path], dict[str, Any]]:
    """Hashes of the files of these patterns, those but for a killed process's temporary ones."""

    def result(folder: Path) -> dict[str, Any]:
        found = {path.relative_to(folder): path for pattern in patterns for path in folder.glob(pattern)}
        return {
            str(name): hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in sorted(found.items())
            if path.is_file() and path.name not in but and not _temporary(name)
        }

    return result


def report(name: str) -> Callable[[Path], dict[str, Any]]:
    """A JSON file without what varies."""

    def result(folder: Path) -> dict[str, Any]:
        return {name: _lasting(json.loads((folder / name).read_text()))}

    return result


def together(*results: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {name: value for result in results for name, value in result(folder).items()}


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _lasting(item)
            for name, item in value.items()
            if name not in VARYING and not name.startswith("milliseconds")
        }
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def _temporary(name: Path) -> bool:
    return any(part.startswith((".", "_new-", "tmp")) for part in name.parts)


# Arguments and cards say where and when; checksums.json is of files that are compared here, and of those.
BUT = ("training_args.bin", "README.md", "checksums.json", "trainer_state.json")
REPORTS = ("all_results.json", "tokenizer.json")
STUDENT = ("out/*.safetensors", "out/*.json", "out/class_projections/*")
STAGES = (
    Stage("teacher", 12, run_teacher, files("columns/**/*", but=[RECORD_NAME])),  # the record has times
    Stage("fit", 8, run_fit, files("columns/**/*")),
    Stage("saving", 12, run_saving, files("model/**/*", but=BUT), check_saving),
    Stage(
        "training",
        16,
        run_training,
        together(
            files(*STUDENT, "out/checkpoint-60/*.safetensors", but=(*BUT, *REPORTS)),
            *(report(f"out/{name}") for name in REPORTS),
        ),
        check_training,
    ),
    Stage(
        "export", 6, run_export, together(files("out/plain/*", but=(*BUT, "tokenizer.json")), report("out/export.json"))
    ),
    Stage("compare", 10, run_compare, report("out/comparison.json")),
)


# ---- Runs and kills ----


@dataclass(frozen=True)
class Process:
    """A forked process, the end of a pipe that says when its work begins, and what it prints."""

    number: int
    pipe: int
    log: Path


def start(work: Callable[[Started], None], log: Path, cache: Path) -> Process:
    """Fork a process that does the work."""
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    threads -= {"jemalloc_bg_thd", Path("/proc/self/comm").read_text().strip()}  # jemalloc prepares itself for a fork
    assert not threads, f"a fork of a process with the threads {threads} may hang"
    sys.stdout.flush()
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return Process(process, reading, log)
    status = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        datasets.config.HF_DATASETS_CACHE = cache
        torch.manual_seed(0)
        work(lambda: os.write(writing, b"."))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status)  # never back into the caller


def finish(process: Process, kill_after: float | None = None) -> tuple[bool, float]:
    """Wait for the end, or kill the process so many seconds after its work began; whether that killed it, and when.

    The time of a process that ended before is that of its end.

    Raises:
        RuntimeError: if the process failed, with what it printed.
    """
    select.select([process.pipe], [], [], LONGEST)
    os.close(process.pipe)
    begin = time.perf_counter()
    end = os.pidfd_open(process.number)
    select.select([end], [], [], kill_after)
    seconds = time.perf_counter() - begin
    os.close(end)
    if kill_after is not None:
        os.killpg(process.number, signal.SIGKILL)
    status = os.waitpid(process.number, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(process.log.read_text()[-4000:])
    return os.WIFSIGNALED(status), seconds


def campaign(stage: Stage, kills: int, inputs: Path, folder: Path, generator: random.Random) -> dict[str, Any]:
    """Kill a stage at as many moments, and see what the same command makes of it."""

    def run(name: str, kill_after: float | None = None) -> tuple[bool, float]:
        place = folder / name
        place.mkdir(exist_ok=True)
        process = start(lambda started: stage.run(inputs, place, started), folder / f"{name}.log", place / "cache")
        return finish(process, kill_after)

    durations = [run(f"whole{number}")[1] for number in range(2)]
    expected = stage.result(folder / "whole0")
    assert expected and expected == stage.result(folder / "whole1"), f"{stage.name}: two undisturbed runs differ"
    duration, moments = min(durations), []
    same = too_late = with_leftovers = 0
    for number in range(kills):
        place = folder / f"killed{number}"
        killed, seconds = False, duration
        while not killed:
            of = seconds  # of the undisturbed runs, or of this one where it was quicker and ended before its moment
            moment = (number + generator.random()) / kills * of
            killed, seconds = run(place.name, moment)
            if not killed:
                too_late += 1
                shutil.rmtree(place)
        moments.append([round(moment, 3), round(of, 3)])
        with_leftovers += any(_temporary(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
        check = stage.check
        if check is not None:
            finish(start(lambda _, check=check, place=place: check(inputs, place), folder / "check.log", place))
        run(place.name)
        found = stage.result(place)
        same += found == expected
        if found != expected:
            differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            print(f"{stage.name}, killed after {moment:.3f} s: {', '.join(differing)} differ", flush=True)
    return {
        "kills": kills,
        "ended_before_a_kill": too_late,
        "left_temporary_files": with_leftovers,
        "same_result": same,
        "seconds": round(duration, 3),
        "moments": moments,  # seconds, and of how many
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[stage.name for stage in STAGES], help="stages (default: all)")
    parser.add_argument("--kills", type=int, help="of each stage (default: 6 to 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file of the counts")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        inputs = Path(name) / "inputs"
        inputs.mkdir()
        finish(start(lambda _: make_inputs(inputs), Path(name) / "inputs.log", inputs / "cache"))
        for stage in STAGES:
            if options.only is None or stage.name in options.only:
                folder = Path(name) / stage.name
                folder.mkdir()
                generator = random.Random(f"{options.seed} {stage.name}")
                found[stage.name] = campaign(stage, options.kills or stage.kills, inputs, folder, generator)
                counts = {name: count for name, count in found[stage.name].items() if name != "moments"}
                print(stage.name, counts, flush=True)
    text = json.dumps({"seed": options.seed, "stages": found}, indent=1) + "\n"
    write_atomically(options.output, lambda path: path.write_text(text))
    if any(result["same_result"] < result["kills"] for result in found.values()):
        sys.exit("Some runs ended elsewhere.")


if __name__ == "__main__":
    main()
