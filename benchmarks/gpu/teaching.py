"""Stages of the teacher: its pass beside a bare loop, and what GPU and CPU give for the same rows."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.sizes import Sizes, device, on_cpu
from benchmarks.gpu.stage import Case, Row
from benchmarks.gpu.training import HEADS, PLAIN_SGD, compared, peak_mb, reset_peak
from benchmarks.speed.common import bert, clock, in_turn, middle, ratio
from benchmarks.speed.online import words
from benchmarks.speed.step import data, train
from benchmarks.speed.teacher_pass import bare, padded
from hf_lelp import Teacher
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN
from hf_lelp.teacher.columns import teacher_columns

AGREEING_ROWS, AGREEING_STEPS = 64, 10
# Largest difference by the largest value on the CPU in float32: rounding of sums in another order; 8 bits in bfloat16.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}
WEIGHT_TOLERANCE = 1e-3


def passes(size: Sizes) -> Iterator[Case]:
    """The pass over texts, the teacher made before, beside a forward alone over padded batches in memory.

    Of the bare loop's sizes of batch the fastest counts. Busy is the share of the time in which a kernel or copy ran.
    """
    for dtype, rows in ((torch.bfloat16, 4 * size.pass_rows), (torch.float32, size.pass_rows)):
        yield f"{str(dtype).removeprefix('torch.')}, {rows:,} texts", partial(passed, size, dtype, rows)


def passed(size: Sizes, dtype: torch.dtype, count: int) -> Row:
    rows, tokenizer = words(count, size.longest)
    model: Any = bert(size.teacher).eval()
    teacher = Teacher(model.to(dtype), tokenizer, device=device())
    tokens = tokenizer(rows["text"][:])["input_ids"]
    loops = {f"{batch} rows": [*padded(tokenizer, tokens, batch)] for batch in size.bare_batches}

    def ours(part: int = count) -> None:
        with tempfile.TemporaryDirectory() as cache:
            teacher_columns(rows.select(range(part)), teacher, cache)

    ours(min(count, 64))  # checks, and kernels that are made at first use
    for batches in loops.values():
        bare(model, islice(batches, 2))
    jobs: dict[str, Callable[[], object]] = {name: partial(bare, model, batches) for name, batches in loops.items()}
    reset_peak()
    times = in_turn({"ours": ours}, 1)["ours"]
    peak = peak_mb()
    turns = in_turn({"ours": ours, **jobs}, size.rounds)
    best = min(jobs, key=lambda name: middle(turns[name]).wall)
    return {
        "ours, texts/s": count / middle([*times, *turns["ours"]]).wall,
        "bare loop, texts/s": count / middle(turns[best]).wall,
        "its batch": best,
        "bare loop, times ours": ratio(turns[best], turns["ours"]).wall,
        "ours, busy %": busy(partial(ours, min(count, size.profiled_rows))),
        "bare loop, busy %": busy(partial(bare, model, loops[best])),
        "ours, peak MB": peak,
    }


def busy(job: Callable[[], object]) -> float | str:
    """The percentage of a job's time in which the GPU ran something."""
    if on_cpu():
        return "–"
    with profile(activities=[ProfilerActivity.CUDA]) as traced:
        seconds = clock(job).wall
    return 100 * covered(spans_on_gpu(traced.events() or [])) / 1e6 / seconds


def spans_on_gpu(events: Iterable[FunctionEvent]) -> list[tuple[float, float]]:
    """Beginning and end, in microseconds, of what ran on the GPU."""
    ran = (event for event in events if event.device_type == torch.autograd.DeviceType.CUDA)
    return [(event.time_range.start, event.time_range.end) for event in ran if not event.is_user_annotation]


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals: copies run beside kernels."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def agreement(size: Sizes) -> Iterator[Case]:
    """What the GPU gives for the same rows, weights and batches as the CPU in float32."""
    for dtype in TOLERANCES:
        yield f"teacher, {str(dtype).removeprefix('torch.')}", partial(agreeing, size, dtype)
    for head in HEADS:
        yield f"{AGREEING_STEPS} steps of SGD, {head}", partial(agreeing_weights, size, head)


def agreeing(size: Sizes, dtype: torch.dtype) -> Row:
    rows, tokenizer = words(min(AGREEING_ROWS, size.rows), size.longest)
    batch = {"text": rows["text"][:]}
    model: Any = bert(size.teacher)
    here = Teacher(model, tokenizer, device="cpu")(batch)
    there = Teacher(model.to(dtype), tokenizer, device=device())(batch)
    pairs = [(here[name], there[name]) for name in (LOGITS_COLUMN, EMBEDDING_COLUMN)]
    largest = max(float(np.abs(one - other).max() / np.abs(one).max()) for one, other in pairs)
    tolerance = TOLERANCES[dtype]
    return {"largest difference": largest, "tolerance": tolerance, "within": "yes" if largest <= tolerance else "no"}


def agreeing_weights(size: Sizes, head: str) -> Row:
    dataset, projections = data(size.rows, 2)
    undropped: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with tempfile.TemporaryDirectory() as scratch:
        here, there = (
            train(
                "lelp",
                size.student,
                dataset,
                projections,
                AGREEING_STEPS,
                scratch,
                head,
                bert(size.student, **undropped),
                use_cpu=use_cpu,
                **PLAIN_SGD,
            )
            for use_cpu in (True, on_cpu())
        )
    return compared(here.model, there.model, WEIGHT_TOLERANCE)
