"""Tests whether one method is better than another, by paired intervals over seeds and over examples."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000


def paired_difference(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], over_seeds: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Compute the difference in accuracy of two methods on the same seeds and examples, in points, with two intervals.

    The intervals answer two questions. `over_seeds` (Student's t on the differences by seed): would the difference be
    there with other seeds, on these examples? `over_examples` (bootstrap of the examples, each with its mean over the
    seeds): would it be there on other examples, with these seeds?

    A finding must hold with other seeds on other examples. Both variances then add up, so its mean must be further
    from 0 than √(a² + b²): a and b are how far each interval reaches from the mean towards 0.

    Args:
        ours: (R, N), whether each of R seeds answers each of N examples correctly.
        theirs: the same of the other method, seed by seed.
        over_seeds: an interval that is known already, from `pooled_intervals`.

    Returns:
        `mean`, `over_seeds` (low, high; `None` for one seed, or no spread), `over_examples` (low, high), and
        `finding`: "better" or "worse" if the two together exclude 0, else "none", as for one seed.
    """
    by_seed = 100 * (ours.mean(1) - theirs.mean(1))
    by_example = 100 * (ours.mean(0) - theirs.mean(0))
    if over_seeds is None:
        over_seeds = interval_over_seeds(by_seed)
        if over_seeds is None and len(by_seed) > 1 and not by_example.any():
            over_seeds = (0.0, 0.0)
    over_examples = bootstrap_interval(by_example)
    mean = float(by_seed.mean())
    finding = "none"
    if over_seeds is not None:
        low, high = zip(over_seeds, over_examples, strict=True)
        if mean > math.hypot(*(mean - bound for bound in low)):
            finding = "better"
        elif -mean > math.hypot(*(bound - mean for bound in high)):
            finding = "worse"
    return {
        "mean": mean,
        "over_seeds": over_seeds,
        "over_examples": over_examples,
        "finding": finding,
    }


def interval_over_seeds(differences: NDArray[np.floating]) -> tuple[float, float] | None:
    """Compute the 95% interval of the mean of differences by seed, (R,): Student's t; `None` for one, or no spread."""
    if len(differences) < 2 or stats.sem(differences) <= 1e-9:  # equal ones, by chance, would give one of no width
        return None
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def pooled_intervals(accuracies: NDArray[np.floating], reference: int) -> tuple[list[tuple[float, float]], int]:
    """Compute 95% intervals over seeds of the differences to a reference, with one variance for all methods.

    With two seeds a method's own variance has one degree of freedom, and its interval is of no use. In the table of
    methods by seeds, what is left after the means of both is the seeds' effect on a difference (randomised blocks). Its
    variance has (M − 1)(R − 1) degrees of freedom.

    Args:
        accuracies: (M, R), in points, by method and seed.
        reference: which method the others are compared to.

    Returns:
        Low and high of each method's difference, M of them, and the degrees of freedom.
    """
    methods, seeds = accuracies.shape
    means = accuracies.mean(1, keepdims=True)
    left = accuracies - means - accuracies.mean(0) + accuracies.mean()
    freedom = (methods - 1) * (seeds - 1)
    error = math.sqrt(2 * float((left**2).sum()) / freedom / seeds)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    differences = (means - means[reference]).ravel().tolist()
    return [(difference - half, difference + half) for difference in differences], freedom


def bootstrap_interval(values: NDArray[np.floating], seed: int = 0) -> tuple[float, float]:
    """Compute the 95% percentile interval of the mean of `values`, (N,), by resampling them."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
