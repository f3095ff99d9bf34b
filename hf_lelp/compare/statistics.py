"""Is one method better than another? Paired intervals over seeds and over examples."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000


def paired_difference(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> dict[str, Any]:
    """The difference in accuracy of two methods on the same seeds and examples, in points, with two intervals.

    They answer two questions. `over_seeds` (Student's t on the differences by seed): would it be there with other
    seeds, on these examples? `over_examples` (bootstrap of the examples, each with its mean over the seeds): would it
    be there on other examples, with these seeds? Would it be there with other seeds on other examples? The variances
    of the two add up, so a finding must be further from 0 than √(a² + b²), a and b being how far each interval goes
    towards 0.

    Args:
        ours: (R, N), whether each of R seeds answers each of N examples rightly.
        theirs: the same of the other method, seed by seed.

    Returns:
        `mean`, `over_seeds` (low, high; `None` for one seed, or no spread), `over_examples` (low, high), and
        `finding`: "better" or "worse" where the two together leave out 0, else "none" (so for one seed).
    """
    by_seed = 100 * (ours.mean(1) - theirs.mean(1))
    by_example = 100 * (ours.mean(0) - theirs.mean(0))
    over_seeds = None
    if len(by_seed) > 1:
        if stats.sem(by_seed) > 1e-9:  # differences that are all the same, by chance, would make it nothing
            low, high = stats.ttest_1samp(by_seed, 0).confidence_interval(CONFIDENCE)
            over_seeds = (float(low), float(high))
        elif not by_example.any():
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


def bootstrap_interval(values: NDArray[np.floating], seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean of `values`, (N,), by resampling them."""
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
