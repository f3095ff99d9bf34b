"""What LELP adds to a training step of the plain Trainer: time and peak memory. `python -m benchmarks.speed.step`.

The same students, rows, batches and collator, on one thread; the plain Trainer learns the labels, LELP the teacher's
columns (8 pseudo-subclasses a class). Both train in turn in one process, and a step is timed from the end of the one
before, so that reading the batch counts. Peak memory is that of a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, default_data_collator

from benchmarks.places import RESULTS
from benchmarks.speed.common import (
    SIZES,
    VOCABULARY,
    Seconds,
    bert,
    forward_gigaflops,
    gigaflops,
    middle,
    peak_memory,
    ratio,
    write_result,
)
from hf_lelp import ClassProjections, LELPConfig, LELPTrainer
from hf_lelp.classifiers import LinearHead

KINDS = ("plain", "lelp")
CASES = [("BERT 2 × 128", 2), ("BERT 2 × 128", 20), ("MiniLM-sized, 6 × 384", 2)]
LENGTH, BATCH, ROWS, EMBEDDING, SUBCLASSES = 32, 32, 512, 64, 8


def data(rows: int, num_classes: int) -> tuple[Dataset, ClassProjections]:
    """Random tokens, labels and teacher's columns, and the projections that made them."""
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(rows, EMBEDDING)).astype(np.float32)
    head = LinearHead(torch.from_numpy(rng.normal(size=(num_classes, EMBEDDING))).float(), torch.zeros(num_classes))
    columns = {
        "input_ids": rng.integers(1000, VOCABULARY, (rows, LENGTH)),
        "attention_mask": np.ones((rows, LENGTH), dtype=np.int64),
        "labels": np.arange(rows) % num_classes,
        "teacher_logits": embedding @ head.weight.numpy().T,
        "teacher_embedding": embedding,
    }
    dataset = Dataset.from_dict(columns)
    projections = ClassProjections.fit(dataset, head, SUBCLASSES)
    return dataset.map(projections, batched=True, remove_columns="teacher_embedding"), projections


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[Seconds] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(Seconds(time.perf_counter(), time.process_time()))

    def steps(self, skipped: int = 2) -> list[Seconds]:
        """The time of each step but the first ones."""
        pairs = zip(self.ends[skipped - 1 :], self.ends[skipped:], strict=False)
        return [Seconds(b.wall - a.wall, b.cpu - a.cpu) for a, b in pairs]


def train(
    kind: str,
    size: str,
    dataset: Dataset,
    projections: ClassProjections,
    steps: int,
    folder: str,
    head: str = "subclass",
    model: PreTrainedModel | None = None,
    **settings: Any,
) -> Trainer:
    """One run, with another student and settings of Trainer where they are given; its `Clock` is the last callback."""
    common: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        **settings,
    }
    given: dict[str, Any] = {"data_collator": default_data_collator, "callbacks": [Clock()]}
    model = bert(size, projections.num_classes) if model is None else model
    trainer: Trainer
    if kind == "plain":
        inputs = dataset.select_columns(["input_ids", "attention_mask", "labels"])
        trainer = Trainer(model, TrainingArguments(**common), train_dataset=inputs, **given)
    else:
        ours: dict[str, Any] = {"num_subclasses": SUBCLASSES, "temperature": 2.0, "subclass_temperature": 0.5}
        arguments = LELPConfig(**{**ours, "student_head": head, "check_teacher": False, **common})
        prepared = dataset.remove_columns("projections_fingerprint")
        trainer = LELPTrainer(model, arguments, train_dataset=prepared, projections=projections, **given)
    trainer.train(trainer.args.resume_from_checkpoint)
    return trainer


def timed(kind: str, *arguments: Any, **settings: Any) -> list[Seconds]:
    trainer = train(kind, *arguments, **settings)
    (clock,) = (callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Clock))
    return clock.steps()


def memory(kind: str, size: str, steps: int, data_folder: Path) -> int:
    """Peak bytes of a fresh process that reads the data and trains."""
    code = f"from benchmarks.speed.step import peak_of; peak_of({kind!r}, {size!r}, {steps}, {str(data_folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def peak_of(kind: str, size: str, steps: int, data_folder: str) -> None:
    """Train, and print this process's peak."""
    torch.set_num_threads(1)
    dataset = Dataset.load_from_disk(Path(data_folder) / "rows")
    projections = ClassProjections.from_pretrained(Path(data_folder) / "projections")
    with tempfile.TemporaryDirectory() as folder:
        train(kind, size, dataset, projections, steps, folder)
    print(json.dumps(peak_memory()))


def main(cases: list[tuple[str, int]] = CASES, steps: int = 42, rounds: int = 3, folder: Path = RESULTS) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    rate = gigaflops()
    rows: list[dict[str, str | float]] = []
    for size, num_classes in cases:
        dataset, projections = data(ROWS, num_classes)
        rest = bert(size, num_classes)
        # A step of the larger student takes longer; fewer of them make the same noise.
        count = steps if SIZES[size][0] < 256 else max(4, steps // 6)
        medians: dict[str, list[Seconds]] = {kind: [] for kind in KINDS}
        with tempfile.TemporaryDirectory() as scratch:
            for _ in range(rounds):
                for kind in KINDS:
                    medians[kind].append(middle(timed(kind, size, dataset, projections, count, scratch)))
        with tempfile.TemporaryDirectory() as scratch:
            dataset.save_to_disk(f"{scratch}/rows")
            projections.save_pretrained(f"{scratch}/projections")
            peaks = {kind: memory(kind, size, 4, Path(scratch)) for kind in KINDS}
        times = ratio(medians["lelp"], medians["plain"])
        rows.append(
            {
                "student": size,
                "classes": num_classes,
                "plain, ms": 1000 * middle(medians["plain"]).cpu,
                "LELP, ms": 1000 * middle(medians["lelp"]).cpu,
                "ratio": times.cpu,
                "ratio, wall": times.wall,
                "floor, ms": 3000 * forward_gigaflops(rest, LENGTH * BATCH) / rate,
                "plain, peak MB": peaks["plain"] / 1e6,
                "LELP, peak MB": peaks["lelp"] / 1e6,
                "ratio of memory": peaks["lelp"] / peaks["plain"],
            }
        )
    write_result("speed_step", rows, folder, gigaflops=rate, steps=steps, rounds=rounds)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
