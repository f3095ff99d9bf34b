"""Runs the teacher over a dataset once, and keeps its columns.

The pass is cut into shards of rows (`hf_lelp.storage.shards`). The teacher and the rows give a shard's file its name.
So a second run finds every shard, and a killed run goes on where it stopped. Rows of another dataset, order or sample
are copied from the shards that have them (`hf_lelp.teacher.rows_once`). Several processes or machines can share the
work; the result is the same.
"""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset, Value
from numpy.typing import NDArray

from hf_lelp.data.rows import RowError, content_hash, media_columns, split_rows
from hf_lelp.storage.files import write_atomically
from hf_lelp.storage.row_index import SIDECAR, has_sidecar
from hf_lelp.storage.shards import (
    SHARD_ROWS,
    Progress,
    check_shard,
    default_cache_dir,
    make_missing_shards,
    narrowed,
    open_shards,
    read_columns,
)
from hf_lelp.teacher.kinds.combined import CombinedTeacher
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.rows_once import Kept, RowsOnce, rows_in_part

logger = logging.getLogger(__name__)
_warn_once = cache(logger.warning)

MOST_SHARDS = 256  # per dataset: every operation of datasets takes milliseconds per file
MOST_SHARD_ROWS = 8 * SHARD_ROWS  # in memory until they are written
DECODED_ROWS = 256  # of one call: images or sounds in memory at once, or rows of a teacher of another kind
MOST_CRASHES = 8  # rows alone, after which the teacher itself is at fault


def teacher_folder(teacher: TeacherLike, cache_dir: str | Path | None = None, dtype: str = "float32") -> Path:
    """Return the folder of a teacher's shards: its fingerprint, and their data type where it is not float32."""
    suffix = "" if dtype == "float32" else f"-{dtype}"
    return Path(cache_dir or default_cache_dir()) / "teacher" / f"{teacher.fingerprint}{suffix}"


def teacher_columns(
    dataset: Dataset,
    teacher: TeacherLike,
    cache_dir: str | Path | None = None,
    *,
    dtype: str = "float32",
) -> Dataset:
    """Run the teacher over every row that it has not seen yet, in whatever dataset, order or sample it saw others.

    In several processes (`accelerate launch`), each takes every n-th shard, and all return the whole. They must all
    see `cache_dir`. For machines that share no folder, see `hf_lelp.teacher_pass`. After Ctrl-C, two notes of the
    `KeyboardInterrupt` say what is kept, and that the same call goes on.

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
    """Return the names of the shards that hold the columns of a dataset's rows, in the rows' order.

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
    kept: Kept | None = None,
) -> list[Path]:
    """Make the missing shards of `teacher_columns`, without opening them.

    Args:
        dataset: see `teacher_columns`, as for the next three.
        teacher: the classifier.
        cache_dir: where the shards are kept.
        dtype: of the columns.
        share: (i, n): every n-th shard from the i-th on, for one of n machines.
        kept: what is kept in place of the teacher's own columns. Rows that have these already are not run again.

    Returns:
        The shards of all rows, in the rows' order. With n > 1, those of other shares may be missing.
    """
    if isinstance(teacher, CombinedTeacher) and kept is None:
        return _combine(dataset, teacher, cache_dir, dtype, share)
    parts, files = _parts(dataset, teacher), []
    whole = teacher_folder(teacher, cache_dir, dtype)
    folder = whole if kept is None else kept.folder
    try:
        files += [folder / name for name in _names(parts)]
        rows = _make_missing(parts, files, RowsOnce(parts, files, teacher, dtype, DECODED_ROWS, whole, kept), share)
    except KeyboardInterrupt as stop:
        _note_what_is_kept(stop, parts, files, folder)
        raise
    process = PartialState().process_index
    total = len(dataset)
    if rows == 0 and PartialState().num_processes == 1:
        # No problem, but a warning is also seen where logging is not set up.
        _warn_once(f"teacher: all {total:,} rows were answered before, and it is not run; answers kept in {folder}")
    else:
        logger.info(f"teacher: {rows} of {total} rows run by process {process}, the answers are kept in {folder}")
    return files


