"""Fits on a sample of the rows, and keeps of all rows what training reads: logits and projections, no embeddings.

The projections lie beside the columns that they made, in a folder with their fingerprint for a name. There another run
of the same rows finds both, whatever machine or seed it has.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from numpy.typing import NDArray

from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.data.rows import column_values
from hf_lelp.projections.cache import fit_projections, whole_projections
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.storage.files import read_json, write_json
from hf_lelp.storage.shards import open_shards
from hf_lelp.teacher.columns import run_teacher, shard_names, teacher_columns, teacher_folder
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.rows_once import Kept

logger = logging.getLogger(__name__)

FIT_NAME = "fit.json"  # beside projections: what they were fitted on, and how many directions were asked for
SAMPLE_SEED = 0  # not the run's: students of several seeds share one fit and one pass


def fitted_rows(rows: int, fit_rows: int | None) -> NDArray[np.int64] | None:
    """Draw the rows to fit on, (fit_rows,), in their order; `None` is all of `rows` rows."""
    if fit_rows is None or fit_rows >= rows:
        return None
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(rows, fit_rows, replace=False))


def sampled_columns(
    dataset: Dataset,
    teacher: TeacherLike,
    labels: NDArray[np.int64] | None,
    args: LELPConfig,
    projections: ClassProjections | None,
) -> tuple[Dataset, ClassProjections]:
    """Fit on `args.fit_rows` rows, run the teacher over all, and project each row as it comes.

    Args:
        dataset: N rows, more than `args.fit_rows`.
        teacher: the classifier.
        labels: class indices, (N,), −100 for none; `None` where no row has one.
        args: settings of the run.
        projections: fitted before, to use instead of fitting.

    Returns:
        `teacher_logits`, (C,), and `teacher_projections`, (C, K), of N rows, and what made the latter.

    Raises:
        ValueError: if a class has too few rows in the sample; or if all rows are kept without embeddings, and other
            projections are wanted than those that they have.
    """
    whole = teacher_folder(teacher, args.columns_cache_dir, args.columns_dtype)
    root = whole.parent.with_name("projected_rows") / whole.name
    names = shard_names(dataset, teacher)
    sample = fitted_rows(len(dataset), args.fit_rows)
    assert sample is not None
    of_sample = None if labels is None else labels[sample]
    record = {
        "fit_rows": len(sample),
        "asked": args.directions,
        "null_space": args.null_space,
        "sample": _hash_of(shard_names(dataset.select(sample), teacher), of_sample),
    }
    # One process decides for all, as in `fit_projections`.
    found = projections.fingerprint if projections is not None else _find(root, record, args.fewest_directions)
    found, others = broadcast_object_list([found, _folders_with(root, names)])
    if others and found not in [folder.name for folder in others] and not _all_there(whole, names):
        _refuse(others[0], "other projections" if projections is not None else _wanted(others[0], record))
    if projections is None and found is not None:
        projections = whole_projections(root / found)
    if projections is None:
        projections = _fit(dataset.select(sample), teacher, of_sample, args)
    folder = root / projections.fingerprint
    if PartialState().is_main_process and whole_projections(folder) is None:
        projections.save_pretrained(folder)
        write_json(folder / FIT_NAME, record)
    num_classes, num_directions = projections.num_classes, projections.num_directions
    shapes = {LOGITS_COLUMN: (num_classes,), PROJECTIONS_COLUMN: (num_classes, num_directions)}
    made = projections
    kept = Kept(folder, shapes, lambda columns: {**columns, **made(columns)})
    files = run_teacher(dataset, teacher, args.columns_cache_dir, dtype=args.columns_dtype, kept=kept)
    return open_shards(files), projections


def _fit(sample: Dataset, teacher: TeacherLike, labels: NDArray[np.int64] | None, args: LELPConfig) -> ClassProjections:
    """Fit on the rows of the sample, whose embeddings are kept."""
    num_classes = len(teacher.head.weight)
    if labels is not None and (labels != NO_LABEL).all():  # otherwise only the teacher knows
        _check_counts(labels, num_classes, args)
    columns = teacher_columns(sample, teacher, args.columns_cache_dir, dtype=args.columns_dtype)
    classes = column_values(columns.with_format("numpy"), LOGITS_COLUMN).argmax(-1)
    _check_counts(classes if labels is None else np.where(labels == NO_LABEL, classes, labels), num_classes, args)
    return fit_projections(
        columns,
        labels,
        teacher.head,
        args.directions,
        at_least=args.fewest_directions,
        null_space=args.null_space,
        cache_dir=args.columns_cache_dir,
    )


def _check_counts(classes: NDArray[np.int64], num_classes: int, args: LELPConfig) -> None:
    counts = np.bincount(classes, minlength=num_classes)
    fewest = int(counts.argmin())
    if counts[fewest] <= args.fewest_directions:
        raise ValueError(
            f"fit_rows={args.fit_rows}: {counts[fewest]} of these rows are of class {fewest}, and"
            f" {args.fewest_directions} directions need at least {args.fewest_directions + 1}. Raise fit_rows, or leave"
            " it out."
        )


def _find(root: Path, record: dict[str, Any], at_least: int) -> str | None:
    """Return the fingerprint of projections that were fitted on this sample, with directions enough."""
    matches = []
    for folder in sorted(root.glob("[!.]*")):
        projections = whole_projections(folder)
        fit = _fit_of(folder)
        if projections is None or {**fit, "asked": 0} != {**record, "asked": 0}:
            continue
        found = projections.num_directions
        if found >= record["asked"] or (fit["asked"] >= record["asked"] and found >= at_least):
            matches.append((fit["asked"], folder.name))
    return min(matches)[1] if matches else None


def _fit_of(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / FIT_NAME)
    except (FileNotFoundError, ValueError):
        return {}


def _hash_of(names: list[str], labels: NDArray[np.int64] | None) -> str:
    digest = xxhash.xxh3_128(" ".join(names).encode())
    if labels is not None:
        digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()


def _all_there(folder: Path, names: list[str]) -> bool:
    return all((folder / name).exists() for name in names)


def _folders_with(root: Path, names: list[str]) -> list[Path]:
    """Return the folders that have columns of all rows."""
    return [folder for folder in sorted(root.glob("[!.]*")) if _all_there(folder, names)]


def _wanted(folder: Path, record: dict[str, Any]) -> str:
    """Name the settings that differ from those of the projections that there are."""
    fit = _fit_of(folder)
    words = {"fit_rows": "fit_rows", "asked": "num_directions", "null_space": "null_space"}
    differ = [f"{word}={record[name]}" for name, word in words.items() if fit.get(name) != record[name]]
    return ", ".join(differ) or "a fit with other labels or rows"


def _refuse(folder: Path, wanted: str) -> None:
    projections = whole_projections(folder)
    made = "damaged projections" if projections is None else f"{projections.num_directions} directions a class"
    raise ValueError(
        f"{wanted} needs embeddings, and fit_rows kept none of these rows: {folder} holds their logits, and projections"
        f" on {made} (null_space={projections and projections.null_space},"
        f" fit_rows={_fit_of(folder).get('fit_rows')}). Use these settings, or pass"
        " projections=ClassProjections.from_pretrained(that folder). Another columns_cache_dir runs the teacher again."
    )
