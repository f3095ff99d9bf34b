"""Files that hold the columns of some rows each: whole or not there, checked, made by several processes or machines.

A shard is an Arrow stream whose last 16 bytes are the hash of those before them, which readers of Arrow pass over. A
file that is cut short or has a wrong bit is thrown away and made again: it is only a cache. A file is read for that
once, and again when its size or time of change is not what they were.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import xxhash
from accelerate import PartialState
from datasets import Dataset
from datasets.table import MemoryMappedTable, concat_tables
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_lelp.storage.files import read_json, remove_leftovers, write_atomically, write_json

SHARD_ROWS = 2048

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1"
DIGEST_BYTES = 16
RECORD_NAME = "verified.json"


def write_shard(file: Path, columns: Mapping[str, NDArray]) -> None:
    """Write columns of one length, (n, …) each, whole or not at all."""
    table = pa.table({name: _nested(values) for name, values in columns.items()})
    table = table.replace_schema_metadata(_metadata(file))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            stream.write(content)
            stream.write(xxhash.xxh3_128_digest(content))

    write_atomically(file, write)


def check_shard(file: Path) -> None:
    """Read a shard through.

    Raises:
        ValueError: if it is not as it was written, is not what its folder and name say, or of another version.
    """
    content = memoryview(file.read_bytes())
    if xxhash.xxh3_128_digest(content[:-DIGEST_BYTES]) != content[-DIGEST_BYTES:]:
        raise ValueError("its content does not match its checksum: it was cut short or changed")
    found, expected = pa.ipc.open_stream(content).schema.metadata, _metadata(file)
    if found != expected:
        raise ValueError(f"it was written as {found}, and {expected} was expected in this place")


def make_missing_shards(
    files: Sequence[Path],
    make: Callable[[int], Mapping[str, NDArray]],
    rows: Sequence[int],
    *,
    description: str,
    share: tuple[int, int] = (0, 1),
) -> int:
    """Make the files that are missing or damaged; in several processes each makes its part of them.

    Args:
        files: all in one folder; several may be the same, and are made once.
        make: columns of a file, by its place among `files`.
        rows: of each file.
        description: of the progress bar.
        share: (i, n): only every n-th file from the i-th on, for one of n machines.

    Returns:
        Rows that this process made.
    """
    state = PartialState()
    folder = files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    if state.is_main_process:
        remove_leftovers(folder)
    places = {file: place for place, file in reversed([*enumerate(files)])}
    # By a file's own number, not its place among those left: another process may have finished one by now.
    of_share = [*dict.fromkeys(files)][share[0] :: share[1]]
    mine = of_share[state.process_index :: state.num_processes]
    record = _read_record(folder)
    missing = [places[file] for file in mine if not _is_whole(file, record)]
    total = sum(rows[place] for place in missing)
    quiet = not (missing and state.is_main_process)
    with tqdm(total=total, desc=description, unit="row", disable=quiet, delay=1) as progress:
        for place in missing:
            write_shard(files[place], make(place))
            progress.update(rows[place])
    state.wait_for_everyone()
    if state.is_main_process:
        stamps = {file.name: _stamp(file) for file in of_share}
        if not stamps.items() <= record.items():
            with suppress(OSError):  # it saves time alone, and a cache may be there to be read only
                write_json(folder / RECORD_NAME, _read_record(folder) | stamps, indent=0)
    return total


def open_shards(files: Sequence[Path]) -> Dataset:
    """The rows of all files in their order, mapped from disk; its fingerprint is that of the files' names."""
    names = " ".join(file.name for file in files)
    fingerprint = xxhash.xxh3_128_hexdigest(f"{files[0].parent.name} {names}".encode())
    return Dataset(concat_tables([MemoryMappedTable.from_file(str(file)) for file in files]), fingerprint=fingerprint)


def _nested(values: NDArray) -> pa.Array:
    array = pa.array(values.ravel())
    for length in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    return array


def _metadata(file: Path) -> dict[bytes, bytes]:
    """What a shard says of itself: its format, and the folder and name that it was written under."""
    entries = {"hf_lelp_format": FORMAT_VERSION, "hf_lelp_shard": f"{file.parent.name}/{file.name}"}
    return {key.encode(): value.encode() for key, value in entries.items()}


def _is_whole(file: Path, record: Mapping[str, list[int]]) -> bool:
    if not file.exists():
        return False
    if record.get(file.name) == _stamp(file):
        return True
    try:
        check_shard(file)
    except ValueError as error:
        logger.warning(f"{file} is made again: {error}.")
        return False
    return True


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_record(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of each file when it was last known to be whole."""
    try:
        return read_json(folder / RECORD_NAME)
    except (FileNotFoundError, ValueError):
        return {}


def default_cache_dir() -> Path:
    """`hf_lelp` in the cache folder of datasets."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_lelp"


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
