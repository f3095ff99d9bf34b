"""How much the stages run, on a GPU and to try them on a CPU; and on which device."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Sizes:
    """Models are of `benchmarks.speed.common.SIZES`.

    Attributes:
        student: of the stages that train.
        teacher: of the pass.
        rows: to train on, of 32 tokens.
        steps: of a training.
        batches: rows a batch.
        rounds: in which what is compared takes turns.
        pass_rows: of the pass in float32; in bfloat16 four times as many.
        profiled_rows: of the pass whose kernels are traced.
        longest: words of a text.
        bare_batches: rows a batch of the bare loop, the best of which counts.
        compiled_student: of the trainings with `torch_compile`: a large one takes a minute to compile.
        compiled: their settings.
    """

    student: str = "MiniLM-sized, 6 × 384"
    teacher: str = "BERT-base-sized, 12 × 768"
    rows: int = 8192
    steps: int = 42
    batches: tuple[int, ...] = (32, 256)
    rounds: int = 2
    pass_rows: int = 8192
    profiled_rows: int = 4096
    longest: int = 120
    bare_batches: tuple[int, ...] = (64, 256, 1024)
    compiled_student: str = "BERT 2 × 128"
    compiled: tuple[tuple[str, Any], ...] = (("torch_compile", True),)


FULL = Sizes()
SMALL = Sizes(
    student="tiny, 1 × 16",
    teacher="tiny, 1 × 16",
    rows=64,
    steps=4,
    batches=(8,),
    rounds=1,
    pass_rows=24,
    profiled_rows=16,
    longest=12,
    bare_batches=(8, 16),
    compiled_student="tiny, 1 × 16",
    compiled=(("torch_compile_backend", "eager"),),  # needs no compiler
)


def device() -> torch.device:
    """The GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_cpu() -> bool:
    return device().type == "cpu"
