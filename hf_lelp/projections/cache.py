"""Makes class projections and projected columns once, and keeps them beside the teacher's columns."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
import xxhash
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list
from datasets import Dataset
from numpy.typing import NDArray

from hf_lelp.classifiers import LinearHead
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.data.rows import mapped_anew, split_rows
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.principal_directions import Moments
from hf_lelp.storage.files import check_writable, remove_leftovers
from hf_lelp.storage.shards import (
    SHARD_ROWS,
    Progress,
    default_cache_dir,
    make_missing_shards,
    narrowed,
    open_shards,
)

logger = logging.getLogger(__name__)

PROJECTED_ROWS = 16 * SHARD_ROWS  # per file
PROJECTED_BATCH = 1024  # rows projected at once


def fit_projections(
    columns: Dataset,
    labels: NDArray[np.int64] | None,
    head: LinearHead,
    num_directions: int,
    *,
    at_least: int | None = None,
    null_space: bool = True,
    cache_dir: str | Path | None = None,
) -> ClassProjections:
    """Run `ClassProjections.fit`, and keep the result beside the teacher's columns.

    In several processes, each sums up its part of the rows. One saves the result, and all read it.

    Args:
        columns: result of `teacher_columns`, N rows; or any dataset with its columns, known by its fingerprint. (After
            a `map` that datasets cannot hash, the fingerprint is another one each time.)
        labels: (N,), −100 for none; `None` where no row has one.
        head: of the teacher that made the columns.
        num_directions: K.
        at_least: see `ClassProjections.fit`.
        null_space: see `ClassProjections.fit`.
        cache_dir: as for `teacher_columns`.
    """
    state = PartialState()
    key = xxhash.xxh3_128(
        f"{head.fingerprint} {num_directions} {at_least} {null_space} {columns._fingerprint}".encode()
    )
    columns = columns.select_columns([LOGITS_COLUMN, EMBEDDING_COLUMN])
    if labels is not None:
        key.update(np.ascontiguousarray(labels).tobytes())
        columns = columns.add_column("labels", labels)
    folder = Path(cache_dir or default_cache_dir()) / "projections" / key.hexdigest()
    # One process decides for all: they may see different folders, or see one at different times.
    folder, there = broadcast_object_list([folder, whole_projections(folder) is not None])
    if not there:
        part = columns.shard(state.num_processes, state.process_index, contiguous=True)
        each, more = divmod(len(columns), state.num_processes)
        fitted = ClassProjections.fit(
            part,
            head,
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
    """Merge the moments of all processes, in the order of the processes, so that each has the same sums."""
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
    check_writable(folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        fitted.save_pretrained(Path(temporary) / "whole")
        if folder.exists() and whole_projections(folder) is None:
            folder.rename(Path(temporary) / "damaged")
        try:
            (Path(temporary) / "whole").rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another run has saved the same meanwhile
                raise


def whole_projections(folder: Path) -> ClassProjections | None:
    """Read the projections that the cache holds; damaged ones are made again, as shards are."""
    if not folder.exists():
        return None
    try:
        return ClassProjections.from_pretrained(str(folder))
    except (FileNotFoundError, ValueError) as error:
        logger.warning(f"Fitted again: {error}")
        return None


def projection_columns(
    columns: Dataset, projections: ClassProjections, cache_dir: str | Path | None = None, *, dtype: str = "float32"
) -> Dataset:
    """Make the column `teacher_projections`, (C, K), for every row of the teacher's columns, and keep it like them.

    Args:
        columns: see `fit_projections`, N rows.
        projections: the ones to project on.
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
    parts = split_rows(columns.select_columns([EMBEDDING_COLUMN]), PROJECTED_ROWS)

    def project(place: int, progress: Progress, _: int | None) -> dict[str, NDArray]:
        shape = (len(parts[place]), projections.num_classes, projections.num_directions)
        values = np.empty(shape, dtype=np.float32)
        part = mapped_anew(parts[place]).with_format("numpy")
        for number, batch in enumerate(part.iter(PROJECTED_BATCH)):
            first = number * PROJECTED_BATCH
            scores = projections(batch)[PROJECTIONS_COLUMN]
            values[first : first + PROJECTED_BATCH] = scores
            progress(len(scores))
        return {PROJECTIONS_COLUMN: narrowed(values, dtype, PROJECTIONS_COLUMN)}

    files = [folder / f"{place:05}.arrow" for place in range(len(parts))]
    make_missing_shards(files, project, [len(part) for part in parts], description="Projecting")
    return open_shards(files)
