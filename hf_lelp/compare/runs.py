"""Runs several methods and seeds on one or more tasks, and keeps every run.

A run is a file. Its name is a hash of all that its result depends on, and it appears whole or not at all. So the same
command resumes where it was stopped, another seed or method costs only its own runs, and the processes of a pool share
the work. Methods that search also share their trials, and what they choose is a run like any other. The name does not
depend on torch or the machine: the run records both.
"""

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import datasets
import torch
from transformers.utils import logging as transformers_logging

from hf_lelp.compare.methods import Method
from hf_lelp.compare.run import Run, run_or_read, task_fingerprint
from hf_lelp.compare.task import Task
from hf_lelp.storage.progress import progress_bar

logger = logging.getLogger(__name__)


Order = tuple[str, str, int]  # a task's name, a method and a seed


def run_all(
    loaders: Mapping[str, Callable[[], Task]],
    methods: Sequence[str],
    seeds: Sequence[int],
    runs_dir: Path,
    *,
    processes: int = 1,
) -> dict[str, list[Run]]:
    """Train every method with every seed on every task; skip the runs that `runs_dir` already has.

    Args:
        loaders: of the tasks, by name; for several processes they must be picklable.
        methods: see `Method.parse`.
        seeds: every method has a run with each, so that methods can be compared seed by seed.
        runs_dir: where the runs are kept.
        processes: how many train at once, each with its share of the cores.

    Returns:
        The runs of every task, by seed and then by method.

    Raises:
        ValueError: if a method is unknown; see also `LELPTrainer`.
    """
    for method in methods:
        Method.parse(method).check()
    orders = [(task, method, seed) for task in loaders for seed in seeds for method in methods]
    parsed = map(Method.parse, methods)
    searching = [method.name for method in parsed if method.config(None).auto and "baseline" not in method.settings]
    jobs: list[list[Order]] = []
    for task in loaders:
        # The searches of a seed share trials, so one process runs them one after another. The longest jobs come first.
        jobs += [[(task, method, seed) for method in searching] for seed in seeds if searching]
        jobs += [[(task, method, seed)] for seed in seeds for method in methods if method not in searching]
    found: dict[Order, Run] = {}
    threads = max(1, torch.get_num_threads() // processes)
    with progress_bar(len(orders), "Comparing", unit="run", disable=len(orders) < 2) as progress:

        def told(count: int) -> None:
            progress.update(count)
            if progress.disable:  # a file takes a line for a bar
                logger.info(f"Comparing: {len(found)}/{len(orders)} runs")

        if processes == 1:
            tasks = _Tasks(loaders)
            for order in chain(*jobs):
                found[order] = tasks.run(*order, runs_dir)
                told(1)
        else:
            # Forked processes would inherit locks of libraries that already run threads.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, context, _start, (loaders, threads)) as pool:
                futures = {pool.submit(_run_in_process, job, runs_dir): job for job in jobs}
                try:
                    for future in as_completed(futures):
                        found.update(zip(futures[future], future.result(), strict=True))
                        told(len(futures[future]))
                except BaseException:
                    pool.shutdown(cancel_futures=True)  # else all waiting jobs run before the error shows
                    raise
    return {name: [found[order] for order in orders if order[0] == name] for name in loaders}


class _Tasks:
    """Loads tasks by name when a run needs them, and keeps the last one."""

    def __init__(self, loaders: Mapping[str, Callable[[], Task]]) -> None:
        self._loaders = loaders
        self._loaded: tuple[str, Task, str] | None = None

    def run(self, name: str, method: str, seed: int, runs_dir: Path) -> Run:
        with no_progress_bars():
            if self._loaded is None or self._loaded[0] != name:
                task = self._loaders[name]()
                if task.processing_class is None:
                    train, evaluation = (dataset.with_format("torch") for dataset in (task.train, task.evaluation))
                    task = replace(task, train=train, evaluation=evaluation)
                self._loaded = name, task, task_fingerprint(task)
            return run_or_read(*self._loaded[1:], method, seed, runs_dir)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide the bars of datasets and transformers within the block: every run would show its own."""
    shown = not datasets.are_progress_bars_disabled(), transformers_logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown[0]:
            datasets.enable_progress_bars()
        if shown[1]:
            transformers_logging.enable_progress_bar()


_tasks: _Tasks  # of a process of the pool


def _start(loaders: Mapping[str, Callable[[], Task]], threads: int) -> None:
    """Give a process the tasks and its share of the cores: more threads than cores are several times slower."""
    global _tasks
    _tasks = _Tasks(loaders)
    torch.set_num_threads(threads)


def _run_in_process(job: list[Order], runs_dir: Path) -> list[Run]:
    return [_tasks.run(*order, runs_dir) for order in job]
