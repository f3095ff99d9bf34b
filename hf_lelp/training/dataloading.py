"""Prepares the raw datasets of a distilling Trainer for the student, and evaluates rows in the order they are in."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import StackDataset
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, has_length

from hf_lelp.config import LELPConfig
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import transform_of
from hf_lelp.training.prepared_run import PreparedRun
from hf_lelp.training.student_inputs import OnTheFly

IN_MEMORY_BYTES = 2 * 2**30


class DataloadingMixin(Trainer):
    """The part of `LELPTrainer` that prepares datasets for the student and reads them."""

    args: LELPConfig
    prepared: PreparedRun

    def get_train_dataloader(self) -> Any:
        """As in Trainer, but read arrays into memory once: a prepared dataset in torch format, up to 2 GiB."""
        dataset = self.train_dataset
        if self.processing_class is not None or not fits_in_memory(dataset):
            return super().get_train_dataloader()
        try:
            tensors = self._remove_unused_columns(dataset, description="training")[:]
            self.train_dataset = StackDataset(**tensors)
            return super().get_train_dataloader()
        finally:
            self.train_dataset = dataset

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

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        # Trainer drops the last rows of evaluations and predictions too, which belong to other rows by their position.
        dropped = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = dropped and kwargs.get("is_training", False)
        try:
            return super()._get_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = dropped

    def _get_eval_sampler(self, eval_dataset: Any) -> torch.utils.data.Sampler | None:
        # Where Trainer groups training rows by length, it groups evaluation rows too, and predicts in that order.
        if not has_length(eval_dataset) or self.args.world_size > 1:
            return None
        return torch.utils.data.SequentialSampler(eval_dataset)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As in Trainer, without a loss where no row has a label: it would be NaN."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        labels = output.label_ids if isinstance(output.label_ids, list) else [output.label_ids]
        if all(isinstance(part, np.ndarray) and (part == NO_LABEL).all() for part in labels):
            known = {name: value for name, value in (output.metrics or {}).items() if value == value}
            return output._replace(metrics=known)
        return output

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
