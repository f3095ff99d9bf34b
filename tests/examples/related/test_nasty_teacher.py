"""A teacher made to teach badly: its loss by hand, and that compare finds it out, right as its answers are."""

import copy
from pathlib import Path

import numpy as np
import torch
from reference import softmax

from examples.related.nasty_teacher import accuracy, compared, digits, mlp, nasty_loss, train
from hf_lelp.compare.report import below_labels_warning


def test_the_loss_equals_the_reference() -> None:
    logits, normal = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1])
    expected = []
    for z, other, label in zip(logits.numpy(), normal.numpy(), labels.tolist(), strict=True):
        p, q = softmax(z / 4), softmax(other / 4)
        expected.append(-np.log(softmax(z)[label]) - 0.3 * 16 * float((p * np.log(p / q)).sum()))
    np.testing.assert_allclose(nasty_loss(logits, labels, normal, 0.3, 4.0), np.mean(expected))


def test_compare_finds_it_out(tmp_path: Path) -> None:
    train_data, test_data = (data.select(range(200)) for data in digits())
    torch.manual_seed(0)
    normal = train(mlp(64), train_data, epochs=12)
    nasty = train(copy.deepcopy(normal), train_data, epochs=12, normal=normal, omega=0.5)
    assert accuracy(nasty, train_data) > 0.9  # its answers are right
    for name, data in (("train", train_data), ("test", test_data)):
        data.to_parquet(tmp_path / f"{name}.parquet")
    summary = compared(nasty, tmp_path, units=4, num_train_epochs=8, learning_rate=2e-2, per_device_train_batch_size=16)
    (warning,) = below_labels_warning(summary)
    assert "kd:temperature=4 by " in warning and warning in (tmp_path / "compared" / "comparison.md").read_text()
