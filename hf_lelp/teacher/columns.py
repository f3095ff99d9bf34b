"""The teacher's columns of a dataset: run once, kept, fitted and projected.

The pass is cut into shards of rows (`hf_lelp.storage.shards`). A shard's file is named by what its content depends on, the
teacher and the rows. So a second run finds every shard, a killed run goes on where it stopped, another dataset with the
same rows shares them, and several processes or machines share the work; the result is the same.
"""

import logging
import math
import tempfile
from pathlib import Path

import datasets
import numpy as np
import torch
import xxhash
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list
from datasets import Dataset
from numpy.typing import NDArray

from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.principal_directions import Moments
from hf_lelp.storage.files import remove_leftovers
from hf_lelp.storage.shards import content_hash, cut, fill, mapped_anew, media, open_shards
from hf_lelp.teacher.protocol import TeacherLike

logger = logging.getLogger(__name__)

SHARD_ROWS = 2048
MOST_SHARDS = 256  # of a dataset: datasets takes milliseconds for each file in every operation
MOST_SHARD_ROWS = 8 * SHARD_ROWS  # or a killed pass would lose too much
DECODED_ROWS = 256  # images or sounds in memory at once
PROJECTED_ROWS = 16 * SHARD_ROWS  # of a file
PROJECTED_BATCH = 1024  # projected at once


def default_cache_dir() -> Path:
    """`hf_lelp` in the cache folder of datasets."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_lelp"


def teacher_folder(teacher: TeacherLike, cache_dir: str | Path | None = None, dtype: str = "float32") -> Path:
    """Where the shards of a teacher are kept: its fingerprint, and their data type where it is not float32."""
    suffix = "" if dtype == "float32" else f"-{dtype}"
    return Path(cache_dir or default_cache_dir()) / "teacher" / f"{teacher.fingerprint}{suffix}"


def teacher_columns(
    dataset: Dataset,
    teacher: TeacherLike,
    cache_dir: str | Path | None = None,
    *,
    dtype: str = "float32",
) -> Dataset:
    """Run the teacher over every row that it has not seen yet.

    In several processes (`accelerate launch`) each takes every n-th shard, and all return the whole; `cache_dir` must
    be a folder that all of them see. For machines that share no folder see `hf_lelp.teacher_pass`.

    Args:
        dataset: with the teacher's input columns, N rows.
        teacher: the classifier.
        cache_dir: where the shards are kept; `None` is `default_cache_dir()`.
        dtype: of the columns: "float32", or "float16", which takes half the space.

    Returns:
        N rows in the dataset's order with the columns `teacher_logits`, (C,), and `teacher_embedding`, (D,).

    Raises:
        ValueError: if the dataset has no rows or lacks an input column; or a value is too large for float16.
    """
    return open_shards(run_teacher(dataset, teacher, cache_dir, dtype=dtype))


def shard_names(dataset: Dataset, teacher: TeacherLike) -> list[str]:
    """Names of the shards that hold the columns of a dataset's rows, in the rows' order.

    Raises:
        ValueError: if the dataset has no rows or lacks an input column, or a row cannot be read.
    """
    return _names(_parts(dataset, teacher))


def run_teacher(
    dataset: Dataset,
    teacher: TeacherLike,
    cache_dir: str | Path | None = None,
    *,
    dtype: str = "float32",
    share: tuple[int, int] = (0, 1),
) -> list[Path]:
    """The pass of `teacher_columns` alone.

    Args:
        dataset: see `teacher_columns`; and so for the next three.
        teacher: the classifier.
        cache_dir: where the shards are kept.
        dtype: of the columns.
        share: (i, n): every n-th shard from the i-th on, for one of n machines.

    Returns:
        The shards of all rows, in the rows' order; with n > 1 others than this share's may be missing.
    """
    parts = _parts(dataset, teacher)
    folder = teacher_folder(teacher, cache_dir, dtype)
    files = [folder / name for name in _names(parts)]

    def run(place: int) -> dict[str, NDArray]:
        try:
            return _run_part(parts[place], teacher, dtype)
        except Exception as error:
            rows, reason = _fault(error, parts[place], place * shard_rows(len(dataset)), teacher)
            if reason is None:
                raise
            raise ValueError(f"{rows} of the dataset: {reason}") from error

    rows = fill(files, run, [len(part) for part in parts], description="Running the teacher", share=share)
    process = PartialState().process_index
    logger.info(f"teacher: {rows} of {len(dataset)} rows run by process {process}, columns in {folder}")
    return files


def shard_rows(rows: int) -> int:
    """Rows of a shard, for a dataset of so many."""
    return min(SHARD_ROWS * math.ceil(rows / (MOST_SHARDS * SHARD_ROWS)), MOST_SHARD_ROWS)


def _parts(dataset: Dataset, teacher: TeacherLike) -> list[Dataset]:
    """The teacher's inputs, a shard's rows each."""
    missing = [column for column in teacher.input_columns if column not in dataset.column_names]
    if missing or not len(dataset):
        raise ValueError(
            f"The teacher reads {', '.join(teacher.input_columns)}; the dataset has {len(dataset)} rows of"
            f" {', '.join(dataset.column_names)}. Set input_columns, or teacher_input_columns, to what it should read."
        )
    return cut(dataset.select_columns(teacher.input_columns).with_format(None), shard_rows(len(dataset)))


def _names(parts: list[Dataset]) -> list[str]:
    try:
        return [f"{content_hash(part)}.arrow" for part in parts]
    except FileNotFoundError as error:
        raise ValueError(
            f"A file that the dataset names is not there: {error}. Restore it, or drop its row."
        ) from error


def _run_part(part: Dataset, teacher: TeacherLike, dtype: str) -> dict[str, NDArray]:
    """The columns of a part of the rows, (n, C) and (n, D). Their file's folder says who made them, not every row."""
    batches = part.iter(DECODED_ROWS if media(part) else len(part))
    results = [teacher(batch) for batch in batches]
    columns = {}
    for name, size in zip((LOGITS_COLUMN, EMBEDDING_COLUMN), teacher.head.weight.shape, strict=True):
        values = np.concatenate([np.asarray(result[name], dtype=np.float32) for result in results])
        if values.shape != (len(part), size):
            raise ValueError(
                f"{type(teacher).__name__} gave {name} of shape {values.shape} for {len(part)} rows, and its final"
                f" layer has {tuple(teacher.head.weight.shape)}."
            )
        columns[name] = narrowed(values, dtype, name)
    return columns


