"""Makes, checks and opens shards: files that each hold the columns of some rows.

A shard is whole or not there. Several processes or machines can make them. A shard is an Arrow stream. Its last 16
bytes are the hash of those before them, and readers of Arrow skip them. A file that is cut short or has a wrong bit is
made again: it is only a cache. Each file is checked once, and again when its size, its modification time or the format
version has changed.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import xxhash
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from datasets.table import MemoryMappedTable, concat_tables
from numpy.typing import NDArray

from hf_lelp.storage.files import check_writable, read_json, remove_leftovers, write_atomically, write_json
from hf_lelp.storage.progress import stage

SHARD_ROWS = 2048

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1"
DIGEST_BYTES = 16
RECORD_NAME = "verified.json"

Progress = Callable[[int], object]  # takes the number of rows that are done


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
    """Check a shard, by reading it through.

    Raises:
        ValueError: if it has changed, is not the one that its folder and name say, or is of another version.
    """
    content = memoryview(file.read_bytes())
    if xxhash.xxh3_128_digest(content[:-DIGEST_BYTES]) != content[-DIGEST_BYTES:]:
        raise ValueError("its content does not match its checksum: it was cut short or changed")
    found, expected = pa.ipc.open_stream(content).schema.metadata, _metadata(file)
    if found != expected:
        raise ValueError(f"it was written as {found}, and {expected} was expected in this place")


def read_columns(file: Path) -> dict[str, NDArray]:
    """Return the columns of a shard, (n, …) each, mapped from disk: pages come into memory as they are read."""
    table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
    # A shard is one batch; to combine even that would copy it.
    return {name: _flat(table[name].chunk(0)) for name in table.column_names}


def make_missing_shards(
    files: Sequence[Path],
    make: Callable[[int, Progress, int | None], Mapping[str, NDArray]],
    rows: Sequence[int],
    *,
    description: str,
    share: tuple[int, int] = (0, 1),
    whole: Callable[[int], object] | None = None,
) -> int:
    """Make the files that are missing or damaged; in several processes, each makes its part of them.

    Args:
        files: all in one folder; a file that is named several times is made once.
        make: returns the columns of a file, by its place among `files`; calls its second argument with the number of
            rows that are done, as often as it likes. The third is the place that comes next, if any.
        rows: of each file.
        description: of the stage, for the line that tells of it.
        share: (i, n): only every n-th file from the i-th on, for one of n machines.
        whole: called with the place of each file of this process when it is there, found or made: first for all that
            were found.

    Returns:
        The number of rows that this process made.

    Raises:
        ValueError: if something is missing and nothing can be written to the folder; see also `check_same_files` and
            `check_all_there`.
    """
    state = PartialState()
    folder = files[0].parent
    check_same_files([f"{folder.name}/{file.name}" for file in files])
    if state.is_main_process:
        remove_leftovers(folder)
    places = {file: place for place, file in reversed([*enumerate(files)])}
    of_share = [*dict.fromkeys(files)][share[0] :: share[1]]
    mine = of_share[state.process_index :: state.num_processes]
    record = read_record(folder)
    missing = [places[file] for file in mine if not is_whole(file, record)]
    if whole is not None:
        for place in {places[file] for file in mine} - {*missing}:
            whole(place)
    # Each process has looked at a share of all files. What all of them miss is divided anew.
    missing = sorted(gather_object(missing))[state.process_index :: state.num_processes]
    if missing:
        check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
    total = sum(rows[place] for place in missing)
    quiet = not (missing and state.is_main_process)
    with stage(description, total, quiet=quiet) as progress:
        for place, following in zip(missing, [*missing[1:], None], strict=False):
            write_shard(files[place], make(place, progress, following))
            if whole is not None:
                whole(place)
    state.wait_for_everyone()
    check_all_there(of_share)
    if state.is_main_process:
        stamps = {file.name: _stamp(file) for file in of_share}
        if not stamps.items() <= record.items():
            with suppress(OSError):  # the record only saves time, and a cache may be read-only
                write_json(folder / RECORD_NAME, read_record(folder) | stamps, indent=0)
    return total


def check_same_files(names: Sequence[str]) -> None:
    """Check that all processes of a launch name the same files, and so read the same rows.

    Raises:
        ValueError: in every process, if they do not.
    """
    digests = gather_object([xxhash.xxh3_128_hexdigest("\n".join(names).encode())])
    others = [process for process, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise ValueError(
            f"The processes {', '.join(map(str, others))} do not read the rows of process 0, or run another teacher:"
            " their columns have other names. Give every process of a launch the same rows in the same order, the same"
            " seed where rows are drawn, and the same teacher."
        )


def check_all_there(files: Sequence[Path]) -> None:
    """Check that every process of a launch sees all files, after they were made.

    Raises:
        ValueError: in every process, if one of them does not.
    """
    absent = gather_object([sum(not file.exists() for file in files)])
    blind = [process for process, count in enumerate(absent) if count]
    if blind:
        raise ValueError(
            f"The processes {', '.join(map(str, blind))} do not see all files in {files[0].parent} that the others have"
            " made: it is another folder there. Set columns_cache_dir to one that all processes share, or run the pass"
            " in shares (hf-lelp teacher-pass)."
        )


def open_shards(files: Sequence[Path]) -> Dataset:
    """Return the rows of all files in their order, mapped from disk, with a fingerprint of the files' names."""
    names = " ".join(file.name for file in files)
    fingerprint = xxhash.xxh3_128_hexdigest(f"{files[0].parent.name} {names}".encode())
    return Dataset(concat_tables([MemoryMappedTable.from_file(str(file)) for file in files]), fingerprint=fingerprint)


def _flat(array: pa.Array) -> NDArray:
    """Return an array as `_nested` took it."""
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return array.to_numpy().reshape(shape)


def _nested(values: NDArray) -> pa.Array:
    array = pa.array(values.ravel())
    for length in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    return array


def _metadata(file: Path) -> dict[bytes, bytes]:
    """Return what a shard says of itself: its format, and the folder and name that it was written under."""
    entries = {"hf_lelp_format": FORMAT_VERSION, "hf_lelp_shard": f"{file.parent.name}/{file.name}"}
    return {key.encode(): value.encode() for key, value in entries.items()}


def is_whole(file: Path, record: Mapping[str, Any]) -> bool:
    """Tell whether a file is there and whole; it is read through unless `read_record` knows it as it is."""
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


def _stamp(file: Path) -> list[Any]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, FORMAT_VERSION]


def read_record(folder: Path) -> dict[str, Any]:
    """Return the size, modification time and format version of each file when it was last known to be whole."""
    try:
        return read_json(folder / RECORD_NAME)
    except (FileNotFoundError, ValueError):
        return {}


def default_cache_dir() -> Path:
    """Return the folder `hf_lelp` in the cache folder of datasets."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_lelp"


def narrowed(values: NDArray[np.float32], dtype: str, name: str) -> NDArray:
    """Convert a column's values to the data type that it is kept in.

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
