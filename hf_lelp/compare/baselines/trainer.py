"""Trains the methods that LELP is compared with, by the same Trainer, data and columns, with another loss."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_lelp.classifiers import find_heads
from hf_lelp.compare.baselines.losses import (
    GaussianRegressor,
    annealed_logit_regression,
    comparative_loss,
    crd_loss,
    dkd_loss,
    embedding_mse,
    logit_regression,
    rkd_loss,
    vid_loss,
)
from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values
from hf_lelp.losses import distillation_loss, label_loss
from hf_lelp.student.heads import AuxiliaryHead, place_auxiliary
from hf_lelp.trainer import LELPTrainer
from hf_lelp.training.prepared_run import PreparedRun

Baseline = Literal[
    "soft_targets",
    "logit_regression",
    "dkd",
    "annealing",
    "comparative",
    "embedding_mse",
    "fitnet",
    "vid",
    "rkd",
    "crd",
]
# These read the teacher's embedding; each adds its term to plain distillation.
ON_EMBEDDINGS = ("embedding_mse", "fitnet", "vid", "rkd", "crd")
CRD_FEATURES = 128  # as published
ANNEALING_STEPS = 10  # temperatures of Annealing-KD, as published for CIFAR
FIRST_STAGE = 0.5  # share of the steps, for methods that train in two stages


@dataclass
class BaselineConfig(LELPConfig):
    """Settings of `BaselineTrainer`.

    Args:
        baseline: the method. "soft_targets" softens the targets by τ, but not the student's softmax. "annealing" is
            Annealing-KD: regression on annealed logits, then labels. "logit_regression", "dkd" and "comparative" are
            losses on logits. "embedding_mse", "fitnet", "vid", "rkd" and "crd" read the teacher's embeddings, all but
            "rkd" standardised. They and "comparative" are added to plain distillation; "fitnet" learns embeddings
            first, plain distillation after. `baselines.losses` names each one's source.
        baseline_weight: of the term added to plain distillation.

    Raises:
        ValueError: if there is no such method, or `num_subclasses` is not 1.
    """

    num_subclasses: int | str = 1
    baseline: Baseline = field(default="embedding_mse", metadata={"help": "The method."})
    baseline_weight: float = field(default=1.0, metadata={"help": "Weight of the term added to plain distillation."})

    def check(self) -> None:
        """Check the settings, as in `LELPConfig`.

        Raises:
            ValueError: if a setting is out of its range.
        """
        super().check()
        if self.baseline not in get_args(Baseline):
            raise ValueError(f"baseline={self.baseline!r}: one of {', '.join(get_args(Baseline))}.")
        if self.num_subclasses != 1:
            raise ValueError(f"num_subclasses={self.num_subclasses}: the method {self.baseline} has no subclasses.")


class BaselineTrainer(LELPTrainer):
    """A `LELPTrainer` with another method's loss.

    The training data has the teacher's columns, with `teacher_embedding` if the method reads it. A module that a method
    needs beside the student, such as a regressor, takes the place of LELP's auxiliary layer. A saved student does not
    hold it.

    Args:
        model: the student.
        args: settings.
        train_dataset: with the teacher's columns.
        **kwargs: all other arguments of `LELPTrainer`.
    """

    args: BaselineConfig

    def __init__(
        self, model: Any = None, args: BaselineConfig | None = None, *, train_dataset: Dataset, **kwargs: Any
    ) -> None:
        if not isinstance(args, BaselineConfig):
            raise ValueError(f"args is a {type(args).__name__}; BaselineTrainer takes a BaselineConfig.")
        if args.baseline in ON_EMBEDDINGS and EMBEDDING_COLUMN not in train_dataset.column_names:
            raise ValueError(
                f"The method {args.baseline} reads {EMBEDDING_COLUMN}, and the training data has"
                f" {', '.join(train_dataset.column_names)}. Make the column with a Teacher, and keep it."
            )
        super().__init__(model, args, train_dataset=train_dataset, **kwargs)

    def _set_up(self, run: PreparedRun, **kwargs: Any) -> None:
        assert isinstance(run.args, BaselineConfig)
        self._mean = self._spread = torch.zeros(())
        if run.args.baseline in ON_EMBEDDINGS:  # of the rows that are trained on, in a search too
            embedding = column_values(run.train.with_format("torch"), EMBEDDING_COLUMN).float()
            self._mean, self._spread = embedding.mean(0), embedding.std(0).clamp(min=1e-6)
        super()._set_up(run, **kwargs)

    def _place_head(self, model: PreTrainedModel, args: LELPConfig) -> None:
        super()._place_head(model, args)
        assert isinstance(args, BaselineConfig)
        if args.baseline not in ON_EMBEDDINGS:
            return
        student = next(reversed(find_heads(model, int(model.config.num_labels or 0)).values())).in_features
        teacher = len(self._mean)
        parts: dict[str, nn.Module] = {
            "vid": GaussianRegressor(student, teacher),
            "rkd": nn.Identity(),
            "crd": _Projectors(student, teacher),
        }
        place_auxiliary(model, parts.get(args.baseline, nn.Linear(student, teacher)))

    def _loss_columns(self) -> list[str]:
        return [LOGITS_COLUMN, EMBEDDING_COLUMN] if self.args.baseline in ON_EMBEDDINGS else [LOGITS_COLUMN]

    def distillation_losses(self, class_logits: Tensor, other: Tensor, columns: dict[str, Tensor]) -> Tensor:
        """Compute the method's loss per example, (N,).

        Args:
            class_logits: of the student, (N, C).
            other: output of the auxiliary module, (N, M).
            columns: the teacher's, and `labels`, by name.
        """
        args, teacher_logits = self.args, columns[LOGITS_COLUMN].float()
        temperature = float(args.temperature)
        progress = self.state.global_step / max(self.state.max_steps, 1)
        labels = columns.get("labels")
        classes = teacher_logits.argmax(-1)
        if labels is not None:
            classes = torch.where(labels == NO_LABEL, classes, labels)
        targets = teacher_logits.div(temperature).softmax(-1)
        match args.baseline:
            case "soft_targets":
                return distillation_loss(class_logits, targets)
            case "logit_regression":
                return logit_regression(class_logits, teacher_logits)
            case "dkd":
                return dkd_loss(class_logits, teacher_logits, classes, temperature)
            case "annealing":
                if progress >= FIRST_STAGE:
                    return label_loss(class_logits, classes)
                return annealed_logit_regression(
                    class_logits, teacher_logits, progress / FIRST_STAGE, steps=ANNEALING_STEPS
                )
        plain = distillation_loss(class_logits, targets, temperature=temperature)
        if args.baseline == "comparative":
            return plain + args.baseline_weight * comparative_loss(class_logits, teacher_logits, temperature)
        mean, spread = self._mean.to(other), self._spread.to(other)
        embedding = (columns[EMBEDDING_COLUMN].to(other) - mean) / spread
        part = self._head.auxiliary if isinstance(self._head, AuxiliaryHead) else None
        match part:
            case GaussianRegressor():
                term = vid_loss(other, part.raw_variance, embedding)
            case _Projectors():
                term = crd_loss(other, part.teacher(embedding))
            case nn.Identity():
                term = rkd_loss(other, columns[EMBEDDING_COLUMN].to(other))
            case _:
                term = embedding_mse(other, embedding)
        if args.baseline == "fitnet":
            return term if progress < FIRST_STAGE else plain
        return plain + args.baseline_weight * term


class _Projectors(nn.Module):
    """CRD's two learned linear maps into a common space."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.student = nn.Linear(student, CRD_FEATURES)
        self.teacher = nn.Linear(teacher, CRD_FEATURES)

    def forward(self, embedding: Tensor) -> Tensor:
        projected: Tensor = self.student(embedding)
        return projected
