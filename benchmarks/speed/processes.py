"""The teacher's pass in one process and in two, of one thread each. `python -m benchmarks.speed.processes`.

The demo's fine-tuned MiniLM over short texts (VADER), two shards of 2,048 rows; `accelerate launch`, gloo, CPU. Timed
is the pass, with its waiting for the other process, and not the start of Python.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import torch
from accelerate import PartialState
from datasets import Dataset

from benchmarks.evidence.suite.store import DOWNLOADS
from benchmarks.evidence.suite.texts import read_corpus
from benchmarks.places import RESULTS
from benchmarks.speed.common import Seconds, middle, ratio, write_result
from examples.vader import build_demo
from hf_lelp import Teacher
from hf_lelp.storage.shards import SHARD_ROWS
from hf_lelp.teacher.columns import teacher_columns

COUNTS = (1, 2)


def run(model_folder: Path, rows: int, output: Path) -> None:
    """The pass in this process, one of several; the main process writes how long it took."""
    state = PartialState(cpu=True)
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    texts = Dataset.from_dict({"text": read_corpus("vader", DOWNLOADS).train.texts[:rows]})
    teacher = Teacher.from_pretrained(str(model_folder), dtype=torch.float32, device="cpu")
    state.wait_for_everyone()
    start = time.perf_counter()
    columns = teacher_columns(texts, teacher, output.parent)
    seconds = time.perf_counter() - start
    if state.is_main_process:
        output.write_text(json.dumps({"seconds": seconds, "rows": len(columns)}))


def timed(processes: int, model_folder: Path, rows: int) -> Seconds:
    """Wall-clock time of the pass by so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "seconds.json"
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        launch = [*launch, "--main_process_port", "0", "-m"] if processes > 1 else ["-m"]
        arguments = ["--model", str(model_folder), "--rows", str(rows), "--output", str(output)]
        command = [sys.executable, *launch, "benchmarks.speed.processes", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        found = json.loads(output.read_text())
    assert found["rows"] == rows
    return Seconds(found["seconds"], found["seconds"])


def main(model_folder: Path | None = None, rows: int = 2 * SHARD_ROWS, rounds: int = 3, folder: Path = RESULTS) -> None:
    """Measure and write."""
    model_folder = build_demo() / "teacher" if model_folder is None else model_folder
    times: dict[int, list[Seconds]] = {count: [] for count in COUNTS}
    for _ in range(rounds):
        for count in COUNTS:
            times[count].append(timed(count, model_folder, rows))
    table: list[dict[str, str | float]] = [
        {
            "processes": count,
            "s, wall": middle(times[count]).wall,
            "rows a second": rows / middle(times[count]).wall,
            "times as fast as one": ratio(times[1], times[count]).wall,
        }
        for count in COUNTS
    ]
    write_result("speed_processes", table, folder, rounds=rounds, texts=rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.output is not None:
        run(options.model, options.rows, options.output)
    else:
        main()