def _combine(
    dataset: Dataset, teacher: CombinedTeacher, cache_dir: str | Path | None, dtype: str, share: tuple[int, int]
) -> list[Path]:
    """Run each part of a combined teacher, and make the shards of the whole from theirs, which hold the same rows."""
    of_parts = [run_teacher(dataset, part, cache_dir, dtype=dtype, share=share) for part in teacher.parts]
    rows = _parts(dataset, teacher)
    files = [teacher_folder(teacher, cache_dir, dtype) / name for name in _names(rows)]

    def make(place: int, progress: Progress, _: int | None) -> Mapping[str, NDArray]:
        columns = teacher.combine([read_columns(of_part[place]) for of_part in of_parts])
        progress(len(rows[place]))
        return {name: narrowed(values, dtype, name) for name, values in columns.items()}

    sizes = [len(part) for part in rows]
    make_missing_shards(files, make, sizes, description="Combining teachers", share=share)
    return files


def _make_missing(parts: list[Dataset], files: list[Path], rows: RowsOnce, share: tuple[int, int]) -> int:
    """Make the missing shards, and return over how many rows the teacher was run."""

    def make(place: int, progress: Progress, following: int | None) -> Mapping[str, NDArray]:
        try:
            return rows.make(place, progress, following)
        except Exception as error:
            part = parts[place]
            found = _of_all_rows(error, part, rows.teacher) if isinstance(error, ValueError) else error
            if isinstance(found, RowError) and not media_columns(part):
                mistake = found.in_dataset(place * len(parts[0]) + found.row, part)
                raise mistake from error
            named, reason = _fault(error, part, place * len(parts[0]), rows.teacher)
            if reason is None:
                raise
            raise ValueError(f"{named} of the dataset: {reason}") from error

    sizes = [len(part) for part in parts]
    make_missing_shards(files, make, sizes, description="Running the teacher", share=share, whole=rows.whole)
    return rows.rows_run


def _note_what_is_kept(stop: KeyboardInterrupt, parts: list[Dataset], files: list[Path], folder: Path) -> None:
    """Say in two lines below the traceback of Ctrl-C what need not be run again."""
    if not PartialState().is_main_process:
        return
    total = sum(len(part) for part in parts)
    kept = [len(part) if file.exists() else rows_in_part(file) for part, file in zip(parts, files, strict=False)]
    if files:
        stop.add_note(f"Stopped: {sum(kept):,} of {total:,} rows are kept in {folder}.")
    else:
        stop.add_note(f"Stopped before the first of {total:,} rows: those of earlier passes stay kept in {folder}.")
    stop.add_note("The same command goes on from there.")


def shard_rows(rows: int) -> int:
    """Return the rows of a shard, for a dataset of `rows` rows."""
    return min(SHARD_ROWS * math.ceil(rows / (MOST_SHARDS * SHARD_ROWS)), MOST_SHARD_ROWS)


def _parts(dataset: Dataset, teacher: TeacherLike) -> list[Dataset]:
    """Split the teacher's input columns into the rows of each shard."""
    missing = [column for column in teacher.input_columns if column not in dataset.column_names]
    if missing or not len(dataset):
        raise ValueError(
            f"The teacher reads {', '.join(teacher.input_columns)}; the dataset has {len(dataset)} rows of"
            f" {', '.join(dataset.column_names)}. Set input_columns, or teacher_input_columns, to what it should read."
        )
    return split_rows(dataset.select_columns(teacher.input_columns).with_format(None), shard_rows(len(dataset)))


def _names(parts: list[Dataset]) -> list[str]:
    try:
        return [f"{content_hash(part)}.arrow" for part in parts]
    except FileNotFoundError as error:
        raise ValueError(
            f"A file that the dataset names is not there: {error}. Restore it, or drop its row."
        ) from error


