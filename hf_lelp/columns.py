"""The teacher's columns of a dataset: run once, kept, fitted and projected.

The pass is cut into shards of rows. A shard's file is named by what its content depends on, the teacher and
the rows, and appears whole or not at all. So a second run finds every shard, a killed run goes on where it stopped,
another dataset with the same rows shares them, and several processes share the work; the result is the same.
"""

import logging
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import xxhash
from accelerate import PartialState
from datasets import Audio, Dataset, Features, Image, List, Value, concatenate_datasets
from datasets.table import embed_table_storage
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_lelp.projections import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN, ClassProjections
from hf_lelp.teacher_like import TeacherLike

logger = logging.getLogger(__name__)

SHARD_ROWS = 2048
DECODED_ROWS = 256  # images or sounds in memory at once


def default_cache_dir() -> Path:
    """`hf_lelp` in the cache folder of datasets."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_lelp"


def teacher_columns(dataset: Dataset, teacher: TeacherLike, cache_dir: str | Path | None = None) -> Dataset:
    """Run the teacher over every row that it has not seen yet.

    In several processes (`accelerate launch`) each takes every n-th shard, and all return the whole; `cache_dir` must
    be a folder that all of them see.

    Args:
        dataset: with the teacher's input columns, N rows.
        teacher: the classifier.
        cache_dir: where the shards are kept; `None` is `default_cache_dir()`.

    Returns:
        N rows in the dataset's order with the columns `teacher_logits`, (C,), and `teacher_embedding`, (D,), float32.

    Raises:
        ValueError: if the dataset has no rows or lacks an input column, or a row cannot be read.
    """
    missing = [column for column in teacher.input_columns if column not in dataset.column_names]
    if missing or not len(dataset):
        raise ValueError(
            f"The teacher reads {', '.join(teacher.input_columns)}; the dataset has {len(dataset)} rows of"
            f" {', '.join(dataset.column_names)}. Set input_columns, or teacher_input_columns, to what it should read."
        )
    state = PartialState()
    folder = Path(cache_dir or default_cache_dir()) / "teacher" / teacher.fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    inputs = dataset.select_columns(teacher.input_columns).with_format(None)
    shards = _shards(inputs)
    try:
        files = [folder / f"{_content_hash(shard)}.arrow" for shard in shards]
    except FileNotFoundError as error:
        raise ValueError(
            f"A file that the dataset names is not there: {error}. Restore it, or drop its row."
        ) from error

    # By the shard's own number, not its place among those left: another process may have finished one by now.
    shares = range(state.process_index, len(files), state.num_processes)
    mine = [index for index in shares if not files[index].exists()]
    with tqdm(
        total=sum(len(shards[index]) for index in mine),
        desc="Running the teacher",
        unit="row",
        disable=not (mine and state.is_main_process),
    ) as progress:
        for index in mine:
            try:
                _run_shard(shards[index], teacher, files[index])
            except Exception as error:
                place, reason = _fault(error, shards[index], index * SHARD_ROWS, teacher)
                if reason is None:
                    raise
                raise ValueError(f"{place} of the dataset: {reason}") from error
            progress.update(len(shards[index]))
    rows = sum(len(shards[index]) for index in mine)
    logger.info(f"teacher: {rows} of {len(inputs)} rows run by process {state.process_index}, columns in {folder}")
    state.wait_for_everyone()
    return concatenate_datasets([Dataset.from_file(str(file)) for file in files])


def fit_projections(
    columns: Dataset,
    labels: NDArray[np.int64] | None,
    teacher: TeacherLike,
    num_directions: int,
    *,
    null_space: bool = True,
    cache_dir: str | Path | None = None,
) -> ClassProjections:
    """`ClassProjections.fit`, kept beside the teacher's columns; in several processes one fits and all read.

    Args:
        columns: result of `teacher_columns`, N rows.
        labels: (N,), −100 for none; `None` where no row has one.
        teacher: that made the columns.
        num_directions: K.
        null_space: see `ClassProjections.fit`.
        cache_dir: as for `teacher_columns`.
    """
    key = xxhash.xxh3_128(f"{teacher.head.fingerprint} {num_directions} {null_space}".encode())
    for shard in _shards(columns.select_columns([LOGITS_COLUMN, EMBEDDING_COLUMN])):
        key.update(_content_hash(shard).encode())
    if labels is not None:
        key.update(labels.tobytes())
        columns = columns.add_column("labels", labels)
    folder = Path(cache_dir or default_cache_dir()) / "projections" / key.hexdigest()
    state = PartialState()
    if state.is_main_process and not folder.exists():
        fitted = ClassProjections.fit(columns, teacher.head, num_directions, null_space=null_space)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            fitted.save_pretrained(Path(temporary) / "whole")
            if not folder.exists():  # another run may have fitted the same meanwhile
                (Path(temporary) / "whole").rename(folder)
    state.wait_for_everyone()
    return ClassProjections.from_pretrained(str(folder))


def projection_columns(columns: Dataset, projections: ClassProjections) -> Dataset:
    """The column `teacher_projections`, (C, K), float32, for every row of the teacher's columns."""
    width = List(Value("float32"), length=projections.num_directions)
    features = Features({PROJECTIONS_COLUMN: List(width, length=projections.num_classes)})
    with PartialState().main_process_first():
        return columns.select_columns([EMBEDDING_COLUMN]).map(
            lambda batch: {name: values for name, values in projections(batch).items() if name in features},
            batched=True,
            remove_columns=[EMBEDDING_COLUMN],
            features=features,
            new_fingerprint=xxhash.xxh3_64((columns._fingerprint + projections.fingerprint).encode()).hexdigest(),
            desc="Projecting",
        )


