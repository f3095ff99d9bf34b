"""How much of the subclasses a student can tell of rows that it has not seen.

    python -m benchmarks.evidence.learnable

The rows to train on are split, a student learns from one part in the recommended form, and of both
parts is printed which share of what the subclasses say about a row, beyond its class, the student predicts.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import datasets
import torch
from datasets import Dataset
from torch import Tensor

from benchmarks.evidence.parts import IMAGES, LOOKALIKES, PARTS, RECOMMENDED, texts_with
from benchmarks.evidence.suite.tasks import STUDENTS
from hf_lelp import LELPTrainer
from hf_lelp.compare.methods import Method, train_student
from hf_lelp.compare.run import RUN_SETTINGS
from hf_lelp.compare.task import Task
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.losses import subclass_targets
from hf_lelp.markdown import markdown_table

HELD_BACK = 2000  # rows; of few rows a fifth
TASKS: dict[str, Callable[[], Task]] = {
    **IMAGES,
    **LOOKALIKES,
    **{f"{name}, {student}": task for student in STUDENTS for name, task in texts_with(student).items()},
    **{f"Debian's packages, {name}": task for name, task in PARTS["packages"].tasks.items()},
}


def share_of_information(targets: Tensor, log_q: Tensor) -> float:
    """Share of I, what subclasses say about a row beyond its class, that a student has: (H(q̄) − CE) / (H(q̄) − H(q)).

    1 where it predicts every row's subclasses, 0 where it is no better than the same ones q̄ for all rows of a class,
    below 0 where it is worse.

    Args:
        targets: p(c, s), (N, C, S).
        log_q: the student's log p(s | c), (N, C, S).
    """
    given_class = targets / targets.sum(-1, keepdim=True)
    usual = targets.sum(0) / targets.sum((0, 2))[:, None]
    entropy = -torch.xlogy(targets, given_class).sum()
    usual_entropy = -torch.xlogy(targets.sum(0), usual).sum()
    return float((usual_entropy + (targets * log_q).sum()) / (usual_entropy - entropy))


class Watching(LELPTrainer):
    """A trainer that keeps the subclasses of an evaluation: the targets without temperature, and the student's."""

    seen: list[tuple[Tensor, Tensor]]

    def distillation_losses(self, class_logits: Tensor, subclass_logits: Tensor, columns: dict[str, Tensor]) -> Tensor:
        """As in `LELPTrainer`."""
        if not self.model.training:
            scores = self.subclass_scores(columns[PROJECTIONS_COLUMN])
            beta = float(self.args.subclass_temperature)
            targets = subclass_targets(columns[LOGITS_COLUMN], scores, subclass_temperature=beta)
            self.seen.append((targets, subclass_logits.unflatten(-1, targets.shape[1:]).log_softmax(-1)))
        return super().distillation_losses(class_logits, subclass_logits, columns)

    def share(self, rows: Dataset) -> float:
        """`share_of_information` of rows with the teacher's columns."""
        self.seen = []
        self.evaluate(rows)
        targets, log_q = (torch.cat(parts) for parts in zip(*self.seen, strict=True))
        return share_of_information(targets, log_q)


def shares(task: Task) -> dict[str, float]:
    """Train a student on all rows but `HELD_BACK`; its share of some of the former and of these, and its accuracy."""
    held_back = min(HELD_BACK, len(task.train) // 5)
    parts: dict[str, Any] = task.train.train_test_split(test_size=held_back, seed=0)
    if task.processing_class is None:
        parts = {name: part.with_format("torch") for name, part in parts.items()}
    method = Method.parse(f"lelp:{RECOMMENDED}")
    with tempfile.TemporaryDirectory() as scratch:
        config = method.config(task, **RUN_SETTINGS, seed=0, output_dir=scratch)
        trainer: Any = train_student(replace(task, train=parts["train"]), method, config, Watching)
    known, new = (
        part.select(range(held_back)).map(trainer.projections, batched=True) for part in (parts["train"], parts["test"])
    )
    return {
        "known": trainer.share(known),
        "new": trainer.share(new),
        "accuracy": trainer.evaluate(parts["test"].remove_columns(LOGITS_COLUMN))["eval_accuracy"],
    }


def main() -> None:
    """Print a line for each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {'; '.join(TASKS)} (default: all)")
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    body = []
    for name in parser.parse_args().names or TASKS:
        found = shares(TASKS[name]())
        body.append([name, f"{found['known']:.0%}", f"{found['new']:.0%}", f"{100 * found['accuracy']:.1f}"])
    print(markdown_table(["task", "share, rows it has seen", "share, others", "accuracy on others"], body))


if __name__ == "__main__":
    main()
