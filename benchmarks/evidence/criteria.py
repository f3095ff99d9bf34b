"""Which rule should choose a method on validation rows? Measured as regret, on the runs of parts of the evidence.

    python -m benchmarks.evidence.criteria [PART ...] [--draws 200]

Runs that are not kept are trained first. Of each run's evaluation rows some are drawn to choose on, and the others
judge the choice. Regret is the accuracy that the best method in hindsight has beyond the chosen one's there.
The students were trained on all training rows. In a real search they are not, so what is measured is the rule alone.
"""

import argparse
import json
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from benchmarks.evidence.parts import CORE, KD_1, KD_4, LELP_WHITENED, PAPERS, PARTS, Part
from benchmarks.evidence.suite.store import CACHE
from benchmarks.places import RESULTS
from hf_lelp.compare.run import Run
from hf_lelp.compare.runs import run_all
from hf_lelp.data.columns import LOGITS_COLUMN
from hf_lelp.data.rows import column_values
from hf_lelp.storage.files import write_json
from hf_lelp.training.trials import is_ahead

SIZES = (400, 2000, 5000)
# What a search tries for each kind of student: plain distillation, and a form of LELP.
POOL = {"transfer": (KD_1, PAPERS), **dict.fromkeys(("mlp", "images", "related"), (KD_4, LELP_WHITENED))}
# The score of each row, (N,), from a run's logits, labels and the teacher's logits: the higher, the better.
SCORES: Mapping[str, Callable[..., NDArray[np.floating]]] = {
    "rows right": lambda logits, labels, teacher: (logits.argmax(-1) == labels).astype(float),
    "cross-entropy, labels": lambda logits, labels, teacher: log_softmax(logits, -1)[np.arange(len(labels)), labels],
    "cross-entropy, teacher": lambda logits, labels, teacher: (
        np.exp(log_softmax(teacher, -1)) * log_softmax(logits, -1)
    ).sum(-1),
}
ERRORS = (0.0, 1.0, 2.0)


def pairs_of(part: Part, pool: tuple[str, str], name: str) -> dict[str, list[dict[str, NDArray[np.floating]]]]:
    """Read the runs of a part's tasks, or do them: for each seed the scores of every row, (2, N), by criterion.

    Args:
        part: whose tasks and seeds are read.
        pool: the two methods, plain distillation first.
        name: of the part, which goes before the names of its tasks.
    """
    found: dict[str, list[dict[str, NDArray[np.floating]]]] = {}
    runs = run_all(part.tasks, [CORE[method] for method in pool], range(part.seeds), CACHE / "runs")
    for task, of_task in runs.items():
        evaluation = part.tasks[task]().evaluation.with_format("numpy")
        teacher = np.asarray(column_values(evaluation, LOGITS_COLUMN))
        by_seed: dict[int, list[Run]] = {}
        for run in of_task:
            by_seed.setdefault(run.seed, []).append(run)
        found[f"{name}: {task}"] = [
            {
                criterion: np.stack([score(run.logits.astype(float), run.labels, teacher) for run in of_seed])
                for criterion, score in SCORES.items()
            }
            for of_seed in by_seed.values()
        ]
    return found


def choose(scores: NDArray[np.floating], prior: int, errors: float) -> int:
    """Choose among two methods by the scores of n rows, (2, n): the prior, unless the other is ahead by so much.

    Args:
        scores: of both methods.
        prior: its index, 0 or 1.
        errors: standard errors of the paired difference that the other must be ahead by.
    """
    return 1 - prior if is_ahead(scores[1 - prior] - scores[prior], errors) else prior


def regrets(of_seeds: list[dict[str, NDArray[np.floating]]], size: int, draws: int) -> dict[str, list[float]]:
    """Mean regret of every rule in points, and its mean gain over plain distillation.

    Args:
        of_seeds: see `pairs_of`.
        size: rows to choose on.
        draws: of them, for each seed.
    """
    rng = np.random.default_rng(0)
    sums: dict[str, list[tuple[float, float]]] = {}
    for scores in of_seeds:
        right = scores["rows right"]
        for _ in range(draws):
            order = rng.permutation(right.shape[1])
            held_out, judges = order[:size], order[size:]
            accuracy = 100 * right[:, judges].mean(-1)
            for prior, start in enumerate(("KD", "LELP")):
                for criterion, values in scores.items():
                    for errors in ERRORS:
                        chosen = choose(values[:, held_out], prior, errors)
                        rule = f"{start} unless {criterion}, {errors:g} errors"
                        result = accuracy.max() - accuracy[chosen], accuracy[chosen] - accuracy[0]
                        sums.setdefault(rule, []).append(result)
                fixed = f"{start} always"
                sums.setdefault(fixed, []).append((accuracy.max() - accuracy[prior], accuracy[prior] - accuracy[0]))
    return {rule: np.mean(values, axis=0).round(4).tolist() for rule, values in sums.items()}


def main() -> None:
    """Read the parts named, and print and write the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.evidence.criteria",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(POOL)} (default: all of them)")
    parser.add_argument("--draws", type=int, default=200, help="of validation rows, for each run (default: 200)")
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in POOL]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(POOL)}")
    tasks: dict[str, list[dict[str, NDArray[np.floating]]]] = {}
    for name in options.parts or POOL:
        tasks |= pairs_of(PARTS[name], POOL[name], name)
    table = {task: {size: regrets(of_seeds, size, options.draws) for size in SIZES} for task, of_seeds in tasks.items()}
    write_json(RESULTS / "criteria.json", table)
    print(json.dumps(table, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
