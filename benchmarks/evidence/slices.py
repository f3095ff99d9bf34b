"""Does the slice that looks worst stay worst on new rows? Halves the rows of a run many times, and counts.

    python -m benchmarks.evidence.slices --config examples/demo.yaml

The options are those of `hf-lelp explore`, for a run whose students are saved. A slice is a pseudo-subclass of a class,
or a known group (`group_column`) of a class. One half of the evaluation rows chooses the worst slice of each model: the
one furthest below the mean of its class, of those with enough rows. The other half says what became of it.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lelp.cli.options import Program, configure_logging
from hf_lelp.config import LELPConfig
from hf_lelp.explore.explore import ExploreArguments, load_rows, students_of
from hf_lelp.explore.report import rightly_answered
from hf_lelp.explore.rows import Explored
from hf_lelp.explore.slices import find_slices
from hf_lelp.markdown import markdown_table

HALVINGS = 200
LEAST_ROWS = 20  # of a slice in either half


def gaps(slices: NDArray[np.integer], classes: NDArray[np.integer], right: NDArray[np.bool_]) -> NDArray[np.floating]:
    """How far each slice's accuracy is below the mean of its class; NaN where a slice has too few rows.

    Args:
        slices: number of each row's slice, (n,), among all slices of all classes.
        classes: class of each slice, (M,).
        right: (n,).
    """
    rows = np.bincount(slices, minlength=len(classes)).astype(float)
    hits = np.bincount(slices, weights=right, minlength=len(classes))
    means = np.array([hits[classes == own].sum() / rows[classes == own].sum() for own in classes])
    return np.where(rows >= LEAST_ROWS, means - hits / np.maximum(rows, 1), np.nan)


def halved(rows: Explored, within: NDArray[np.integer], right: NDArray[np.bool_], seed: int = 0) -> dict[str, float]:
    """Halve the rows many times.

    Returns:
        `again`, how often the slice that is worst on one half is worst on the other; `below`, how often it is below the
        mean of its class there; `chosen` and `new`, how far it is below on either half, in points, on average; and
        `chance`, of `again`, if any slice might be the worst.
    """
    generator = np.random.default_rng(seed)
    names, slices = np.unique(np.stack([rows.class_of, within]), axis=1, return_inverse=True)
    slices, classes = slices.ravel(), names[0]
    found = []
    for _ in range(HALVINGS):
        chooses = generator.permutation(len(rows)) < len(rows) / 2
        one, other = (gaps(slices[half], classes, right[half]) for half in (chooses, ~chooses))
        usable = ~np.isnan(one) & ~np.isnan(other)
        one, other = np.where(usable, one, -np.inf), np.where(usable, other, -np.inf)
        worst = one.argmax()
        found.append(
            (other.argmax() == worst, other[worst] > 0, 100 * one[worst], 100 * other[worst], 1 / usable.sum())
        )
    return dict(zip(("again", "below", "chosen", "new", "chance"), np.mean(found, axis=0).tolist(), strict=True))


def main(arguments: ExploreArguments, config: LELPConfig) -> dict[str, Any]:
    """Print a table of what became of the worst slices."""
    rows = load_rows(arguments, config, students_of(arguments, Path(config.output_dir or "out")))
    right, _ = rightly_answered(rows)
    kinds = {"subclass": rows.subclass_of}
    if rows.groups is not None:
        kinds[str(arguments.group_column)] = np.unique(np.asarray(rows.groups), return_inverse=True)[1]
    results: dict[str, Any] = {}
    body = []
    for kind, within in kinds.items():
        chooses = np.random.default_rng(config.seed).permutation(len(rows)) < len(rows) / 2
        slices = find_slices(within, rows.class_of, right, chooses)
        for name, answers in right.items():
            found = halved(rows, within, answers)
            named = [one["models"][name] for one in slices if one["models"][name]["worse"]]
            found |= {"named": len(named), "stay": sum(bool(one["stays"]) for one in named), "slices": len(slices)}
            results[f"{kind}, {name}"] = found
            shares = [f"{100 * found[key]:.0f}%" for key in ("again", "chance", "below")]
            points = [f"{found[key]:.1f}" for key in ("chosen", "new")]
            body.append([f"{kind}, {name}", *shares, *points, f"{found['named']} of {len(slices)}", str(found["stay"])])
    header = ["slices, model", "worst again", "by chance", "below its class", "points chosen", "points new"]
    print(markdown_table([*header, "named worse", "stay worse"], body))
    return results


PROGRAM = Program(main, (ExploreArguments, LELPConfig), "Does the worst slice stay worst on new rows?")

if __name__ == "__main__":
    configure_logging()
    PROGRAM.main(sys.argv[1:], "python -m benchmarks.evidence.slices")
