"""What the speed benchmarks share: jobs in turn, ratios within a round, the machine's own rate, results as JSON.

On a machine that does other things too, the same job takes longer at one time than at another. So jobs take turns, each
ratio is of two times of the same round, and what is reported is the median of the rounds, of wall-clock time and of
processor time (which another process does not lengthen by being there, only by emptying caches).
"""

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from benchmarks.places import RESULTS
from hf_lelp import ClassProjections
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.losses import subclass_targets
from hf_lelp.storage.files import write_atomically

# Students and teachers with random weights: speed does not ask what a model has learnt.
SIZES = {
    "BERT 2 × 128": (128, 2, 2),
    "MiniLM-sized, 6 × 384": (384, 6, 12),
    "BERT-base-sized, 12 × 768": (768, 12, 12),
    "tiny, 1 × 16": (16, 1, 2),
}
VOCABULARY = 30_522


class Seconds(NamedTuple):
    """Wall-clock time and processor time of all threads."""

    wall: float
    cpu: float


def clock(job: Callable[[], object]) -> Seconds:
    """The time that a job takes, to the end of what it asked of a GPU."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def in_turn(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Seconds]]:
    """Run all jobs, `rounds` times over."""
    times: dict[str, list[Seconds]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(clock(job))
    return times


def middle(times: Sequence[Seconds]) -> Seconds:
    """The median of each kind of time."""
    return Seconds(median(t.wall for t in times), median(t.cpu for t in times))


def ratio(times: Sequence[Seconds], base: Sequence[Seconds]) -> Seconds:
    """The median over rounds of the times' ratios."""
    return middle([Seconds(a.wall / b.wall, a.cpu / b.cpu) for a, b in zip(times, base, strict=True)])


def gigaflops(dtype: torch.dtype = torch.float32, size: int = 1024) -> float:
    """Multiplications and additions a second, 10⁹, of a large product of matrices with the threads in use: the floor.

    In processor time, times the threads, so that a busy machine does not look slow.
    """
    one, other = torch.rand(size, size, dtype=dtype), torch.rand(size, size, dtype=dtype)
    times = [clock(lambda: one @ other).cpu for _ in range(6)]
    return 2 * size**3 / min(times[1:]) / 1e9 * torch.get_num_threads()


def bert(size: str, num_labels: int = 2, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A BERT of one of `SIZES` with random weights, and other settings of its configuration where they are given."""
    hidden, layers, heads = SIZES[size]
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
            **{"num_labels": num_labels, **settings},  # of every configuration
        )
    )


def forward_gigaflops(model: PreTrainedModel, tokens: int) -> float:
    """10⁹ operations of a forward pass over `tokens` tokens: two for each weight of the encoder, attention left out."""
    weights = sum(value.numel() for name, value in model.named_parameters() if ".encoder." in name)
    return 2 * weights * tokens / 1e9


def targets(columns: Dataset, projections: ClassProjections, seed: int = 0) -> torch.Tensor:
    """The targets of rows with the teacher's columns, (N, C, K), at τ = β = 1."""
    rows = columns.with_format("numpy")[:]
    raw = torch.from_numpy(projections(rows)[PROJECTIONS_COLUMN])
    scores = torch.einsum("nck,cks->ncs", raw, projections.rotation(projections.num_directions, seed=seed))
    return subclass_targets(torch.from_numpy(rows[LOGITS_COLUMN]), scores)


def total_variation(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Half the sum of absolute differences of two distributions a row, (N, …): (N,)."""
    return (one - other).abs().flatten(1).sum(1) / 2


def peak_memory() -> int:
    """The most bytes that this process has held so far (of this program alone, unlike getrusage after a fork)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def machine() -> str:
    """Processor, threads and versions, for the page."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    gpu = f"one {torch.cuda.get_device_name()}" if torch.cuda.is_initialized() else "no GPU"
    return (
        f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}, {gpu}, {torch.get_num_threads()}"
        f" thread{'s' if torch.get_num_threads() > 1 else ''}, torch {torch.__version__}"
    )


def write_result(name: str, rows: list[dict[str, str | float]], folder: Path = RESULTS, **more: Any) -> None:
    """Results as JSON.

    Args:
        name: of the file, and of the table in docs/understand/performance.md.
        rows: of the table, all with the same columns.
        folder: to write to.
        **more: what the rows were made of.
    """
    result = {"machine": machine(), "load": os.getloadavg()[0], "rows": rows, **more}
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / f"{name}.json", lambda path: path.write_text(text, encoding="utf-8"))
    for row in rows:
        print(row, flush=True)
