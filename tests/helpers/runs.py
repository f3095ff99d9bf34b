"""Short real runs of the tiny models, shared by the tests of trainer, columns and preparation."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from hf_lelp import ClassProjections, LELPConfig, LELPTrainer, Teacher

ROWS = 96


def teacher_model(kind: str = "bert", **settings: Any) -> PreTrainedModel:
    """The same teacher on every call, with names for its two classes."""
    return tiny.named(tiny.classifier(kind, **settings))


def teacher(kind: str = "bert", **settings: Any) -> Teacher:
    return Teacher(teacher_model(kind), tiny.tokenizer(kind), **settings)


def data(rows: int = ROWS, *, kind: str = "bert", seed: int = 0) -> Dataset:
    """Columns text and label, the labels the teacher's but for a tenth."""
    return tiny.dataset(teacher_model(kind), rows, kind=kind, seed=seed)


def student(kind: str = "bert", *, num_labels: int = 2, dropout: bool = True) -> PreTrainedModel:
    """A model smaller than the teacher, and of other weights."""
    model = tiny.classifier(kind, hidden_size=8, num_labels=num_labels, seed=3)
    if not dropout:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return model


def config(folder: Path, **settings: Any) -> LELPConfig:
    """A few steps on the CPU, written and cached below `folder`."""
    defaults: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "columns_cache_dir": str(folder / "columns"),
        "num_subclasses": 2,
        "per_device_train_batch_size": 16,
        # Adam would blow up the rounding of parameters without a gradient (the bias of attention's keys).
        "optim": "sgd",
        "learning_rate": 0.1,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return LELPConfig(**{**defaults, **settings})


def trainer(args: LELPConfig, kind: str = "bert", **arguments: Any) -> LELPTrainer:
    """A student of `kind` and the BERT teacher, on raw data, unless `arguments` say otherwise."""
    defaults: dict[str, Any] = {
        "model": None if "model_init" in arguments else student(kind),
        "train_dataset": data(),
        "processing_class": tiny.tokenizer(kind),
        "teacher_model": teacher_model(),
        "teacher_processing_class": tiny.tokenizer(),
    }
    return LELPTrainer(args=args, **{**defaults, **arguments})


def trained(
    folder: Path, kind: str = "bert", *, arguments: dict[str, Any] | None = None, **settings: Any
) -> LELPTrainer:
    """A trainer after its steps; `settings` are of `config`."""
    run = trainer(config(folder, **settings), kind, **(arguments or {}))
    run.train()
    return run


def prepared(raw: Dataset | None = None, num_directions: int = 2) -> tuple[Dataset, ClassProjections]:
    """The three steps by hand."""
    guide = teacher()
    columns = (data() if raw is None else raw).map(guide, batched=True)
    projections = ClassProjections.fit(columns, guide.head, num_directions)
    return columns.map(projections, batched=True), projections


def losses(run: LELPTrainer) -> list[float]:
    """The training loss of every logged step."""
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 0.0) -> None:
    """The same names and, to the tolerance (by default to the last bit), the same values."""
    assert one.keys() == other.keys()
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def class_logits(
    model: PreTrainedModel, texts: list[str], processing_class: PreTrainedTokenizerBase
) -> NDArray[np.float32]:
    """What a user sees of the model, without any part of a trainer."""
    model.eval()
    with torch.no_grad():
        return np.asarray(model(**processing_class(texts, padding=True, return_tensors="pt")).logits)


@contextmanager
def rows_seen(model: nn.Module) -> Iterator[list[int]]:
    """Number of rows of every forward pass within the block."""
    seen: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(len(next(iter(inputs.values())))), with_kwargs=True
    )
    try:
        yield seen
    finally:
        hook.remove()


class StopAt(TrainerCallback):
    """Ends training after a step, as if it had been interrupted."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step
