"""Runs a student over rows: its class logits, and the embedding that its final layer reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedModel

from hf_lelp.classifiers import class_names, find_heads, headless, joint_layer, logits_of
from hf_lelp.data.encoding import Processor, batches, longest, on_device
from hf_lelp.data.labels import match_names
from hf_lelp.data.rows import RowError, split_rows
from hf_lelp.padding import with_fitting_side
from hf_lelp.student.heads import student_head
from hf_lelp.student.modeling_lelp import SubclassHead

READ_ROWS = 1024  # in memory at once
BATCH_ROWS = 64  # of a forward pass


@dataclass(frozen=True)
class Answers:
    """What a student says of N rows.

    Attributes:
        logits: of the classes, (N, C), in the data's order.
        embedding: what its final layer reads, (N, E); `None` where it is not known.
    """

    logits: NDArray[np.floating]
    embedding: NDArray[np.floating] | None = None


def final_layers(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Find a student's final layers by name, of either form; see `find_heads`."""
    head = student_head(model)
    outputs = head.out_features if isinstance(head, SubclassHead) else int(model.config.num_labels or 0)
    return find_heads(model, outputs)


def inputs_of_rows(
    processing_class: Processor, dataset: Dataset, columns: Sequence[str], max_length: int | None
) -> Iterator[tuple[NDArray[np.integer], dict[str, torch.Tensor]]]:
    """Yield the places of some rows in a dataset, and a model's inputs for them, until every row had its turn.

    Args:
        processing_class: of the model.
        dataset: N rows.
        columns: the ones that the model reads.
        max_length: see `batches`.

    Raises:
        ValueError: if a row cannot be read, naming it.
    """
    rows = dataset.with_format(None).select_columns(list(columns))
    for first, part in zip(count(0, READ_ROWS), split_rows(rows, READ_ROWS), strict=False):
        try:
            for places, inputs in batches(processing_class, part[:], columns, max_length, BATCH_ROWS):
                yield first + places, inputs
        except RowError as error:
            mistake = error.in_dataset(first + error.row, part)
            raise mistake from error


@torch.inference_mode()
def student_answers(
    model: PreTrainedModel,
    processing_class: Processor,
    dataset: Dataset,
    columns: Sequence[str],
    max_length: int | None = None,
    classes: list[str] | None = None,
) -> Answers:
    """Run a student over rows.

    Args:
        model: of either form, or any classifier; it is set to evaluation mode.
        processing_class: of the student.
        dataset: N rows.
        columns: the ones that it reads.
        max_length: tokens or samples after which an input is cut.
        classes: names of the C classes in the data's order, where known.

    Raises:
        ValueError: if its classes are not those of the data, it has no final linear layer, or a row cannot be read.
    """
    processing_class = with_fitting_side(processing_class, model)
    layers = final_layers(model.eval())
    limit = longest(processing_class, model, max_length)
    logits, embedding = np.empty(0), np.empty(0)
    for places, inputs in inputs_of_rows(processing_class, dataset, columns, limit):
        with headless(model, layers):
            hidden = logits_of(model(**{name: on_device(value, model) for name, value in inputs.items()}))
        # The head of the paper is no linear map: it gives the class logits itself.
        last = next(iter(layers.values()))
        joint = torch.nn.functional.linear(hidden, *joint_layer(layers.values())) if len(layers) > 1 else None
        of_rows = last(hidden) if joint is None else joint
        if not len(logits):
            logits = np.empty((len(dataset), of_rows.shape[1]), np.float32)
            embedding = np.empty((len(dataset), hidden.shape[1]), np.float32)
        logits[places] = of_rows.float().cpu().numpy()
        embedding[places] = hidden.float().cpu().numpy()
    own = class_names(model.config)
    if classes is not None and own is not None and own != classes:
        logits = logits[:, match_names(classes, own)]
    return Answers(logits, embedding)