def _fault(error: Exception, part: Dataset, first: int, teacher: TeacherLike) -> tuple[str, str | None]:
    """Which rows an error is about, and what it says; `None` if it is about no row."""
    if media(part) and not isinstance(error, ImportError):
        # Files are decoded many at a time: only reading each alone tells which it was.
        for row in range(len(part)):
            try:
                values = part[row : row + 1]
            except Exception as alone:
                reason = f"it cannot be read ({type(alone).__name__}: {alone}). Repair or drop it."
                return f"Row {first + row}", reason
            try:
                teacher(values)
            except ValueError as alone:
                return f"Row {first + row}", str(alone)
            except Exception:  # the teacher's own fault, and not the row's
                continue
    return f"Rows {first} to {first + len(part) - 1}", str(error) if isinstance(error, ValueError) else None


def narrowed(values: NDArray[np.float32], dtype: str, name: str) -> NDArray:
    """A column's values in the data type that it is kept in.

    Raises:
        ValueError: if a finite value is too large for it.
    """
    if values.dtype == dtype:
        return values
    largest = np.abs(values).max(initial=0.0, where=np.isfinite(values))
    if largest > np.finfo(dtype).max:
        raise ValueError(
            f"{name} holds {largest:.6g}, and {dtype} ends at {np.finfo(dtype).max:.0f}. Use columns_dtype=float32."
        )
    return values.astype(dtype)


