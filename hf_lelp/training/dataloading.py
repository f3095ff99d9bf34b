"""The datasets of a distilling Trainer: raw rows are prepared for the student, and read in the order they are in."""

from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from transformers import Trainer
from transformers.trainer_utils import has_length

from hf_lelp.config import LELPConfig
from hf_lelp.data.checks import check_rows
from hf_lelp.data.encoding import Processor
from hf_lelp.data.labels import Classes, find_label_column
from hf_lelp.data.rows import transform_of
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.training.student_inputs import OnTheFly, student_columns
from hf_lelp.training.targets import check_marks

IN_MEMORY_BYTES = 2 * 2**30


class DataloadingMixin(Trainer):
    """The part of `LELPTrainer` that prepares datasets for the student and reads them."""

    args: LELPConfig
    processing_class: Processor | None
    projections: ClassProjections | None
    _classes: Classes
    _max_length: int | None

    def _prepare(self, dataset: Any) -> Any:
        """Inputs and encoded labels; datasets that are not of the datasets library are taken to be prepared."""
        if not isinstance(dataset, Dataset | IterableDataset):
            check_rows(dataset)
            return dataset
        return student_columns(
            check_marks(dataset, None, self.projections),
            self.processing_class,
            input_columns=self.args.input_columns,
            label_column=find_label_column(dataset, self.args) or self.args.label_column,
            max_length=self._max_length,
            classes=self._classes,
        )

    def get_train_dataloader(self) -> Any:
        """As in Trainer; arrays (a prepared dataset in torch format, up to 2 GiB) are read into memory once."""
        dataset = self.train_dataset
        if self.processing_class is not None or not fits_in_memory(dataset):
            return super().get_train_dataloader()
        try:
            self.train_dataset = InMemory(self._remove_unused_columns(dataset, description="training"))
            return super().get_train_dataloader()
        finally:
            self.train_dataset = dataset

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As in Trainer; a raw dataset is prepared first."""
        prepared = (
            eval_dataset if eval_dataset is None or isinstance(eval_dataset, str) else self._prepare(eval_dataset)
        )
        return super().get_eval_dataloader(prepared)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As in Trainer; a raw dataset is prepared first."""
        return super().get_test_dataloader(self._prepare(test_dataset))

    def _get_eval_sampler(self, eval_dataset: Any) -> torch.utils.data.Sampler | None:
        # Trainer groups evaluation rows by length where training groups them, and predictions come back in that order.
        if not has_length(eval_dataset) or self.args.world_size > 1:
            return None
        return torch.utils.data.SequentialSampler(eval_dataset)

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        transform = transform_of(dataset)
        if not isinstance(transform, OnTheFly) or not self.args.remove_unused_columns:
            return super()._remove_unused_columns(dataset, description)
        # What inputs are made of when they are read is no argument of the model, but needed until then.
        self._set_signature_columns_if_needed()
        # As they are in the data, these two are not encoded.
        arguments: set[str] = {*(self._signature_columns or ())} - {"label", "label_ids"}
        return dataset.with_transform(replace(transform, wanted=arguments))


class InMemory(torch.utils.data.Dataset):
    """The columns of a dataset in torch format as tensors, for inputs that are arrays.

    Args:
        dataset: all of whose columns fit in memory.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.tensors: dict[str, torch.Tensor] = dataset[:]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: tensor[row] for name, tensor in self.tensors.items()}


def fits_in_memory(dataset: Any) -> bool:
    """Whether a dataset is of arrays, in torch format, and of at most 2 GiB.

    Row by row out of Arrow such a dataset can take as long to read as a small student's step: see `InMemory`.
    """
    return isinstance(dataset, Dataset) and dataset.format["type"] == "torch" and dataset.data.nbytes <= IN_MEMORY_BYTES
