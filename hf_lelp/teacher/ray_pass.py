"""Runs the teacher on a Ray cluster: Parquet in, Parquet with the teacher's columns out. Needs `hf-lelp[ray]`.

Ray divides the rows among actors, each with a teacher of its own, and gives the work of a dead actor to another one. It
keeps no order: a column of the rows says which row is which. docs/understand/distributed.md says when to use this.

    from hf_lelp.teacher.ray_pass import run_on_ray

    run_on_ray("s3://bucket/rows", "s3://bucket/columns", "my-teacher", row_id="id", actors=8)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from datasets import Dataset
from pyarrow.fs import FileSystem, FileType
from ray.data.checkpoint import CheckpointConfig

from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.teacher import Teacher

ROW_HASH = "row_hash"  # Ray's name for the hash of a row's file and place in it


class RayTeacher:
    """A teacher on an actor: `dataset.map_batches(RayTeacher, fn_constructor_args=(…,), batch_format="pyarrow", …)`.

    Args:
        teacher: Hub id or folder that every machine can read, or a function that makes the teacher on the actor.
        **settings: of `Teacher.from_pretrained`, where an id or folder is given.
    """

    def __init__(self, teacher: str | Callable[[], TeacherLike], **settings: Any) -> None:
        self.teacher = Teacher.from_pretrained(teacher, **settings) if isinstance(teacher, str) else teacher()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Add to n rows what the teacher gives, as `dataset.map(teacher, batched=True)` does."""
        batch = Dataset(rows.select(self.teacher.input_columns))[:]
        columns = {name: _as_arrow(values) for name, values in self.teacher(batch).items()}
        return pa.table({name: rows[name] for name in rows.column_names} | columns)


def run_on_ray(
    source: str | list[str],
    target: str,
    teacher: str | Callable[[], TeacherLike],
    *,
    row_id: str = ROW_HASH,
    actors: int | tuple[int, int] = 1,
    num_gpus: float = 1,
    batch_rows: int = 2048,
    **settings: Any,
) -> None:
    """Run the teacher over the rows of Parquet files, and write them with its columns to other Parquet files.

    The columns are those of `Teacher`: `teacher_logits`, (C,), `teacher_embedding`, (D,), and `teacher_fingerprint`.
    Read the target with `load_dataset("parquet", data_files=f"{target}/*.parquet")`, and sort it by the row id for an
    order that stays. `ClassProjections` and `LELPTrainer` take the columns, and refuse those of another teacher.

    After an interruption the same call goes on. Ray notes in the folder `{target}-checkpoint` which rows are written.

    Args:
        source: files or folders, on any storage that Ray reads.
        target: a folder, on storage that all machines see.
        teacher: Hub id or folder that every machine can read, or a function that makes the teacher on an actor.
        row_id: a column of the source that tells its rows apart. The default adds a hash of each row's file and place.
        actors: how many teachers run at once, or the fewest and the most of them.
        num_gpus: of each actor; 0 runs on a CPU, and a part of 1 shares a GPU.
        batch_rows: rows that a teacher is given at once; it sorts these by length.
        **settings: of `Teacher.from_pretrained`, such as `max_length` and `class_order`.

    Raises:
        ValueError: if a finished pass is in the target, the source has no such row id, or the target ends with fewer or
            more rows than the source.
    """
    target = target if "://" in target else str(Path(target).absolute())
    checkpoint = f"{target}-checkpoint"
    if _exists(target) and not _exists(checkpoint):
        raise ValueError(
            f"{target} is there, and {checkpoint} is not: no interrupted pass wrote it. Choose another target, or"
            " remove this one."
        )
    rows = ray.data.read_parquet(source, include_row_hash=row_id == ROW_HASH)
    names, count = rows.schema().names, rows.count()
    if row_id not in names:
        raise ValueError(f"row_id={row_id!r} is no column of {source}, which has {', '.join(names)}. Name one of them.")
    # Ray would remove its notes before the rows are counted.
    rows.context.checkpoint_config = CheckpointConfig(row_id, checkpoint, delete_checkpoint_on_success=False)
    smallest, largest = (actors, actors) if isinstance(actors, int) else actors
    rows.map_batches(
        RayTeacher,
        fn_constructor_args=(teacher,),
        fn_constructor_kwargs=settings,
        batch_format="pyarrow",
        batch_size=batch_rows,
        compute=ray.data.ActorPoolStrategy(min_size=smallest, max_size=largest),
        num_gpus=num_gpus,
    ).write_parquet(target)
    written = ray.data.read_parquet(target).count()
    if written < count:
        raise ValueError(
            f"{target} has {written} of the {count} rows of {source}: Ray left rows out, as it may where an actor dies,"
            f" or rows share a {row_id}. Make the same call again: it goes on with what is missing. If that adds none,"
            " choose a row_id without repetitions."
        )
    if written > count:
        raise ValueError(
            f"{target} has {written} rows, and {source} has {count}: other files lie there, or rows were removed from"
            f" the source. Remove the target and {checkpoint}, and make the call again."
        )
    filesystem, name = FileSystem.from_uri(checkpoint)
    filesystem.delete_dir(name)


def _exists(path: str) -> bool:
    filesystem, name = FileSystem.from_uri(path)
    return bool(filesystem.get_file_info(name).type != FileType.NotFound)


def _as_arrow(values: Any) -> pa.Array:
    if np.ndim(values) == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(values)), np.shape(values)[1])
    return pa.array(values)
