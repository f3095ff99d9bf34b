"""Tells of a training loss that is not finite, which the log of Trainer leaves out.

A loss is looked at where Trainer reads it anyway, so that no step waits for the device on its account. That is at every
step with `logging_nan_inf_filter`, the default: the step and its rows can be named. Without the filter Trainer reads
losses when it logs: then the steps since the last log can be named.
"""

import logging
import math
from itertools import chain, islice
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.utils import is_torch_xla_available

logger = logging.getLogger(__name__)

ROWS_NAMED = 16


class FiniteLossMixin(Trainer):
    """The part of `LELPTrainer` that warns of a loss that is not finite. Training goes on, as in Trainer."""

    _not_finite_at: int | None = None  # the first step of such a loss, or of the steps that have one among them

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in Trainer, with a warning the first time that the loss is not finite."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        read = self.args.logging_nan_inf_filter and not is_torch_xla_available()  # by Trainer, right after this
        if read and self._not_finite_at is None and not torch.isfinite(loss):
            step = self.state.global_step + 1
            self._warn(step, f"{step}{_listed(self._rows_of_next_step())}")
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As in Trainer, with a warning the first time that a training loss is not finite."""
        if self._not_finite_at is None and not math.isfinite(logs.get("loss", logs.get("train_loss", 0.0))):
            first = 1 + max((int(entry["step"]) for entry in self.state.log_history if "loss" in entry), default=0)
            self._warn(first, f"{first} or after it, up to {self.state.global_step}")
        super().log(logs, *args, **kwargs)

    def _warn(self, step: int, found: str) -> None:
        self._not_finite_at = step
        logger.warning(
            f"The training loss is not finite (NaN or infinite) at step {found}. Training goes on, as in Trainer; but"
            " one such step can make every weight NaN. Look at these rows; or lower the learning rate, or train in"
            " float32 or bf16."
        )

    def _rows_of_next_step(self) -> list[int]:
        """Return the rows that this process trains on in the step after `state.global_step`; none if that is unknown.

        A seeded sampler draws the same order again, which changes nothing of the order that is being read.
        """
        loader: Any = self.callback_handler.train_dataloader
        batches: Any = getattr(loader, "batch_sampler", None)
        rows: Any = getattr(
            getattr(batches, "batch_sampler", batches), "sampler", None
        )  # of one process's share, or of all
        repeatable = isinstance(rows, SeedableRandomSampler | SequentialSampler)
        if not repeatable:
            return []
        size = self.args.gradient_accumulation_steps
        epoch, step = divmod(self.state.global_step, math.ceil(len(loader) / size))
        read = getattr(rows, "epoch", None)
        rows.epoch = epoch
        try:
            return [*chain.from_iterable(islice(iter(batches), step * size, (step + 1) * size))]
        finally:
            rows.epoch = read


def _listed(rows: list[int]) -> str:
    named = ", ".join(map(str, rows[:ROWS_NAMED]))
    more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
    return f", with the rows {named}{more} of train_dataset" if rows else ""
