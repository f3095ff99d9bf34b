"""The share of the subclasses that a student can tell: the figure, and a run on a tiny task."""

import numpy as np
import pytest
import tasks
import torch

from benchmarks.evidence import learnable
from benchmarks.evidence.learnable import share_of_information, shares


def random_targets(rows: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets, (rows, 2, 4), and what they say given the class."""
    logits = torch.randn(rows, 8, generator=torch.Generator().manual_seed(0)).mul(2)
    targets = logits.softmax(-1).unflatten(-1, (2, 4))
    return targets, targets / targets.sum(-1, keepdim=True)


def test_a_student_that_knows_all_or_nothing() -> None:
    targets, given_class = random_targets()
    assert share_of_information(targets, given_class.log()) == pytest.approx(1, abs=1e-5)
    usual = (targets.sum(0) / targets.sum((0, 2))[:, None]).log().expand_as(targets)
    assert share_of_information(targets, usual) == pytest.approx(0, abs=1e-5)
    assert share_of_information(targets, usual.flip(-1)) < 0


def test_the_share_is_of_the_divergence_from_the_usual_subclasses() -> None:
    targets, given_class = random_targets()
    log_q = torch.randn(targets.shape, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    left = whole = 0.0
    for c in range(2):
        weight, p = targets[:, c].sum(-1).numpy(), given_class[:, c].numpy()
        usual = np.average(p, axis=0, weights=weight)
        left += (weight[:, None] * p * (np.log(p) - log_q[:, c].numpy())).sum()
        whole += (weight[:, None] * p * np.log(p / usual)).sum()
    assert share_of_information(targets, log_q) == pytest.approx(1 - left / whole, rel=1e-4)


def test_rows_that_were_learned_are_known_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learnable, "HELD_BACK", 16)
    monkeypatch.setattr(learnable, "RECOMMENDED", "student_head=auxiliary,num_subclasses=2,max_steps=300")
    found = shares(tasks.task())
    assert found["new"] < found["known"] <= 1 and found["known"] > 0.1
    assert 0 <= found["accuracy"] <= 1
