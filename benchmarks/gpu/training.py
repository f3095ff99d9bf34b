"""Stages that train: the step, compiled too, loading, resuming, and settings chosen automatically.

The students and rows are those of `benchmarks.speed.step`, with the GPU's wall-clock time. Trainer waits for the GPU in
each step, to see whether the loss is a number; so the times between the ends of steps are the GPU's too.
"""

import gc
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks.gpu.sizes import Sizes, on_cpu
from benchmarks.gpu.stage import Case, Row
from benchmarks.speed import loading
from benchmarks.speed.common import Seconds, middle, peak_memory, ratio
from benchmarks.speed.step import KINDS, data, timed, train
from hf_lelp import ClassProjections, LELPTrainer

PRECISIONS: dict[str, dict[str, Any]] = {"fp32": {}, "bf16": {"bf16": True}, "fp16": {"fp16": True}}
HEADS = ("subclass", "auxiliary")
LOADED = [(2, 8), (20, 32)]  # classes and pseudo-subclasses of each
PLAIN_SGD: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.1}  # AdamW would blow up the rounding of tiny gradients
TOLERANCE = 1e-3  # of a weight


def reset_peak() -> None:
    """Forget the peak of what ran before, and free what it left."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_mb() -> float:
    """Megabytes of tensors on the GPU at most; on a CPU those of the process."""
    return (torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else peak_memory()) / 1e6


def step(size: Sizes) -> Iterator[Case]:
    """A training step beside plain Trainer's, and the peak of the GPU's memory."""
    rows = data(size.rows, 2)
    for head, precisions in (("subclass", PRECISIONS), ("auxiliary", {"bf16": PRECISIONS["bf16"]})):
        for precision, settings in precisions.items():
            for batch in size.batches:
                yield f"{precision}, {head}, {batch}", partial(beside_plain, size, *rows, head, batch, **settings)


def compiled(size: Sizes) -> Iterator[Case]:
    """The same with torch_compile, in bf16: each row has 32 tokens, so that a shape is compiled once."""
    rows = data(size.rows, 2)
    once = replace(size, student=size.compiled_student, rounds=1)
    settings = {**PRECISIONS["bf16"], **dict(size.compiled)}
    for batch in size.batches:
        torch.compiler.reset()  # else the second size of batch is compiled for any size
        yield f"bf16, subclass, {batch}", partial(beside_plain, once, *rows, "subclass", batch, **settings)


def beside_plain(
    size: Sizes, dataset: Dataset, projections: ClassProjections, head: str, batch: int, **settings: Any
) -> Row:
    """A step of both, in turn."""
    times: dict[str, list[Seconds]] = {kind: [] for kind in KINDS}
    peaks = dict.fromkeys(KINDS, 0.0)
    given: dict[str, Any] = {"per_device_train_batch_size": batch, "use_cpu": on_cpu(), **settings}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(size.rounds):
            for kind in KINDS:
                reset_peak()
                run = timed(kind, size.student, dataset, projections, size.steps, scratch, head, **given)
                times[kind].append(middle(run))
                peaks[kind] = max(peaks[kind], peak_mb())
    return {
        "plain, ms": 1000 * middle(times["plain"]).wall,
        "LELP, ms": 1000 * middle(times["lelp"]).wall,
        "ratio": ratio(times["lelp"], times["plain"]).wall,
        "plain, peak MB": peaks["plain"],
        "LELP, peak MB": peaks["lelp"],
    }


def load(size: Sizes) -> Iterator[Case]:
    """Reading a batch and bringing it to the GPU, beside plain Trainer's loader; no model runs."""
    for num_classes, num_subclasses in LOADED:
        for batch in size.batches:
            name = f"{num_classes} classes × {num_subclasses}, {batch}"
            yield name, partial(loaded, size, num_classes, num_subclasses, batch)


def loaded(size: Sizes, num_classes: int, num_subclasses: int, batch: int) -> Row:
    """A batch of both loaders, in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = loading.write_inputs(Path(scratch), size.rows, num_classes)
        columns = loading.write_columns(Path(scratch), size.rows, num_classes, num_subclasses)
        times = loading.measure(loading.trainers(inputs, columns, batch, scratch, on_cpu()), size.steps)
    return {
        "plain, ms": 1000 * middle(times["plain"]).wall,
        "LELP, ms": 1000 * middle(times["lelp"]).wall,
        "ratio": ratio(times["lelp"], times["plain"]).wall,
    }


def resume(size: Sizes) -> Iterator[Case]:
    """Half of a training, resumed from its checkpoint, against the whole: the largest difference of a weight."""
    rows = data(size.rows, 2)
    for head in HEADS:
        yield f"resumed, {head}", partial(resumed, size, *rows, head)


def resumed(size: Sizes, dataset: Dataset, projections: ClassProjections, head: str) -> Row:
    half = size.steps // 2
    settings: dict[str, Any] = {**PLAIN_SGD, "use_cpu": on_cpu(), "save_strategy": "steps", "save_steps": half}
    with tempfile.TemporaryDirectory() as scratch:
        run = partial(train, "lelp", size.student, dataset, projections, size.steps, head=head, **settings)
        whole = run(folder=f"{scratch}/whole")
        checkpoint = f"{scratch}/whole/checkpoint-{half}"
        start = time.perf_counter()
        rest = run(folder=f"{scratch}/rest", resume_from_checkpoint=checkpoint)
        seconds = time.perf_counter() - start
    assert rest.state.global_step == size.steps
    return {"s": seconds, **compared(whole.model, rest.model, TOLERANCE)}


def compared(one: Any, other: Any, tolerance: float) -> Row:
    """The largest difference of two models' weights, and whether it is within a tolerance."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    largest = max(float((a.float().cpu() - b.float().cpu()).abs().max()) for a, b in pairs)
    return {"largest difference": largest, "tolerance": tolerance, "within": "yes" if largest <= tolerance else "no"}


def auto(size: Sizes) -> Iterator[Case]:
    """The search for "auto" settings, from start to end of the chosen training."""
    yield "all three", partial(searched, size, *data(size.rows, 2))


def searched(size: Sizes, dataset: Dataset, projections: ClassProjections) -> Row:
    automatic: dict[str, Any] = dict.fromkeys(("num_subclasses", "temperature", "subclass_temperature"), "auto")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = train("lelp", size.student, dataset, projections, size.steps, scratch, use_cpu=on_cpu(), **automatic)
    seconds = time.perf_counter() - start
    assert isinstance(trainer, LELPTrainer)
    # The last entry says what was chosen.
    return {"trials": len(trainer.auto_trials) - 1, "chosen S": int(trainer.prepared.args.num_subclasses), "s": seconds}
