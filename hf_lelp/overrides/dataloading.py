"""Prepares and reads the datasets of a distilling Trainer, and evaluates rows in the order they are in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import StackDataset
from transformers import Trainer, default_data_collator
from transformers.trainer_utils import EvalLoopOutput, has_length

from hf_lelp.config import LELPConfig
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import transform_of
from hf_lelp.overrides.batches import AroundCollator, RowsAndColumns, is_readable, rows_and_columns, rows_without
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
        """As in Trainer, but no row of an evaluation is dropped, and the teacher's columns go around the collator.

        Rows of evaluations and predictions belong to other rows by their position. What a training dataset holds in
        torch format, up to 2 GiB, is read into memory once.
        """
        rest = (description, batch_size, sampler_fn, is_training, dataloader_key)
        given: Any = self.data_collator
        dropped, pinned = self.args.dataloader_drop_last, self.args.dataloader_pin_memory
        self.args.dataloader_drop_last = dropped and is_training
        self.args.dataloader_pin_memory = pinned and self.args.device.type != "cpu"  # else each loop would warn
        try:
            return super()._get_dataloader(*self._with_arrays(dataset, *rest))
        finally:
            self.data_collator = given
            self.args.dataloader_drop_last, self.args.dataloader_pin_memory = dropped, pinned

    def _with_arrays(
        self, dataset: Any, description: str, batch_size: int, sampler_fn: Any, is_training: bool, key: str | None
    ) -> tuple[Any, ...]:
        """Arguments of Trainer's dataloader for a dataset whose teacher's columns go around the collator, as arrays."""
        rest = (description, batch_size, sampler_fn, is_training, key)
        if not isinstance(dataset, Dataset):
            return dataset, *rest
        used = self._remove_unused_columns(dataset, description)
        stored = used.dataset if isinstance(used, NamedRows) else used
        wanted = self._signature_columns if self.args.remove_unused_columns else None
        read = rows_and_columns(stored, self.prepared.columns.of_loss, wanted)
        if read is not None and isinstance(used, NamedRows):
            read.dataset = replace(used, dataset=read.dataset)
        if is_training and self.processing_class is None and fits_in_memory(used):
            read = read or RowsAndColumns(used, {}, None)
            read.dataset = StackDataset(**read.dataset[:])
        if read is None:
            return dataset, *rest
        sampler = sampler_fn and (lambda _: sampler_fn(used))  # sees the dataset that holds the rows, as in Trainer
        self.data_collator = AroundCollator(self.data_collator)  # type: ignore[assignment]
        return read, description, batch_size, sampler, is_training, key

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if isinstance(data_collator, AroundCollator):  # the columns are removed from its rows already
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        # Trainer's samplers may read all rows for their lengths; the teacher's columns would take most of that time.
        dataset = self.train_dataset if train_dataset is None else train_dataset
        apart = self.prepared.columns.of_loss
        return super()._get_train_sampler(rows_without(dataset, apart) if is_readable(dataset) else dataset)

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
        if not isinstance(transform, OnTheFly):
            return super()._remove_unused_columns(dataset, description)
        stacked = self.data_collator is default_data_collator
        if not self.args.remove_unused_columns:
            return NamedRows(dataset, stacked)
        # The columns that inputs are made of at reading are no arguments of the model, but must stay until then.
        self._set_signature_columns_if_needed()
        # The data's own columns of these two names are not encoded.
        arguments: set[str] = {*(self._signature_columns or ())} - {"label", "label_ids"}
        return NamedRows(dataset.with_transform(replace(transform, wanted=arguments)), stacked)


@dataclass(frozen=True)
class NamedRows(torch.utils.data.Dataset):
    """Rows that become inputs when they are read; an error names the row that it is about.

    Attributes:
        dataset: of images, sounds or augmented texts.
        stacked: whether the inputs of a batch must have one shape, as nothing pads them.
    """

    dataset: Dataset
    stacked: bool = False

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the inputs of some rows.

        Raises:
            ValueError: naming a row that cannot be read, or whose inputs have another shape than those of the others.
        """
        try:
            read: list[dict[str, Any]] = self.dataset.__getitems__(list(rows))
        except Exception as error:
            for row in rows:
                try:
                    self.dataset.__getitems__([row])
                except Exception as alone:
                    reason = str(alone) if isinstance(alone, ValueError) else f"{type(alone).__name__}: {alone}"
                    raise ValueError(f"Row {row} of the dataset cannot be read: {reason}") from error
            raise
        for row, values in zip(rows, read, strict=True):
            shapes = [
                {name: value.shape for name, value in some.items() if hasattr(value, "shape")}
                for some in (values, read[0])
            ]
            if self.stacked and shapes[0] != shapes[1]:
                raise ValueError(
                    f"Row {row} of the dataset has inputs of the shapes {shapes[0]}, and row {rows[0]} {shapes[1]}."
                    " Give the student's processor a size, or a crop_size; or pass a data_collator."
                )
        return read


def fits_in_memory(dataset: Any) -> bool:
    """Whether a dataset holds arrays, in torch format, of at most 2 GiB.

    Reading such a dataset row by row from Arrow can take as long as a small student's step.
    """
    return isinstance(dataset, Dataset) and dataset.format["type"] == "torch" and dataset.data.nbytes <= IN_MEMORY_BYTES
