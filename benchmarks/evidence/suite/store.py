"""The benchmark's cache folder: a part is a training and an evaluation dataset, made once, whole or not at all.

A corpus is a part that holds inputs and fine classes; a teacher is one that holds labels and what a teacher says of the
rows of a corpus, with the teacher's final layer and a report beside them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from datasets import Dataset, concatenate_datasets
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from examples.vader import atomically
from hf_lelp.classifiers import LinearHead, find_heads, joint_layer
from hf_lelp.compare.task import Task
from hf_lelp.data.columns import EMBEDDING_COLUMN

CACHE = Path("~/.cache/hf_lelp/benchmark").expanduser()
DOWNLOADS = CACHE / "downloads"


class Part(NamedTuple):
    """Rows to train and to evaluate on; of a teacher also its final layer and what was measured of it."""

    train: Dataset
    evaluation: Dataset
    head: LinearHead | None = None
    report: dict[str, Any] | None = None


def kept(name: str, make: Callable[[], Part]) -> Part:
    """The part called `name`, like "corpora/vader", made unless the cache has it; of several processes one makes it."""
    folder = CACHE / name
    once(folder, lambda: _save(make(), folder))
    head, report = folder / "head.safetensors", folder / "report.json"
    return Part(
        Dataset.load_from_disk(folder / "train"),
        Dataset.load_from_disk(folder / "evaluation"),
        _load_head(head) if head.exists() else None,
        json.loads(report.read_text()) if report.exists() else None,
    )


def once(folder: Path, make: Callable[[], None]) -> None:
    """Have `folder` made unless it is there; of several processes one makes it, and the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make()


def reports() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and report of every teacher in the cache."""
    for file in sorted(CACHE.glob("teachers/*/report.json")):
        yield file.parent.name, json.loads(file.read_text())


def _save(made: Part, folder: Path) -> None:
    with atomically(folder) as unfinished:
        made.train.save_to_disk(unfinished / "train")
        made.evaluation.save_to_disk(unfinished / "evaluation")
        if made.head is not None:
            tensors = {"weight": made.head.weight.contiguous(), "bias": made.head.bias.contiguous()}
            save_file(tensors, unfinished / "head.safetensors", metadata={"fingerprint": made.head.fingerprint})
        if made.report is not None:
            (unfinished / "report.json").write_text(json.dumps(made.report, indent=2) + "\n")


def _load_head(path: Path) -> LinearHead:
    with safe_open(path, framework="pt") as file:
        return LinearHead(file.get_tensor("weight"), file.get_tensor("bias"), file.metadata()["fingerprint"])


def head_of(model: PreTrainedModel) -> LinearHead:
    """The model's final linear layer, marked with a hash of all weights."""
    digest = xxhash.xxh3_128()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    weight, bias = joint_layer(find_heads(model, int(model.config.num_labels or 0)).values())
    shift = torch.zeros(len(weight)) if bias is None else bias.detach().float()
    return LinearHead(weight.detach().float(), shift, digest.hexdigest())


def chosen_rows(count: int, rows: int, seed: int) -> NDArray[np.int64]:
    """Indices of `rows` of `count` rows, drawn at random, in order."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:rows])


def assemble(
    corpus: Part, teacher: Part, inputs: Sequence[str], *, rows: int | None = None, seed: int = 0, **task: Any
) -> Task:
    """The task of learning a teacher's labels from a corpus.

    Args:
        corpus: with `inputs` and `fine_label`.
        teacher: its labels and columns of the same rows.
        inputs: columns that the student reads.
        rows: of the training rows take this many at random; `None` is all. The teacher has seen all in any case.
        seed: of their choice.
        **task: further attributes of `Task`.
    """
    assert teacher.head is not None and teacher.report is not None
    train = concatenate_datasets([corpus.train.select_columns([*inputs, "fine_label"]), teacher.train], axis=1)
    evaluation = concatenate_datasets([corpus.evaluation.select_columns([*inputs]), teacher.evaluation], axis=1)
    if rows is not None:
        train = train.select(chosen_rows(len(train), rows, seed))
    if "pixel_values" in inputs:
        # Arrays as arrays: through Python's numbers a batch takes longer to read than to train on.
        train, evaluation = train.with_format("numpy"), evaluation.with_format("numpy")
    return Task(
        train,
        evaluation.remove_columns(EMBEDDING_COLUMN),
        teacher.head,
        fine_column="fine_label",
        teacher_accuracy=teacher.report["test_accuracy"],
        **task,
    )
