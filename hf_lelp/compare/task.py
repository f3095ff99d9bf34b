"""Holds one distillation problem that several methods can solve."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from hf_lelp.classifiers import LinearHead
from hf_lelp.data.encoding import Processor
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.training.auto_settings import reads_tokens


@dataclass(frozen=True)
class Task:
    """Data that a teacher has been run over, and a student to train on it.

    Attributes:
        train: the student's inputs (tokens, arrays, or images and sound to be read), `labels` (class indices, −100 for
            none), `teacher_logits`, (C,), and `teacher_embedding`, (D,), or the `teacher_projections` of `projections`.
            Subclass Distillation also needs
            `retrained_teacher_logits`, (C, S), of another teacher.
        evaluation: the student's inputs and `labels`.
        head: the teacher's final linear layer.
        student: makes a fresh student; it is called after the seed is set.
        processing_class: of the student, to make batches with; `None` where inputs are arrays.
        settings: of `LELPConfig`, for every method: learning rate, epochs, batch size and so on.
        fine_column: of `train`, integer: true subclasses that the labels hide, for the oracle; `None` if not known.
        teacher_accuracy: of the teacher on `evaluation`, if it was run there.
        projections: fitted on a sample, where no embeddings are kept.
        columns: tells the teacher's columns of both datasets but for rounding; `None` where only their values do.
    """

    train: Dataset
    evaluation: Dataset
    head: LinearHead
    student: Callable[[], PreTrainedModel]
    processing_class: Processor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    fine_column: str | None = None
    teacher_accuracy: float | None = None
    projections: ClassProjections | None = None
    columns: str | None = None

    @property
    def reads_tokens(self) -> bool:
        """Whether the student reads tokens; a search starts from plain distillation then."""
        return reads_tokens(self.processing_class)
