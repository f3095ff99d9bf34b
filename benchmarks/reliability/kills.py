"""Kill every stage with SIGKILL at random moments, run it again, compare with a run that nobody disturbed.

    python -m benchmarks.reliability.kills                                  # all; writes results/kills.json
    python -m benchmarks.reliability.kills --only training --kills 5 --output /tmp/kills.json

Each run is a process of its own, forked from this one, which has imported the libraries but started no thread: a run
then takes a second, not ten. The moments are drawn, one in each of as many equal parts of the stage's duration as
there are kills. A run that was quicker and ended before its moment is made anew, with a moment drawn in the same part
of the quicker run's duration. After a kill the same command runs to its end, and what it leaves must be what an
undisturbed run leaves: files byte by byte, reports without their times.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
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
import torch

from benchmarks.places import RESULTS
from benchmarks.reliability.kills_stages import STAGES, Stage, Started, make_inputs, temporary
from hf_lelp.storage.files import write_atomically

RESULT = RESULTS / "kills.json"
LONGEST = 300.0  # seconds of one run


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

    check = stage.check

    def look(place: Path) -> None:
        if check is not None:
            finish(start(lambda _: check(inputs, place), folder / "check.log", place))

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
        with_leftovers += any(temporary(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
        look(place)
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
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON file of the counts")
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
