"""Prepares and reads the datasets of a distilling Trainer, and evaluates rows in the order they are in."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import StackDataset
from transformers import Trainer
from transformers.trainer_utils import has_length

from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import TEACHER_COLUMNS
from hf_lelp.data.rows import transform_of
from hf_lelp.training.batches import AroundCollator, RowsAndColumns, is_readable, rows_and_columns, rows_without
from hf_lelp.training.prepared_run import PreparedRun
from hf_lelp.training.student_inputs import OnTheFly

IN_MEMORY_BYTES = 2 * 2**30


class DataloadingMixin(Trainer):
    """The part of `LELPTrainer` that prepares datasets for the student and reads them."""

    args: LELPConfig
    prepared: PreparedRun

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Callable[[Any], Any] | None = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> Any:
        """As in Trainer, but the teacher's columns of a `Dataset` go around the data collator, as arrays.

        What a training dataset holds in torch format, up to 2 GiB, is read into memory once.
        """
        rest = (description, batch_size, sampler_fn, is_training, dataloader_key)
        if not isinstance(dataset, Dataset):
            return super()._get_dataloader(dataset, *rest)
        used = self._remove_unused_columns(dataset, description)
        read = rows_and_columns(used, self._signature_columns if self.args.remove_unused_columns else None)
        if is_training and self.processing_class is None and fits_in_memory(used):
            read = read or RowsAndColumns(used, {}, None)
            read.dataset = StackDataset(**read.dataset[:])
        if read is None:
            return super()._get_dataloader(dataset, *rest)
        sampler = sampler_fn and (lambda _: sampler_fn(used))  # sees the dataset that holds the rows, as in Trainer
        given: Any = self.data_collator
        self.data_collator = AroundCollator(given)  # type: ignore[assignment]
        try:
            return super()._get_dataloader(read, description, batch_size, sampler, is_training, dataloader_key)
        finally:
            self.data_collator = given

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if isinstance(data_collator, AroundCollator):  # the columns are removed from its rows already
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        # Trainer's samplers may read all rows for their lengths; the teacher's columns would take most of that time.
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return super()._get_train_sampler(rows_without(dataset, TEACHER_COLUMNS) if is_readable(dataset) else dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As in Trainer; a raw dataset is prepared first."""
        prepared = (
            eval_dataset
            if eval_dataset is None or isinstance(eval_dataset, str)
            else self.prepared.inputs_of(eval_dataset)
        )
        return super().get_eval_dataloader(prepared)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As in Trainer; a raw dataset is prepared first."""
        return super().get_test_dataloader(self.prepared.inputs_of(test_dataset))

    def _get_eval_sampler(self, eval_dataset: Any) -> torch.utils.data.Sampler | None:
        # Where Trainer groups training rows by length, it groups evaluation rows too, and predicts in that order.
        if not has_length(eval_dataset) or self.args.world_size > 1:
            return None
        return torch.utils.data.SequentialSampler(eval_dataset)

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        transform = transform_of(dataset)
        if not isinstance(transform, OnTheFly) or not self.args.remove_unused_columns:
            return super()._remove_unused_columns(dataset, description)
        # The columns that inputs are made of at reading are no arguments of the model, but must stay until then.
        self._set_signature_columns_if_needed()
        # The data's own columns of these two names are not encoded.
        arguments: set[str] = {*(self._signature_columns or ())} - {"label", "label_ids"}
        return dataset.with_transform(replace(transform, wanted=arguments))


def fits_in_memory(dataset: Any) -> bool:
    """Whether a dataset holds arrays, in torch format, of at most 2 GiB.

    Reading such a dataset row by row from Arrow can take as long as a small student's step.
    """
    return isinstance(dataset, Dataset) and dataset.format["type"] == "torch" and dataset.data.nbytes <= IN_MEMORY_BYTES
