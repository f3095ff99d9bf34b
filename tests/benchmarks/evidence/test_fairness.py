"""Methods that choose their form, on rows of which it is known which form is right."""

import numpy as np
import pytest

from benchmarks.evidence.fairness import chosen_accuracies, summary
from benchmarks.evidence.parts import FAMILIES, PARTS


def _right(shares: list[float], seeds: int = 2, rows: int = 4000) -> np.ndarray:
    """Rows that forms answer correctly, in these shares of them."""
    return np.random.default_rng(1).random((seeds, len(shares), rows)) < np.array(shares)[:, None]


def test_the_form_is_chosen_that_has_most_rows_right() -> None:
    assert chosen_accuracies(_right([0.5, 0.8, 0.6]), size=1000, draws=5) == pytest.approx([80, 80], abs=2)


def test_each_seed_chooses_for_itself() -> None:
    right = _right([0.5, 0.9])
    right[1] = right[1, ::-1]
    assert chosen_accuracies(right, size=1000, draws=5) == pytest.approx([90, 90], abs=2)


def test_rows_that_choose_do_not_judge() -> None:
    # Three forms that guess: the best of them on ten rows is no better on the others.
    accuracies = chosen_accuracies(_right([0.5] * 3, rows=2000), size=10, draws=50)
    assert accuracies == pytest.approx([50, 50], abs=2)


def test_the_gain_is_over_plain_distillation_with_its_form_chosen() -> None:
    kd = _right([0.6, 0.7], seeds=3)
    better = kd | (np.random.default_rng(2).random(kd.shape) < 0.2)
    found = summary({"KD": kd, "other": better}, size=1000, draws=5)
    assert found["KD"]["gain"] == 0 and found["KD"]["gains"] == [0, 0, 0] and found["KD"]["over_seeds"] is None
    assert found["other"]["gain"] == pytest.approx(0.2 * 30, abs=1.5)
    low, high = found["other"]["over_seeds"]
    assert low < found["other"]["gain"] < high
    assert found["other"]["gain"] == pytest.approx(np.mean(found["other"]["gains"]), abs=1e-3)


def test_every_method_has_as_many_forms_to_choose_from() -> None:
    assert {len(forms) for forms in FAMILIES.values()} == {3}
    assert {name: method for forms in FAMILIES.values() for name, method in forms.items()} == PARTS["weights"].methods
