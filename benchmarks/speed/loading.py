"""What the teacher's columns add to the time to read a batch: `python -m benchmarks.speed.loading`.

The same rows of 32 tokens in mapped files, batches and collator, on one thread. The plain Trainer's loader reads inputs
and labels. LELPTrainer's reads the teacher's columns too, from shards as a pass writes them. They take turns by the
batch, and no model runs: of a whole step the difference is a smaller part (`benchmarks.speed.step`).
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments, default_data_collator

from benchmarks.places import RESULTS
from benchmarks.speed.common import SIZES, VOCABULARY, Seconds, bert, in_turn, middle, ratio, write_result
from hf_lelp import LELPConfig, LELPTrainer
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.rows import with_columns
from hf_lelp.projections.cache import PROJECTED_ROWS
from hf_lelp.storage.shards import SHARD_ROWS, open_shards, write_shard

CASES = [(2, 8), (2, 32), (20, 8), (20, 32), (100, 32)]  # classes C, pseudo-subclasses of each S
BATCHES = (32, 256, 1024)
LENGTH, ROWS = 32, 4096


def write_inputs(folder: Path, rows: int, num_classes: int) -> Dataset:
    """Random tokens, and labels, mapped from files."""
    rng = np.random.default_rng(0)
    inputs = {
        "input_ids": rng.integers(1000, VOCABULARY, (rows, LENGTH)),
        "attention_mask": np.ones((rows, LENGTH), dtype=np.int64),
        "labels": np.arange(rows) % num_classes,
    }
    Dataset.from_dict(inputs).save_to_disk(folder / "inputs")
    return Dataset.load_from_disk(folder / "inputs")


def write_columns(folder: Path, rows: int, num_classes: int, num_directions: int) -> Dataset:
    """Random columns of a teacher, in shards as the trainer keeps them."""
    rng = np.random.default_rng(0)
    shapes = {LOGITS_COLUMN: (num_classes,), PROJECTIONS_COLUMN: (num_classes, num_directions)}
    rows_of_file = {LOGITS_COLUMN: SHARD_ROWS, PROJECTIONS_COLUMN: PROJECTED_ROWS}
    files: dict[str, list[Path]] = {name: [] for name in shapes}
    for name, shape in shapes.items():
        place = folder / name
        place.mkdir()
        for start in range(0, rows, rows_of_file[name]):
            files[name].append(place / f"{start}.arrow")
            values = rng.normal(size=(min(rows_of_file[name], rows - start), *shape)).astype(np.float32)
            write_shard(files[name][-1], {name: values})
    return with_columns(*(open_shards(of_column) for of_column in files.values()))


def trainers(inputs: Dataset, columns: Dataset, batch: int, folder: str, use_cpu: bool = True) -> dict[str, Trainer]:
    """The plain Trainer, and ours on the same inputs with the teacher's columns."""
    common: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "use_cpu": use_cpu,
        "report_to": "none",
    }
    given: dict[str, Any] = {"data_collator": default_data_collator}
    num_classes, num_subclasses = np.shape(columns[0][PROJECTIONS_COLUMN])
    arguments = LELPConfig(**common, num_subclasses=num_subclasses, check_teacher=False)
    size = next(iter(SIZES))
    plain, other = (bert(size, num_classes) for _ in range(2))
    return {
        "plain": Trainer(plain, TrainingArguments(**common), train_dataset=inputs, **given),
        "lelp": LELPTrainer(other, arguments, train_dataset=with_columns(inputs, columns), **given),
    }


def measure(jobs: dict[str, Trainer], rounds: int) -> dict[str, list[Seconds]]:
    """The time of each round's batch, of both loaders in turn: a batch each, so that both meet the same machine."""
    batches: dict[str, Iterator[Any]] = {name: endless(trainer) for name, trainer in jobs.items()}
    reads = {name: partial(next, loader) for name, loader in batches.items()}
    in_turn(reads, 2)  # the first ones open the files
    return in_turn(reads, rounds)


def endless(trainer: Trainer) -> Iterator[Any]:
    """The training batches, epoch after epoch."""
    loader = trainer.get_train_dataloader()
    while True:
        yield from loader


def main(
    cases: Sequence[tuple[int, int]] = CASES,
    batches: Sequence[int] = BATCHES,
    rows: int = ROWS,
    rounds: int = 21,
    folder: Path = RESULTS,
) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    found: list[dict[str, str | float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for num_classes, num_subclasses in cases:
            case = Path(scratch) / f"{num_classes} × {num_subclasses}"
            inputs = write_inputs(case, rows, num_classes)
            columns = write_columns(case, rows, num_classes, num_subclasses)
            for batch in batches:
                times = measure(trainers(inputs, columns, batch, scratch), rounds)
                both = ratio(times["lelp"], times["plain"])
                found.append(
                    {
                        "classes": num_classes,
                        "subclasses of each": num_subclasses,
                        "rows a batch": batch,
                        "plain, ms": 1000 * middle(times["plain"]).cpu,
                        "LELP, ms": 1000 * middle(times["lelp"]).cpu,
                        "ratio": both.cpu,
                        "ratio, wall": both.wall,
                    }
                )
    write_result("speed_loading", found, folder, rounds=rounds)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
