"""Rules that choose a method on validation rows, on scores of which it is known what each rule says."""

import numpy as np
import pytest

from benchmarks.evidence.criteria import SCORES, choose, regrets


def test_a_rule_keeps_its_prior_within_the_noise() -> None:
    kd, lelp = np.zeros(100), np.repeat([1.0, 0.0], [4, 96])
    # The difference has mean 0.04 and a standard error of 0.0196: ahead by two errors, not by three.
    assert [choose(np.stack([kd, lelp]), 0, errors) for errors in (0, 2, 3)] == [1, 1, 0]
    assert [choose(np.stack([lelp, kd]), 0, errors) for errors in (0, 3)] == [0, 0]
    assert [choose(np.stack([lelp, kd]), 1, errors) for errors in (0, 2, 3)] == [0, 0, 1]
    assert [choose(np.stack([kd, kd]), prior, 0) for prior in (0, 1)] == [0, 1]  # of equals the prior


def test_the_scores_of_a_row() -> None:
    logits, labels = np.array([[0.0, 0.0], [np.log(3.0), 0.0]]), np.array([0, 1])
    teacher = np.array([[0.0, 0.0], [0.0, np.log(4.0)]])
    assert SCORES["rows right"](logits, labels, teacher).tolist() == [1, 0]
    assert SCORES["cross-entropy, labels"](logits, labels, teacher) == pytest.approx(np.log([0.5, 0.25]))
    expected = [np.log(0.5), 0.2 * np.log(0.75) + 0.8 * np.log(0.25)]
    assert SCORES["cross-entropy, teacher"](logits, labels, teacher) == pytest.approx(expected)


def test_regret_is_what_the_best_in_hindsight_has_beyond() -> None:
    rng = np.random.default_rng(1)
    kd = (rng.random(6000) < 0.7).astype(float)
    lelp = np.maximum(kd, rng.random(6000) < 0.2)  # never wrong where the other is right
    found = regrets([dict.fromkeys(SCORES, np.stack([kd, lelp]))], size=2000, draws=3)
    gain = 100 * (lelp - kd).mean()
    assert found["KD always"] == pytest.approx([gain, 0], abs=0.5)
    assert found["LELP always"] == pytest.approx([0, gain], abs=0.5)
    assert found["KD unless rows right, 2 errors"] == found["LELP always"]
