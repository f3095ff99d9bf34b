"""Measures size, speed and answers of each runtime, side by side."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike

from hf_lelp.export.fidelity import fidelity
from hf_lelp.export.runtimes import Batch, Runtime
from hf_lelp.markdown import markdown_table

CALLS = 30  # that a median latency is over


def measure(
    runtimes: Sequence[Runtime], batches: Sequence[Batch], singles: Sequence[Batch], labels: ArrayLike | None = None
) -> list[dict[str, Any]]:
    """Measure size, speed and answers of each runtime, and compare all with the first.

    Times are medians from tokens to logits on this machine's CPU, with as many threads as PyTorch has.

    Args:
        runtimes: of the same model.
        batches: held-out inputs; all have the same number of rows but the last.
        singles: inputs of one row.
        labels: (N,) of `batches`; −100 is no label.

    Returns:
        One row a runtime: `runtime`, `megabytes`, `milliseconds_1`, `milliseconds_N` (N the rows of the first batch),
        `threads`, and the results of `fidelity`.
    """
    reference = runtimes[0].run(batches)
    rows = len(next(iter(batches[0].values())))
    full = [batch for batch in batches if len(next(iter(batch.values()))) == rows]
    return [
        {
            "runtime": runtime.name,
            "megabytes": runtime.size / 1e6,
            "milliseconds_1": _median_milliseconds(runtime, singles),
            f"milliseconds_{rows}": _median_milliseconds(runtime, full),
            "threads": torch.get_num_threads(),
            **fidelity(reference, runtime.run(batches), labels),
        }
        for runtime in runtimes
    ]


def _median_milliseconds(runtime: Runtime, batches: Sequence[Batch]) -> float:
    runtime.logits(batches[0])  # warm up
    times, step = [], max(len(batches) // CALLS, 1)  # batches of all lengths
    for call in range(CALLS):
        start = time.perf_counter()
        runtime.logits(batches[call * step % len(batches)])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def runtimes_table(results: list[dict[str, Any]]) -> str:
    """Show what `measure` returned as a Markdown table; a dash stands for a missing figure."""
    times = [key for key in results[0] if key.startswith("milliseconds_")]
    header = ["runtime", "MB", *[f"ms, batch of {key.removeprefix('milliseconds_')}" for key in times]]
    body = [
        [
            result["runtime"],
            f"{result['megabytes']:.1f}",
            *[f"{result[key]:.2f}" for key in times],
            f"{100 * result['agreement']:.1f}%",
            f"{100 * result['accuracy']:.1f}%" if "accuracy" in result else "–",
        ]
        for result in results
    ]
    return markdown_table([*header, "same answer", "accuracy"], body)
