"""What a fit on a sample of the rows (`fit_rows`) changes: `python -m benchmarks.speed.sampled_fit`.

The demo's teacher over its 18,639 training texts (VADER): 2 classes, 384 dimensions; the pass is kept. Directions
fitted on samples are compared with those fitted on all rows. *angle*: the largest principal angle between the two
spaces of a class, the worst class's. *mean angle*: of all of them. *targets*: by how much the targets of all rows
change, as total variation, at τ = β = 1 and the same rotation. For scale: the same directions, rotated with another
seed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy.linalg import subspace_angles

from benchmarks.places import RESULTS
from benchmarks.speed.common import targets, total_variation, write_result
from examples.vader import build_demo, load_split
from hf_lelp import ClassProjections, Teacher
from hf_lelp.classifiers import LinearHead
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.training.sampled_fit import fitted_rows

SAMPLES, DIRECTIONS = (500, 1000, 2000, 5000, 10000), (8, 32)
KEY_BYTES = 16


def bytes_a_row(num_classes: int, size: int, num_directions: int) -> dict[str, int]:
    """Disk of a row in float32: with its embedding and projections, and with projections alone."""
    logits, projections = 4 * num_classes, 4 * num_classes * num_directions
    return {
        "bytes a row, all": logits + 4 * size + KEY_BYTES + projections,
        "bytes a row, fit_rows": logits + KEY_BYTES + projections,
    }


def angles(one: ClassProjections, other: ClassProjections) -> NDArray[np.float64]:
    """Principal angles between the directions of each class, (C, K), radians."""
    pairs = zip(one.directions.double().numpy(), other.directions.double().numpy(), strict=True)
    return np.stack([subspace_angles(a.T, b.T) for a, b in pairs])


def main(
    columns: Dataset | None = None,
    head: LinearHead | None = None,
    samples: Sequence[int] = SAMPLES,
    directions: Sequence[int] = DIRECTIONS,
    folder: Path = RESULTS,
) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    if columns is None or head is None:
        demo = build_demo()
        teacher, texts = Teacher.from_pretrained(demo / "teacher"), load_split(demo / "train.parquet")
        columns = teacher_columns(texts, teacher).add_column("labels", np.array(texts["label"]))
        head = teacher.head
    num_classes, size = head.weight.shape
    found: list[dict[str, str | float]] = []
    for count in directions:
        whole = ClassProjections.fit(columns, head, count)
        expected = targets(columns, whole)

        def line(rows: str | int, angle: float | str, mean: float | str, made: torch.Tensor) -> None:
            changed = total_variation(made, expected)  # noqa: B023  # called within the loop
            found.append(
                {
                    "directions": count,  # noqa: B023
                    "fit on": rows,
                    "angle": angle,
                    "mean angle": mean,
                    "targets, mean": changed.mean().item(),
                    "targets, 99 of 100 rows": changed.quantile(0.99).item(),
                    **bytes_a_row(num_classes, size, count),  # noqa: B023
                }
            )

        for rows in samples:
            sample = fitted_rows(len(columns), rows)
            assert sample is not None
            fitted = ClassProjections.fit(columns.select(sample), head, count)
            apart = angles(fitted, whole)
            line(rows, float(apart.max()), float(apart.mean()), targets(columns, fitted))
        line("all, another rotation", "–", "–", targets(columns, whole, seed=1))
    write_result("speed_sampled_fit", found, folder, rows_of_all=len(columns))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
