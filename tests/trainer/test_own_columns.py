"""Columns of a subclass's own reach its loss beside the teacher's, whatever the rows are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny_media
import torch
from datasets import Dataset

from hf_lelp import LELPTrainer, Teacher

OWN = "sign_of_label"


class OwnTrainer(LELPTrainer):
    """Notes what its loss is given."""

    own_columns = (OWN,)

    def _loss_columns(self) -> list[str]:
        return [*super()._loss_columns(), OWN]

    def distillation_losses(self, class_logits: Any, other: Any, columns: dict[str, Any]) -> torch.Tensor:
        self.seen = [*getattr(self, "seen", []), (columns["labels"], columns[OWN])]
        return super().distillation_losses(class_logits, other, columns) + columns[OWN].mean((-1, -2))


def with_own(data: Dataset) -> Dataset:
    """The label, in a small matrix of float16 a row."""
    values = np.asarray(data["label"], dtype=np.float16)[:, None, None] * np.ones((2, 3), np.float16)
    return data.with_format("numpy").map(lambda batch, rows: {OWN: values[rows]}, batched=True, with_indices=True)


@pytest.mark.parametrize("kind", ["texts", "augmented", "images", "by hand"])
def test_own_columns_reach_the_loss_with_their_rows(kind: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"model": runs.student(), "processing_class": runs.tiny.tokenizer()}
    guide: Any = runs.teacher()
    raw = runs.data(48)
    if kind == "images":
        model, processor = tiny_media.cnn(), tiny_media.image_processor()
        guide = Teacher(model, processor, input_columns=["img"])
        raw = tiny_media.image_data(guide, 48)
        arguments = {"model": tiny_media.vit(), "processing_class": tiny_media.image_processor(16)}
    data = with_own(raw).with_format(None)
    if kind == "augmented":
        data = data.with_transform(lambda batch: batch)
    if kind == "by hand":
        tokens = data.map(lambda batch: dict(runs.tiny.tokenizer()(batch["text"])), batched=True)
        data = tokens.map(guide, batched=True).remove_columns("text")
    args = runs.config(tmp_path, num_subclasses=1, num_train_epochs=1, max_steps=-1)
    teacher = None if kind == "by hand" else guide
    run = OwnTrainer(args=args, train_dataset=data, eval_dataset=raw, teacher_model=teacher, **arguments)
    run.train()
    assert len(run.seen) == 3 and {*torch.cat([labels for labels, _ in run.seen]).tolist()} == {0, 1}
    for labels, own in run.seen:
        assert own.dtype == torch.float32 and own.shape == (16, 2, 3)
        torch.testing.assert_close(own, labels.float()[:, None, None].expand(16, 2, 3))
    assert run.evaluate()["eval_loss"] > 0  # of rows without the column


def test_a_missing_column_of_one_s_own_is_named(tmp_path: Path) -> None:
    run = OwnTrainer(
        runs.student(),
        runs.config(tmp_path, num_subclasses=1),
        train_dataset=runs.data(),
        processing_class=runs.tiny.tokenizer(),
        teacher_model=runs.teacher(),
    )
    with pytest.raises(ValueError, match="A training batch has no sign_of_label"):
        run.train()
