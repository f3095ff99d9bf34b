"""Which method is best when each may choose its weight? Measured on the runs of a part of the evidence.

    python -m benchmarks.evidence.fairness [--draws 200]

Each method has three forms (`parts.FAMILIES`). Of the evaluation rows some are drawn to choose a form on, for each seed
anew, and the others judge it. So every method is searched alike, and judged on rows that chose nothing.
The students were trained on all training rows. In a real search they are not.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence.parts import FAMILIES, PARTS
from benchmarks.evidence.suite.store import CACHE
from benchmarks.places import RESULTS
from hf_lelp.compare.runs import run_all
from hf_lelp.compare.statistics import pooled_intervals
from hf_lelp.storage.files import write_json

PART = "weights"
SIZE = 2000  # rows to choose on
REFERENCE = "KD"


def chosen_accuracies(right: NDArray[np.bool_], size: int, draws: int) -> NDArray[np.floating]:
    """Mean accuracy of the form that some rows choose, on the other rows, in points, by seed: (R,).

    Args:
        right: whether each form of a method answers each row correctly, by seed: (R, forms, N). Of equals the first
            form is chosen.
        size: rows to choose on.
        draws: of them, the same for all methods.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        order = rng.permutation(right.shape[-1])
        best = right[..., order[:size]].mean(-1).argmax(-1)
        found.append(100 * right[np.arange(len(right)), best][:, order[size:]].mean(-1))
    return np.mean(found, axis=0)


def summary(right: Mapping[str, NDArray[np.bool_]], size: int, draws: int) -> dict[str, dict[str, Any]]:
    """Accuracy of each method with its form chosen, and its gain over plain distillation, 95% over seeds.

    Args:
        right: of each method, see `chosen_accuracies`.
        size: rows to choose on.
        draws: of them.
    """
    accuracies = np.stack([chosen_accuracies(of_method, size, draws) for of_method in right.values()])
    reference = list(right).index(REFERENCE)
    gains = accuracies - accuracies[reference]
    intervals, _ = pooled_intervals(accuracies, reference)
    return {
        name: {
            "accuracy": round(float(of_seeds.mean()), 4),
            "gain": round(float(gain.mean()), 4),
            "over_seeds": None if name == REFERENCE else [round(bound, 4) for bound in interval],
            "gains": gain.round(4).tolist(),
        }
        for name, of_seeds, gain, interval in zip(right, accuracies, gains, intervals, strict=True)
    }


def main() -> None:
    """Read or do the runs, print and write the table of every task."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.evidence.fairness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--draws", type=int, default=200, help="of rows to choose on (default: 200)")
    draws = parser.parse_args().draws
    part = PARTS[PART]
    runs = run_all(part.tasks, list(part.methods.values()), range(part.seeds), CACHE / "runs")
    tables = {}
    for task, of_task in runs.items():
        right = {(run.method, run.seed): run.logits.argmax(-1) == run.labels for run in of_task}
        of_forms = {
            family: np.stack([[right[method, seed] for method in forms.values()] for seed in range(part.seeds)])
            for family, forms in FAMILIES.items()
        }
        tables[task] = summary(of_forms, SIZE, draws)
    write_json(RESULTS / "fairness.json", tables)
    print(json.dumps(tables, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
