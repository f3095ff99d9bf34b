"""Weights of classes: the equation, their mean of 1, and that accumulation changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from datasets import Dataset

from hf_lelp import LELPConfig
from hf_lelp.data.class_weights import read_class_weights, weights_of_classes
from hf_lelp.losses import example_weights


def config(folder: Path, **settings: Any) -> LELPConfig:
    return runs.config(folder, **{"temperature": 2.0, **settings})


def rows(count: int = 60) -> Dataset:
    generator = np.random.default_rng(0)
    labels = [-100 if row % 5 == 0 else int(row % 10 == 1) for row in range(count)]
    return Dataset.from_dict({"teacher_logits": generator.normal(size=(count, 2)), "labels": labels})


@pytest.mark.parametrize("given", [["balanced"], [1.0, 7.0]])
def test_examples_weigh_one_on_average(given: Any, tmp_path: Path) -> None:
    data = rows()
    weights = weights_of_classes(config(tmp_path, class_weights=given), data, 2)
    assert weights is not None and weights.distillation is not None and weights.labels is not None
    p = (torch.tensor(data["teacher_logits"]) / 2).softmax(-1)
    assert example_weights(p, weights.distillation).mean().item() == pytest.approx(1, abs=1e-5)
    labels = torch.tensor(data["labels"])
    labels = labels[labels >= 0]
    of_labels = weights.labels[labels]
    assert of_labels.mean().item() == pytest.approx(1, abs=1e-5)
    ratio = 7.0 if given != ["balanced"] else (labels == 0).sum().item() / (labels == 1).sum().item()
    assert (weights.labels[1] / weights.labels[0]).item() == pytest.approx(ratio)
    assert (weights.distillation[1] / weights.distillation[0]).item() == pytest.approx(ratio)
    unweighted = p.double() @ torch.tensor([1.0, ratio], dtype=torch.float64)
    expected = unweighted / unweighted.mean()
    torch.testing.assert_close(example_weights(p, weights.distillation), expected.float(), atol=1e-5, rtol=0)


def test_without_labels_the_teacher_s_probabilities_are_balanced(tmp_path: Path) -> None:
    data = rows().remove_columns("labels")
    weights = weights_of_classes(config(tmp_path, class_weights="balanced"), data, 2)
    assert weights is not None and weights.labels is None and weights.distillation is not None
    share = (torch.tensor(data["teacher_logits"]) / 2).softmax(-1).mean(0)
    assert (weights.distillation[1] / weights.distillation[0]).item() == pytest.approx((share[0] / share[1]).item())


def test_accumulation_changes_nothing_and_the_weights_do(tmp_path: Path) -> None:
    def trained(name: str, **settings: Any) -> dict[str, torch.Tensor]:
        arguments = {"model": runs.student(dropout=False)}
        run = runs.trained(tmp_path / name, arguments=arguments, alpha=0.4, max_steps=2, **settings)
        return runs.weights(run.model)

    plain = trained("plain")
    weighted = trained("whole", class_weights=[1, 5])
    pieces = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    runs.assert_same(weighted, trained("pieces", class_weights=[1, 5], **pieces), tolerance=1e-5)
    assert any((plain[name] - weighted[name]).abs().max() > 1e-4 for name in plain)
    runs.assert_same(plain, trained("alike", class_weights=[3, 3]), tolerance=1e-6)


def test_settings(tmp_path: Path) -> None:
    assert read_class_weights(config(tmp_path, class_weights="none").class_weights) is None
    assert read_class_weights(config(tmp_path, class_weights=["1", "2.5"]).class_weights) == [1.0, 2.5]
    for wrong in ("heavy", [1.0], [0, 1], ["a", "b"], [1, float("inf")]):
        with pytest.raises(ValueError, match=r"class_weights=.*: 'none', 'balanced' or a positive number for each"):
            runs.trainer(config(tmp_path, class_weights=wrong))
    with pytest.raises(ValueError, match=r"class_weights=\[1.0, 2.0, 3.0\]: the data has 2 classes, one weight each"):
        runs.trainer(config(tmp_path, class_weights=[1, 2, 3]))
    with pytest.raises(ValueError, match="divides by the share of each class, and a class has no training row"):
        weights_of_classes(config(tmp_path, class_weights="balanced"), rows(), 3)
    with pytest.raises(ValueError, match=r"class_weights are scaled over all training rows, and these are a Iterable"):
        weights_of_classes(config(tmp_path, class_weights="balanced"), rows().to_iterable_dataset(), 2)


def test_the_card_names_them(tmp_path: Path) -> None:
    run = runs.trainer(config(tmp_path, class_weights="balanced"))
    assert run.student_card().settings["class weights, w"] == "balanced"
