"""The evidence: every method on every task of the suite, in parts that resume. `make benchmark` runs the suite.

    python -m benchmarks.evidence [suite] [trials] [PART ...] [--seeds 5] [--processes 2]

A part's summary is written to benchmarks/results/PART.json as soon as its runs are there; the runs themselves are kept
in the cache folder of the suite. A later command with more seeds costs the new ones alone.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

import datasets
import torch

from benchmarks.parts import PARTS, SUITE, TRIALS
from benchmarks.suite.store import CACHE
from hf_lelp.compare.report import comparison_table, summarise
from hf_lelp.compare.runs import no_progress_bars, run_all
from hf_lelp.compare.task import Task
from hf_lelp.storage.files import write_atomically

RESULTS = Path(__file__).parent / "results"


def _prepare(load: Callable[[], Task]) -> None:
    """Have a task's data and teacher in the cache."""
    with no_progress_bars():
        load()


def run_part(name: str, seeds: int | None, processes: int) -> None:
    """Run what is missing of a part and write its summary."""
    part = PARTS[name]
    start = time.perf_counter()
    chosen = range(seeds or part.seeds)
    if processes > 1 and len(part.tasks) > 1:
        # Teachers first and side by side: runs are in the order of the tasks, and would all wait for one teacher.
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            list(pool.map(_prepare, part.tasks.values()))
    runs = run_all(part.tasks, list(part.methods.values()), chosen, CACHE / "runs", processes=processes)
    names = {method: label for label, method in part.methods.items()}
    summaries = {
        task: summarise([replace(run, method=names[run.method]) for run in of_task], list(part.methods), part.reference)
        for task, of_task in runs.items()
    }
    text = json.dumps(summaries, indent=1, ensure_ascii=False)
    write_atomically(RESULTS / f"{name}.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))
    for task, summary in summaries.items():
        print(f"\n### {task}\n\n{comparison_table(summary)}", flush=True)
    print(f"\n{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"suite (the default: {', '.join(SUITE)}), trials ({', '.join(TRIALS)}) or one of these",
    )
    parser.add_argument("--seeds", type=int, help="runs of each method (default: each part's own number)")
    parser.add_argument("--processes", type=int, default=2, help="students to train at once (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.processes)
    datasets.disable_progress_bars()
    groups = {"suite": list(SUITE), "trials": list(TRIALS)}
    if unknown := [name for name in options.parts if name not in {*groups, *PARTS}]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join((*groups, *PARTS))}")
    for part_name in chain.from_iterable(groups.get(name, [name]) for name in options.parts or ["suite"]):
        run_part(part_name, options.seeds, options.processes)
