"""Opens a saved student with all that goes with it: processor, columns, length and the names of its classes."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.classifiers import class_names, load_processor, logits_of, shown_names
from hf_lelp.data.columns import resolve_input_columns
from hf_lelp.data.encoding import Processor, longest, on_device
from hf_lelp.data.labels import NO_LABEL, resolve_classes
from hf_lelp.data.rows import column_values
from hf_lelp.data.text import set_pad_token
from hf_lelp.padding import with_fitting_side
from hf_lelp.storage.progress import stage
from hf_lelp.student.answers import inputs_of_rows
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.loading import load_student


@dataclass(frozen=True)
class SavedStudent:
    """A student, or any classifier, ready to answer rows.

    Attributes:
        name: folder or Hub id.
        model: in evaluation mode.
        processing_class: its tokenizer, image processor or feature extractor.
        input_columns: that it was trained on, or that the user named; `None` to find them.
        label_column: likewise.
        max_length: tokens after which inputs are cut, as in its training.
    """

    name: str
    model: PreTrainedModel
    processing_class: Processor
    input_columns: list[str] | None
    label_column: str
    max_length: int | None

    @property
    def classes(self) -> list[str]:
        """The names of the C classes, in the order of the logits."""
        return shown_names(self.model.config)

    def columns_of(self, dataset: Dataset) -> list[str]:
        """Return the columns of a dataset that the student reads.

        Raises:
            ValueError: see `resolve_input_columns` and `StudentInputs.check`.
        """
        columns = resolve_input_columns(dataset, self.input_columns, self.label_column, self.processing_class)
        StudentInputs.of(self.model.config).check(columns)
        return columns

    @torch.inference_mode()
    def logits(self, dataset: Dataset) -> NDArray[np.float32]:
        """Compute the class logits of all rows, (N, C), in the rows' order.

        Raises:
            ValueError: if a row cannot be read, naming it.
        """
        columns = self.columns_of(dataset)
        result = np.empty((len(dataset), len(self.classes)), dtype=np.float32)
        with stage("Answering", len(dataset)) as advance:
            for places, inputs in inputs_of_rows(self.processing_class, dataset, columns, self.max_length):
                outputs = self.model(**{name: on_device(value, self.model) for name, value in inputs.items()})
                result[places] = logits_of(outputs).float().cpu().numpy()
                advance(len(places))
        return result

    def labels_of(self, dataset: Dataset) -> NDArray[np.int64] | None:
        """Encode a dataset's labels as indices of the student's classes, (N,); −100 is none; `None` without a column.

        Raises:
            ValueError: see `resolve_classes`.
        """
        if self.label_column not in dataset.column_names:
            return None
        config = self.model.config
        classes = resolve_classes(
            dataset,
            self.label_column,
            teacher_names=class_names(config),
            num_teacher_classes=config.num_labels,
        )
        assert classes.teacher_order is not None
        encoded = classes.encode(column_values(dataset, self.label_column))
        return np.array([label if label == NO_LABEL else classes.teacher_order[label] for label in encoded])


def open_student(
    name: str, input_columns: list[str] | None, label_column: str | None, max_length: int | None
) -> SavedStudent:
    """Load a student; what the user leaves out is as it was in training.

    Args:
        name: folder or Hub id.
        input_columns: see `SavedStudent`.
        label_column: likewise; "label" where nothing tells.
        max_length: likewise.

    Raises:
        ValueError: if it has one output; see also `load_student` and `longest`.
    """
    name = os.path.expanduser(name)
    model = load_student(name, dtype=torch.float32).eval()
    if model.config.num_labels == 1:  # a softmax over it would be 1 for every row
        raise ValueError(
            f"{name} has one output, and students of two classes or more are read here. Give the student that it was"
            " made of: its probabilities are the same."
        )
    processing_class = load_processor(name)
    if isinstance(processing_class, PreTrainedTokenizerBase):
        set_pad_token(processing_class, model)
    trained: Any = StudentInputs.of(model.config)
    return SavedStudent(
        name,
        model,
        with_fitting_side(processing_class, model),
        input_columns or trained.input_columns,
        label_column or trained.label_column or "label",
        longest(processing_class, model, max_length or trained.max_length),
    )
