"""What the programs of this folder share: the demo's rows, settings, the output of a module, and figures over seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor, nn

from examples.vader import MAX_LENGTH, SILENT, build_demo, load_split
from hf_lelp import LELPConfig, LELPTrainer, Teacher


class OutputOf:
    """Keeps what a module gave in the last forward pass, with its graph, for a loss that reads more than the logits.

    Args:
        module: a part of the student that runs once in a forward pass.
    """

    def __init__(self, module: nn.Module) -> None:
        self._outputs: list[Tensor] = []
        module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._outputs = [output if isinstance(output, Tensor) else output[0]]

    def __call__(self) -> Tensor:
        """Return the output, and forget it, so that its graph is freed after the step."""
        return self._outputs.pop()


def demo_rows(rows: int, test_rows: int) -> tuple[Dataset, Dataset, Teacher]:
    """Return so many of the demo's training and of its test rows, and its teacher."""
    cache = build_demo()
    train, test = (load_split(cache / f"{part}.parquet").shuffle(0) for part in ("train", "test"))
    teacher = Teacher.from_pretrained(str(cache / "teacher"), max_length=MAX_LENGTH)
    return train.select(range(rows)), test.select(range(test_rows)), teacher


def settings(folder: str | Path, seed: int, **given: Any) -> LELPConfig:
    """Settings of a short, silent run of plain distillation, to which each program adds its own loss."""
    return LELPConfig(
        output_dir=str(folder),
        num_subclasses=1,
        seed=seed,
        per_device_eval_batch_size=64,
        **SILENT,
        **given,
    )


def trained_accuracy(trainer: LELPTrainer, test: Any) -> float:
    """Train, and return the accuracy on test rows."""
    trainer.train()
    return float(trainer.evaluate(test)["eval_accuracy"])


def compare(methods: dict[str, Callable[[int], float]], seeds: int) -> dict[str, list[float]]:
    """Train by each method with each seed; print accuracies, and differences to the first method paired by seed.

    Args:
        methods: from a seed to a test accuracy, by name; the first one is plain distillation.
        seeds: how many, from 0 on.
    """
    accuracies: dict[str, list[float]] = {}
    for name, run in methods.items():
        accuracies[name] = [run(seed) for seed in range(seeds)]
        gains = 100 * (np.array(accuracies[name]) - np.array(next(iter(accuracies.values()))))
        each = ", ".join(f"{gain:+.1f}" for gain in gains)
        mean = 100 * np.mean(accuracies[name])
        print(f"{name}: accuracy {mean:.1f}, {gains.mean():+.1f} to the first (by seed: {each})", flush=True)
    return accuracies
