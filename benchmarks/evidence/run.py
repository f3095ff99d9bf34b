"""Run a part of the evidence and write its summary."""

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch

from benchmarks.evidence.parts import PARTS
from benchmarks.evidence.suite.store import CACHE
from benchmarks.places import RESULTS
from hf_lelp.compare.report import comparison_table, summarise
from hf_lelp.compare.runs import no_progress_bars, run_all
from hf_lelp.compare.task import Task
from hf_lelp.storage.files import write_atomically


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
