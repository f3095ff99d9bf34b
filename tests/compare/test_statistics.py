"""The paired intervals: against formulas worked out by hand, against scipy, and by how often they hold the truth."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from hf_lelp.compare.statistics import bootstrap_interval, paired_difference, pooled_intervals

Answers = NDArray[np.bool_]


def answers(seeds: int, rows: int, accuracy: float, seed: int = 0) -> Answers:
    return np.random.default_rng(seed).random((seeds, rows)) < accuracy


def test_the_interval_over_seeds_is_student_s_on_the_differences() -> None:
    ours, theirs = answers(4, 500, 0.8, 1), answers(4, 500, 0.7, 2)
    result = paired_difference(ours, theirs)
    by_seed = [100 * (np.mean(one) - np.mean(other)) for one, other in zip(ours, theirs, strict=True)]
    mean = sum(by_seed) / 4
    spread = (sum((value - mean) ** 2 for value in by_seed) / 3) ** 0.5
    half = 3.182446305 * spread / 2  # the 97.5% point of t with three degrees of freedom
    assert result["mean"] == pytest.approx(mean)
    assert result["over_seeds"] == pytest.approx((mean - half, mean + half))
    expected = stats.ttest_rel(ours.mean(1), theirs.mean(1)).confidence_interval(0.95)
    assert result["over_seeds"] == pytest.approx((100 * expected.low, 100 * expected.high))


def test_the_interval_over_examples_is_the_bootstrap_s() -> None:
    ours, theirs = answers(3, 400, 0.8, 1), answers(3, 400, 0.7, 2)
    low, high = paired_difference(ours, theirs)["over_examples"]
    by_example = 100 * (ours.mean(0) - theirs.mean(0))
    # Resampled by hand, with another generator; and what the central limit says of it.
    generator = np.random.default_rng(123)
    means = by_example[generator.integers(400, size=(4000, 400))].mean(1)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.4)
    error = 1.96 * by_example.std(ddof=1) / 20
    assert (low, high) == pytest.approx((by_example.mean() - error, by_example.mean() + error), abs=0.4)
    assert high - low > 4  # points: an interval in shares would be a hundred times narrower


def test_pairing_makes_the_interval_narrower() -> None:
    theirs = answers(3, 1000, 0.7)
    ours = theirs.copy()
    ours[:, :20] = True
    same_examples = paired_difference(ours, theirs)
    other_examples = paired_difference(np.roll(ours, 500, axis=1), theirs)
    assert same_examples["mean"] == pytest.approx(other_examples["mean"])
    widths = [high - low for low, high in (same_examples["over_examples"], other_examples["over_examples"])]
    assert widths[0] < widths[1] / 3
    # Nor may the seeds of the two be mixed up.
    ours, theirs = answers(2, 1000, 0.7, 1), answers(2, 1000, 0.7, 2)
    ours[1], theirs[1] = ours[1] | (np.arange(1000) < 300), theirs[1] | (np.arange(1000) < 300)
    paired, crossed = paired_difference(ours, theirs)["over_seeds"], paired_difference(ours, theirs[::-1])["over_seeds"]
    assert paired[1] - paired[0] < (crossed[1] - crossed[0]) / 3


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    over_seeds = over_examples = false_findings = 0
    for _ in range(200):
        # Over seeds: each seed's accuracies vary about the truth, and their difference is 2 points on average.
        accuracy = 0.7 + 0.02 * generator.normal(size=(5, 1))
        ours = generator.random((5, 400)) < accuracy + 0.02 + 0.01 * generator.normal(size=(5, 1))
        low, high = paired_difference(ours, generator.random((5, 400)) < accuracy)["over_seeds"]
        over_seeds += low <= 2 <= high
        # Over examples: each has a chance of its own to be answered rightly; theirs is lower by 5 points.
        chance = generator.uniform(0.1, 0.9, size=400)
        ours, theirs = (generator.random((3, 400)) < chance - drop for drop in (0, 0.05))
        low, high = paired_difference(ours, theirs)["over_examples"]
        over_examples += low <= 5 <= high
        # And where there is no difference few findings are made, though seeds differ, and each method has examples that
        # lie to it.
        ours, theirs = (
            generator.random((5, 400))
            < chance + 0.015 * generator.normal(size=(5, 1)) + 0.15 * generator.normal(size=(1, 400))
            for _ in range(2)
        )
        false_findings += paired_difference(ours, theirs)["finding"] != "none"
    assert 0.90 <= over_seeds / 200 <= 0.99
    assert 0.90 <= over_examples / 200 <= 0.99
    assert false_findings / 200 <= 0.05


def test_a_finding_needs_both_intervals() -> None:
    # Nearly the same gain of each seed, on most of the examples.
    worse = np.zeros((3, 100), dtype=bool)
    better = worse.copy()
    better[:, :50] = better[0, 50] = True
    assert paired_difference(better, worse)["finding"] == "better"
    assert paired_difference(worse, better)["finding"] == "worse"
    # On a few examples alone: every seed agrees, other examples might not.
    none = np.zeros((3, 1000), dtype=bool)
    few = none.copy()
    few[:, :2] = few[0, 2] = True
    result = paired_difference(few, none)
    assert result["over_seeds"][0] > 0 == result["over_examples"][0]
    assert result["finding"] == "none"
    # By one seed alone: the examples are many, another seed might not agree.
    lucky = worse.copy()
    lucky[0, :50] = True
    result = paired_difference(lucky, worse)
    assert result["over_examples"][0] > 0 > result["over_seeds"][0]
    assert result["finding"] == "none"


def test_one_seed_is_no_finding() -> None:
    better, worse = np.ones((1, 100), dtype=bool), answers(1, 100, 0.3)
    result = paired_difference(better, worse)
    assert result["over_seeds"] is None and result["over_examples"][0] > 50
    assert result["finding"] == "none" and paired_difference(worse, better)["finding"] == "none"


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_same_answers_differ_by_nothing(seeds: int) -> None:
    same = answers(seeds, 100, 0.8)
    result = paired_difference(same, same)
    assert result["mean"] == 0 and result["over_examples"] == (0, 0) and result["finding"] == "none"
    assert result["over_seeds"] == ((0, 0) if seeds > 1 else None)


def test_differences_that_happen_to_be_the_same_are_no_finding() -> None:
    # Two seeds with the same gain, by chance: Student's interval would have no width.
    worse = np.zeros((2, 100), dtype=bool)
    better = worse.copy()
    better[:, :50] = True
    for ours, theirs, mean in ((better, worse, 50), (worse, better, -50)):
        result = paired_difference(ours, theirs)
        assert result["mean"] == mean and result["over_seeds"] is None and result["finding"] == "none"


def test_exchanging_the_two_turns_the_sign() -> None:
    ours, theirs = answers(3, 300, 0.75, 1), answers(3, 300, 0.7, 2)
    one, other = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert one["mean"] == pytest.approx(-other["mean"])
    assert one["over_seeds"] == pytest.approx([-value for value in other["over_seeds"][::-1]])
    assert one["over_examples"] == pytest.approx([-value for value in other["over_examples"][::-1]], abs=0.5)


def test_the_bootstrap_is_the_same_every_time() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values) == bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    assert bootstrap_interval(np.full(5, 2.5)) == (2.5, 2.5)


def test_two_methods_pooled_are_the_paired_test() -> None:
    ours, theirs = answers(2, 500, 0.8, 1), answers(2, 500, 0.7, 2)
    (_, interval), freedom = pooled_intervals(100 * np.array([theirs.mean(1), ours.mean(1)]), 0)
    assert freedom == 1 and interval == pytest.approx(paired_difference(ours, theirs)["over_seeds"])
    assert paired_difference(ours, theirs, (1.0, 2.0))["over_seeds"] == (1.0, 2.0)


def test_pooled_intervals_by_hand_and_as_often_right_as_they_say() -> None:
    # Residuals of the two-way table are ±0.5, 0 and ∓0.5: the sum of squares is 1, over (3 − 1)(2 − 1) = 2.
    intervals, freedom = pooled_intervals(np.array([[60.0, 62], [63, 64], [70, 70]]), 1)
    half = 4.302652730 * (2 * 0.5 / 2) ** 0.5  # the 97.5% point of t with two degrees of freedom
    assert freedom == 2 and intervals[0] == pytest.approx((-2.5 - half, -2.5 + half))
    generator = np.random.default_rng(0)
    truth, held = np.array([0.0, 1, 2, 3]), 0
    for _ in range(1000):
        accuracies = truth[:, None] + 5 * generator.normal(size=2) + generator.normal(size=(4, 2))
        low, high = pooled_intervals(accuracies, 0)[0][3]
        held += low <= 3 <= high
    assert 0.93 < held / 1000 < 0.97
