"""Trains the methods that LELP is compared with, by the same Trainer, data and columns, with another loss."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_lelp.classifiers import LinearHead, find_heads
from hf_lelp.compare.baselines.losses import (
    GaussianRegressor,
    annealed_logit_regression,
    comparative_loss,
    crd_loss,
    dist_loss,
    dkd_loss,
    embedding_mse,
    logit_regression,
    pkt_loss,
    procrustes_loss,
    rkd_loss,
    sp_loss,
    srd_loss,
    vid_loss,
)
from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values
from hf_lelp.losses import distillation_loss, label_loss
from hf_lelp.student.heads import AuxiliaryHead, place_auxiliary, student_head
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
    "dist",
    "srd",
    "pkt",
    "sp",
    "procrustes",
    "lelp_crd",
]
LELP_CRD = "lelp_crd"
# These read the teacher's embedding; each adds its term to plain distillation, and the last one to LELP.
ON_EMBEDDINGS = ("embedding_mse", "fitnet", "vid", "rkd", "crd", "srd", "pkt", "sp", "procrustes", LELP_CRD)
# These have a loss of their own in place of plain distillation.
ALONE = ("soft_targets", "logit_regression", "dkd", "annealing")
CRD_FEATURES = 128  # as published
ANNEALING_STEPS = 10  # temperatures of Annealing-KD, as published for CIFAR
FIRST_STAGE = 0.5  # share of the steps, for methods that train in two stages
PKT_DECAY = 0.7  # of the term's weight with each epoch; published for the layers before the last
# Both losses are tiny, means of squares over pairs; these weights are those of CRD's authors for CIFAR-100.
PKT_WEIGHT, SP_WEIGHT = 30_000, 3_000


@dataclass
class BaselineConfig(LELPConfig):
    """Settings of `BaselineTrainer`.

    Args:
        baseline: the method. "soft_targets" softens the targets by τ, but not the student's softmax. "annealing" is
            Annealing-KD: regression on annealed logits, then labels. "logit_regression" and "dkd" are losses on logits
            too. All others are added to plain distillation; "fitnet" learns embeddings first, plain distillation after.
            "comparative" and "dist" read logits, and `ON_EMBEDDINGS` the teacher's embeddings. These are standardised,
            but for those that only compare examples ("rkd", "pkt", "sp", "procrustes"). The term of "pkt" fades over
            the epochs. "lelp_crd" is LELP with an auxiliary layer, and CRD beside it. `baselines.losses` names each
            one's source.
        baseline_weight: of the term added to plain distillation.

    Raises:
        ValueError: if there is no such method, `num_subclasses` is not 1 for a method without subclasses, or
            "lelp_crd" has another head than "auxiliary".
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
        if self.baseline == LELP_CRD:
            if self.student_head != "auxiliary":
                raise ValueError(
                    f"student_head={self.student_head!r}: {LELP_CRD} puts two layers beside the student's own; set"
                    " student_head='auxiliary'."
                )
        elif self.num_subclasses != 1:
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
        head: the teacher's final layer, for "srd".
        **kwargs: all other arguments of `LELPTrainer`.
    """

    args: BaselineConfig

    def __init__(
        self,
        model: Any = None,
        args: BaselineConfig | None = None,
        *,
        train_dataset: Dataset,
        head: LinearHead | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, BaselineConfig):
            raise ValueError(f"args is a {type(args).__name__}; BaselineTrainer takes a BaselineConfig.")
        if args.baseline in ON_EMBEDDINGS and EMBEDDING_COLUMN not in train_dataset.column_names:
            raise ValueError(
                f"The method {args.baseline} reads {EMBEDDING_COLUMN}, and the training data has"
                f" {', '.join(train_dataset.column_names)}. Make the column with a Teacher, and keep it."
            )
        if args.baseline == "srd" and head is None:
            raise ValueError("The method srd reads the student's embedding with the teacher's final layer: pass head.")
        self._teacher_head = head
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
        teacher, present = len(self._mean), student_head(model)
        subclasses = present.auxiliary if isinstance(present, AuxiliaryHead) else None
        # All are made, whatever the method, and in this order: a seed gives the weights of the runs that are kept.
        regressor, alike = GaussianRegressor(student, teacher), nn.Identity()
        projectors, linear = _Projectors(student, teacher, subclasses), nn.Linear(student, teacher)
        parts: dict[str, nn.Module] = {
            "vid": regressor,
            **dict.fromkeys(("rkd", "pkt", "sp", "procrustes"), alike),
            **dict.fromkeys(("crd", LELP_CRD), projectors),
        }
        place_auxiliary(model, parts.get(args.baseline, linear), 1 if subclasses is None else int(args.num_subclasses))

    def _loss_columns(self) -> list[str]:
        columns = super()._loss_columns()
        return [*columns, EMBEDDING_COLUMN] if self.args.baseline in ON_EMBEDDINGS else columns

    def distillation_losses(self, class_logits: Tensor, other: Tensor, columns: dict[str, Tensor]) -> Tensor:
        """Compute the method's loss per example, (N,).

        Args:
            class_logits: of the student, (N, C).
            other: output of the auxiliary module, (N, M).
            columns: the teacher's, and `labels`, by name.
        """
        args = self.args
        if args.baseline in ALONE:
            return self._alone(class_logits, columns)
        if args.baseline == LELP_CRD:
            subclass_logits, other = other[..., :-CRD_FEATURES], other[..., -CRD_FEATURES:]
        else:
            subclass_logits = other  # not read: there is one subclass
        added = self._added(class_logits, other, columns)
        plain = super().distillation_losses(class_logits, subclass_logits, columns)
        if args.baseline == "fitnet":
            return added if self._progress < FIRST_STAGE else plain
        return plain + args.baseline_weight * added

    @property
    def _progress(self) -> float:
        """The share of the training steps that is over."""
        return self.state.global_step / max(self.state.max_steps, 1)

    def _alone(self, class_logits: Tensor, columns: dict[str, Tensor]) -> Tensor:
        """Compute the loss of a method that is no plain distillation with a term."""
        teacher_logits, temperature = columns[LOGITS_COLUMN].float(), float(self.args.temperature)
        classes, labels = teacher_logits.argmax(-1), columns.get("labels")
        if labels is not None:
            classes = torch.where(labels == NO_LABEL, classes, labels)
        match self.args.baseline:
            case "soft_targets":
                return distillation_loss(class_logits, teacher_logits.div(temperature).softmax(-1))
            case "logit_regression":
                return logit_regression(class_logits, teacher_logits)
            case "dkd":
                return dkd_loss(class_logits, teacher_logits, classes, temperature)
        if self._progress >= FIRST_STAGE:
            return label_loss(class_logits, classes)
        return annealed_logit_regression(
            class_logits, teacher_logits, self._progress / FIRST_STAGE, steps=ANNEALING_STEPS
        )

    def _added(self, class_logits: Tensor, other: Tensor, columns: dict[str, Tensor]) -> Tensor:
        """Compute the term that a method adds to plain distillation."""
        teacher_logits, temperature = columns[LOGITS_COLUMN].float(), float(self.args.temperature)
        if self.args.baseline == "comparative":
            return comparative_loss(class_logits, teacher_logits, temperature)
        if self.args.baseline == "dist":
            return dist_loss(class_logits, teacher_logits, temperature)
        raw, mean, spread = columns[EMBEDDING_COLUMN].to(other), self._mean.to(other), self._spread.to(other)
        embedding = (raw - mean) / spread
        part: Any = self._head.auxiliary if isinstance(self._head, AuxiliaryHead) else None
        match self.args.baseline:
            case "vid":
                return vid_loss(other, part.raw_variance, embedding)
            case "crd" | "lelp_crd":
                return crd_loss(other, part.teacher(embedding))
            case "rkd":
                return rkd_loss(other, raw)
            case "pkt":
                return PKT_WEIGHT * PKT_DECAY ** int(self.state.epoch or 0) * pkt_loss(other, raw)
            case "sp":
                return SP_WEIGHT * sp_loss(other, raw)
            case "procrustes":
                return procrustes_loss(other, raw)
            case "srd":
                assert self._teacher_head is not None
                layer = self._teacher_head.weight.to(other), self._teacher_head.bias.to(other)
                cross = srd_loss(mean + spread * other, teacher_logits, *layer)
                return embedding_mse(other, embedding) + cross
        return embedding_mse(other, embedding)


class _Projectors(nn.Module):
    """CRD's two learned linear maps into a common space; with LELP, its layer of subclasses too."""

    def __init__(self, student: int, teacher: int, subclasses: nn.Module | None = None) -> None:
        super().__init__()
        self.student = nn.Linear(student, CRD_FEATURES)
        self.teacher = nn.Linear(teacher, CRD_FEATURES)
        self.subclasses = subclasses

    def forward(self, embedding: Tensor) -> Tensor:
        projected: Tensor = self.student(embedding)
        return projected if self.subclasses is None else torch.cat([self.subclasses(embedding), projected], dim=-1)