def _fault(error: Exception, part: Dataset, first: int, teacher: TeacherLike) -> tuple[str, str | None]:
    """Return which rows an error is about, and what it says; `None` if no row is at fault."""
    texts = all(feature == Value("string") for feature in part.features.values())  # their errors name the row
    if not texts and not isinstance(error, ImportError):
        crashed: dict[int, Exception] = {}
        answered = 0
        # Files are decoded many at a time: only reading each alone tells which one failed.
        for row in range(len(part)):
            try:
                values = part[row : row + 1]
            except Exception as alone:
                reason = f"it cannot be read ({type(alone).__name__}: {alone}). Repair or drop it."
                return f"Row {first + row}", reason
            try:
                teacher(values)
                answered += 1
            except ValueError as alone:
                return f"Row {first + row}", str(alone)
            except Exception as alone:
                crashed[row] = alone
            if crashed and answered:
                row, crash = next(iter(crashed.items()))
                reason = f"the teacher cannot read it ({type(crash).__name__}: {crash}). Too short, or empty?"
                return f"Row {first + row}", f"{reason} Repair or drop it."
            if len(crashed) > MOST_CRASHES:  # the teacher's own fault, and not a row's
                break
    named = f"Rows {first} to {first + len(part) - 1}"
    return named, str(error) if isinstance(error, ValueError) else None


def _of_all_rows(error: ValueError, part: Dataset, teacher: TeacherLike) -> ValueError:
    """Return the error of a shard's texts together: those that were run alone have other numbers in a batch."""
    if not media_columns(part) and isinstance(error, RowError):
        try:
            teacher(part[:])
        except ValueError as of_all:
            return of_all
    return error


def merge_shares(
    parts: Sequence[Dataset],
    teacher: TeacherLike,
    folders: Sequence[str],
    cache_dir: str | Path | None = None,
    dtype: str = "float32",
) -> None:
    """Copy the columns of all rows from the folders of several passes into one cache, if they are there and whole.

    The teacher and the rows give the shards their names: those of another teacher, or of other rows, have other names.
    Nothing is copied before every shard was read through.

    Args:
        parts: datasets whose columns are wanted.
        teacher: the one that made the columns.
        folders: the `columns_cache_dir` of each pass.
        cache_dir: see `teacher_columns`, as for `dtype`.
        dtype: of the columns.

    Raises:
        ValueError: if a folder has no columns of this teacher, or no folder has a whole copy of a shard.
    """
    target = teacher_folder(teacher, cache_dir, dtype)
    sources = [teacher_folder(teacher, folder, dtype) for folder in folders]
    for folder, source in zip(folders, sources, strict=True):
        if not source.is_dir():
            others = ", ".join(path.name for path in Path(folder).glob("teacher/*")) or "none"
            raise ValueError(
                f"{folder} has no columns of this teacher (fingerprint {source.name}; found: {others}). The same"
                " weights, data type, class order and teacher settings are needed on every machine."
            )
    names = list(dict.fromkeys(name for part in parts for name in shard_names(part, teacher)))
    found: dict[str, Path] = {}
    problems = []
    for name in names:
        copies = [folder / name for folder in (target, *sources) if (folder / name).exists()]
        for copy in copies:
            try:
                check_shard(copy)
            except ValueError as error:
                problems.append(f"{copy}: {error}")
            else:
                found.setdefault(name, copy)
    missing = len(names) - len(found)
    if missing:
        strangers = sum(path.name not in names for source in sources for path in source.glob("*.arrow"))
        raise ValueError(
            f"{missing} of the {len(names)} shards of this data are missing in {', '.join(folders)}, which hold"
            f" {strangers} of other rows. Run each share on the same data, to its end: --share 1/n to n/n.\n"
            + "\n".join(problems)
        )
    for name, path in found.items():
        if path.parent != target:
            write_atomically(target / name, partial(shutil.copyfile, path))
            sidecar = path.with_suffix(SIDECAR)
            if has_sidecar(path):
                write_atomically(target / sidecar.name, partial(shutil.copyfile, sidecar))
    print(f"{len(names)} shards are whole and of this teacher and data; they are in {target}")