def _shards(dataset: Dataset) -> list[Dataset]:
    starts = range(0, len(dataset), SHARD_ROWS)
    return [dataset.select(range(start, min(start + SHARD_ROWS, len(dataset)))) for start in starts]


def _run_shard(shard: Dataset, teacher: TeacherLike, file: Path) -> None:
    """One shard through the teacher into `file`, by way of a temporary file of this process."""
    num_classes, size = teacher.head.weight.shape
    features = Features(
        {
            LOGITS_COLUMN: List(Value("float32"), length=num_classes),
            EMBEDDING_COLUMN: List(Value("float32"), length=size),
        }
    )
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # one bar for all shards, not one for each
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as temporary:
            partial = Path(temporary) / file.name
            shard.map(
                # The folder's name says who made them; a mark in every row would say it again.
                lambda batch: {name: values for name, values in teacher(batch).items() if name in features},
                batched=True,
                batch_size=DECODED_ROWS if _media(shard) else len(shard),
                remove_columns=shard.column_names,
                features=features,
                cache_file_name=str(partial),
                new_fingerprint=file.stem,
            )
            partial.replace(file)
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _fault(error: Exception, shard: Dataset, first: int, teacher: TeacherLike) -> tuple[str, str | None]:
    """Which rows an error is about, and what it says; `None` if it is about no row."""
    if _media(shard) and not isinstance(error, ImportError):
        # Files are decoded many at a time: only reading each alone tells which it was.
        for row in range(len(shard)):
            try:
                teacher(shard[row : row + 1])
            except ValueError as alone:
                return f"Row {first + row}", str(alone)
            except Exception as alone:
                reason = f"it cannot be read ({type(alone).__name__}: {alone}). Repair or drop it."
                return f"Row {first + row}", reason
    return f"Rows {first} to {first + len(shard) - 1}", str(error) if isinstance(error, ValueError) else None


def _content_hash(shard: Dataset) -> str:
    """Hash of the rows themselves, whatever file, order of operations or library version they came through."""
    table = shard.with_format("arrow")[:]
    # take copies: a slice's buffers would carry what is outside it.
    table = table.take(pa.array(range(len(table))))
    key = xxhash.xxh3_128()
    for name, feature in _media(shard).items():
        # The files' bytes, not their paths; and how they are decoded.
        schema = Features({name: feature}).arrow_schema
        files = embed_table_storage(table.select([name]).cast(schema))[name].combine_chunks().field("bytes")
        table = table.set_column(table.schema.get_field_index(name), name, files)
        key.update(repr(feature).encode())
    table = table.combine_chunks().replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    key.update(sink.getvalue())
    return key.hexdigest()


def _media(dataset: Dataset) -> dict[str, Image | Audio]:
    """The columns that are decoded when they are read."""
    return {name: feature for name, feature in dataset.features.items() if isinstance(feature, Image | Audio)}
