"""Fitting class projections: against scikit-learn's IncrementalPCA and the exact answer.

    python -m benchmarks.speed.fit

For each class, the leading principal directions of its embeddings, float32 in Arrow, read in batches by both. The exact
answer is NumPy's singular value decomposition of each class's centred embeddings in float64. Our time includes reading,
and checking; the null-space projection is off, for answers that can be compared.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray
from scipy.linalg import subspace_angles
from sklearn.decomposition import IncrementalPCA

from benchmarks.places import RESULTS
from benchmarks.speed.common import gigaflops, in_turn, middle, peak_memory, ratio, write_result
from hf_lelp import ClassProjections
from hf_lelp.classifiers import LinearHead

# Rows, dimensions, classes, directions.
CASES = [(20_000, 384, 2, 8), (20_000, 768, 2, 8), (60_000, 768, 20, 8)]
LARGE = [(6_000, 4096, 2, 8)]
BATCH = 4096


def embeddings(rows: int, size: int, num_classes: int, folder: Path) -> tuple[Dataset, LinearHead]:
    """Clouds of slowly falling variance, one for each class, in an Arrow file."""
    rng = np.random.default_rng(0)
    spread = (1 + np.arange(size)) ** -0.5
    labels = rng.integers(0, num_classes, rows)
    content = (rng.normal(size=(num_classes, size))[labels] + rng.normal(size=(rows, size)) * spread).astype(np.float32)
    mixing = np.linalg.qr(rng.normal(size=(size, size)))[0].astype(np.float32)
    head = LinearHead(torch.from_numpy(rng.normal(size=(num_classes, size))).float(), torch.zeros(num_classes))
    width, classes = List(Value("float32"), length=size), List(Value("float32"), length=num_classes)
    made = Dataset.from_dict(
        {"teacher_embedding": content @ mixing, "teacher_logits": np.eye(num_classes)[labels], "label": labels},
        features=Features({"teacher_embedding": width, "teacher_logits": classes, "label": Value("int64")}),
    )
    made.save_to_disk(folder)
    return Dataset.load_from_disk(str(folder)), head


def incremental(dataset: Dataset, num_classes: int, directions: int) -> NDArray[np.float64]:
    """Directions, (C, K, D), by an IncrementalPCA a class."""
    pcas = [IncrementalPCA(directions) for _ in range(num_classes)]
    for batch in dataset.select_columns(["teacher_embedding", "label"]).with_format("numpy").iter(BATCH):
        for index, pca in enumerate(pcas):
            pca.partial_fit(np.asarray(batch["teacher_embedding"])[batch["label"] == index])
    return np.stack([pca.components_ for pca in pcas])


def exact(dataset: Dataset, num_classes: int, directions: int) -> NDArray[np.float64]:
    """Directions, (C, K, D), from all rows at once in float64."""
    columns = dataset.select_columns(["teacher_embedding", "label"]).with_format("numpy")[:]
    result = []
    for index in range(num_classes):
        rows = np.asarray(columns["teacher_embedding"][columns["label"] == index], dtype=np.float64)
        result.append(np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:directions])
    return np.stack(result)


def angle(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The largest principal angle between the classes' spaces of directions, radians."""
    return max(
        float(subspace_angles(a.T.astype(float), b.T.astype(float)).max()) for a, b in zip(one, other, strict=True)
    )


def measure(case: tuple[int, int, int, int], rounds: int, compare: bool, rate: float) -> dict[str, str | float]:
    """One row of the table; `compare` leaves out scikit-learn and the exact answer, which take minutes, if false."""
    rows, size, num_classes, directions = case
    with tempfile.TemporaryDirectory() as scratch:
        dataset, head = embeddings(rows, size, num_classes, Path(scratch) / "rows")

        def ours() -> ClassProjections:
            return ClassProjections.fit(dataset, head, directions, null_space=False, batch_size=BATCH)

        def theirs() -> NDArray[np.float64]:
            return incremental(dataset, num_classes, directions)

        jobs: dict[str, Callable[[], object]] = {"ours": ours} | ({"theirs": theirs} if compare else {})
        times = in_turn(jobs, rounds)
        found = ours().directions.numpy()
        reference = exact(dataset, num_classes, directions) if compare else None
        theirs_found = theirs() if compare else None
    row: dict[str, str | float] = {
        "rows": rows,
        "dimensions": size,
        "classes": num_classes,
        "ours, s": middle(times["ours"]).cpu,
        "floor, s": rows * size**2 / rate / 1e9,  # one triangle of the scatter matrices
        "scatter matrices, MB": num_classes * size**2 * 8 / 1e6,
    }
    if reference is None or theirs_found is None:
        return row | {"IncrementalPCA, s": "–", "times as fast": "–", "our angle": "–", "its angle": "–"}
    return row | {
        "IncrementalPCA, s": middle(times["theirs"]).cpu,
        "times as fast": ratio(times["theirs"], times["ours"]).cpu,
        "our angle": angle(found, reference),
        "its angle": angle(theirs_found, reference),
    }


def main(
    cases: list[tuple[int, int, int, int]] = CASES,
    large: list[tuple[int, int, int, int]] = LARGE,
    rounds: int = 3,
    folder: Path = RESULTS,
) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    rate = gigaflops(torch.float64)
    rows = [measure(case, rounds, True, rate) for case in cases] + [measure(case, 1, False, rate) for case in large]
    write_result("speed_fit", rows, folder, gigaflops=rate, rounds=rounds, peak_bytes=peak_memory())


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