def fit_projections(
    columns: Dataset,
    labels: NDArray[np.int64] | None,
    teacher: TeacherLike,
    num_directions: int,
    *,
    at_least: int | None = None,
    null_space: bool = True,
    cache_dir: str | Path | None = None,
) -> ClassProjections:
    """`ClassProjections.fit`, kept beside the teacher's columns.

    In several processes each sums up its part of the rows, and one saves what all read.

    Args:
        columns: result of `teacher_columns`, N rows; or any with its columns, taken to be those of its fingerprint
            (which is another each time for rows that come from a `map` which datasets cannot hash).
        labels: (N,), −100 for none; `None` where no row has one.
        teacher: that made the columns.
        num_directions: K.
        at_least: see `ClassProjections.fit`.
        null_space: likewise.
        cache_dir: as for `teacher_columns`.
    """
    state = PartialState()
    key = xxhash.xxh3_128(
        f"{teacher.head.fingerprint} {num_directions} {at_least} {null_space} {columns._fingerprint}".encode()
    )
    columns = columns.select_columns([LOGITS_COLUMN, EMBEDDING_COLUMN])
    if labels is not None:
        key.update(np.ascontiguousarray(labels).tobytes())
        columns = columns.add_column("labels", labels)
    folder = Path(cache_dir or default_cache_dir()) / "projections" / key.hexdigest()
    # One process decides for all: each might see another folder, or see it at another time.
    folder, there = broadcast_object_list([folder, _are_whole(folder)])
    if not there:
        part = columns.shard(state.num_processes, state.process_index, contiguous=True)
        each, more = divmod(len(columns), state.num_processes)
        fitted = ClassProjections.fit(
            part,
            teacher.head,
            num_directions,
            at_least=at_least,
            null_space=null_space,
            reduce=_over_processes,
            first_row=each * state.process_index + min(more, state.process_index),
        )
        if state.is_main_process:
            _save(fitted, folder)
    state.wait_for_everyone()
    return ClassProjections.from_pretrained(str(folder))


def _over_processes(moments: list[Moments]) -> list[Moments]:
    """The moments of all processes, merged in the order of the processes, so that each has the same sums."""
    state = PartialState()
    if state.num_processes == 1:
        return moments
    merged = [Moments(len(own.mean)) for own in moments]
    for process in range(state.num_processes):
        for own, total in zip(moments, merged, strict=True):
            values = [torch.tensor([own.count]), torch.from_numpy(own.mean), torch.from_numpy(own.scatter)]
            count, mean, scatter = broadcast([value.to(state.device, copy=True) for value in values], process)
            other = Moments(len(own.mean))
            other.count, other.mean, other.scatter = int(count), mean.cpu().numpy(), scatter.cpu().numpy()
            total.merge(other)
    return merged


def _save(fitted: ClassProjections, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        fitted.save_pretrained(Path(temporary) / "whole")
        if folder.exists() and not _are_whole(folder):
            folder.rename(Path(temporary) / "damaged")
        try:
            (Path(temporary) / "whole").rename(folder)
        except OSError:
            if not folder.exists():  # or else another run has saved the same meanwhile
                raise


def _are_whole(folder: Path) -> bool:
    """Whether there are projections in the cache; damaged ones are made again, as shards are."""
    if not folder.exists():
        return False
    try:
        ClassProjections.from_pretrained(str(folder))
    except (FileNotFoundError, ValueError) as error:
        logger.warning(f"Fitted again: {error}")
        return False
    return True


def projection_columns(
    columns: Dataset, projections: ClassProjections, cache_dir: str | Path | None = None, *, dtype: str = "float32"
) -> Dataset:
    """The column `teacher_projections`, (C, K), for every row of the teacher's columns, kept as they are.

    Args:
        columns: see `fit_projections`, N rows.
        projections: to project on.
        cache_dir: as for `teacher_columns`.
        dtype: of the column.

    Raises:
        ValueError: if a value is too large for float16.
    """
    key = xxhash.xxh3_128_hexdigest(
        f"{columns._fingerprint} {projections.fingerprint} {dtype} {PROJECTED_ROWS}".encode()
    )
    (key,) = broadcast_object_list([key])  # as in `fit_projections`
    folder = Path(cache_dir or default_cache_dir()) / "projected" / key
    parts = cut(columns.select_columns([EMBEDDING_COLUMN]), PROJECTED_ROWS)

    def project(place: int) -> dict[str, NDArray]:
        shape = (len(parts[place]), projections.num_classes, projections.num_directions)
        values = np.empty(shape, dtype=np.float32)
        part = mapped_anew(parts[place]).with_format("numpy")
        for number, batch in enumerate(part.iter(PROJECTED_BATCH)):
            first = number * PROJECTED_BATCH
            values[first : first + PROJECTED_BATCH] = projections(batch)[PROJECTIONS_COLUMN]
        return {PROJECTIONS_COLUMN: narrowed(values, dtype, PROJECTIONS_COLUMN)}

    files = [folder / f"{place:05}.arrow" for place in range(len(parts))]
    fill(files, project, [len(part) for part in parts], description="Projecting")
    return open_shards(files)
