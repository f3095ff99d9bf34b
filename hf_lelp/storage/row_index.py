"""Finds rows in the shards of a folder by keys of their content, and copies their columns.

Beside a shard of rows that have keys lies a sidecar, a shard of the keys alone: `NAME.rows` of `NAME.arrow`. A part,
`NAME.part`, has the columns and the keys of some rows of a shard that is not whole yet. The index is a cache of a
cache: a row that it misses is made again.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_lelp.storage.shards import check_shard, is_whole, read_columns, read_record, write_shard

logger = logging.getLogger(__name__)

KEY_COLUMNS = ("row_key_high", "row_key_low")
SIDECAR, PART = ".rows", ".part"


def key_columns(keys: NDArray[np.uint64]) -> dict[str, NDArray]:
    """Return keys, (n, 2), as columns of a shard."""
    return dict(zip(KEY_COLUMNS, keys.T, strict=True))


def has_sidecar(file: Path) -> bool:
    """Tell whether a shard has a whole sidecar."""
    try:
        check_shard(file.with_suffix(SIDECAR))
    except OSError:
        return False
    except ValueError as error:
        logger.warning(f"{file.with_suffix(SIDECAR)} is made again: {error}.")
        return False
    return True


def write_sidecar(file: Path, keys: NDArray[np.uint64]) -> None:
    """Write the keys of a shard's rows, (n, 2), beside it."""
    write_shard(file.with_suffix(SIDECAR), key_columns(keys))


class RowIndex:
    """The rows of all shards of a folder, and of parts, by their keys: 20 bytes a row in memory.

    Sorted runs hold the first half of each key and the row's number. A new run is merged with those before it that are
    no longer than it: there are never many, and a row is merged seldom. The second half is compared in the end.

    Args:
        folder: it is read once; what others write there afterwards is not found.
    """

    def __init__(self, folder: Path) -> None:
        self._record = read_record(folder)
        self._files: list[Path] = []  # with the columns
        self._starts: list[int] = []  # number of each file's first row
        self._lows: list[NDArray[np.uint64]] = []  # second halves, by file
        self._columns: dict[int, dict[str, NDArray]] = {}  # of the files that rows were copied from
        self._count = 0
        self._runs: list[_Run] = []
        highs = []
        for keyed in sorted([*folder.glob(f"[!.]*{SIDECAR}"), *folder.glob(f"[!.]*{PART}")]):
            try:
                check_shard(keyed)
                high, low = (read_columns(keyed)[name] for name in KEY_COLUMNS)
            except (OSError, ValueError, KeyError) as error:
                logger.info(f"{keyed} is passed over: {error}.")
                continue
            file = keyed.with_suffix(".arrow") if keyed.suffix == SIDECAR else keyed
            if file.exists():
                self._append(file, low)
                highs.append(high)
        if highs:
            self._runs.append(_Run.of(np.concatenate(highs)))
        self._lows = [low.copy() for low in self._lows]  # not mapped any more, and not while the others are sorted

    def add(self, file: Path, keys: NDArray[np.uint64]) -> None:
        """Add the rows of a shard, by their keys, (n, 2)."""
        high, low = (np.ascontiguousarray(half) for half in keys.T)
        run = _Run.of(high, np.arange(self._count, self._count + len(high), dtype=np.uint32))
        self._append(file, low)
        while self._runs and len(self._runs[-1].high) <= len(run.high):
            last = self._runs.pop()
            run = _Run.of(np.concatenate([last.high, run.high]), np.concatenate([last.number, run.number]))
        self._runs.append(run)

    def copy(self, keys: NDArray[np.uint64], into: Mapping[str, NDArray]) -> tuple[NDArray[np.bool_], list[Path]]:
        """Copy the columns of the rows that are found; a shard is checked before a row is copied out of it.

        Args:
            keys: of the rows wanted, (n, 2).
            into: the columns to fill, (n, …) each.

        Returns:
            Which rows were found, (n,), and the file that each of those came from.
        """
        found = np.zeros(len(keys), dtype=bool)
        sources = np.full(len(keys), -1)
        damaged = True
        while damaged:  # then the same rows may be in another shard
            damaged = False
            files, rows = self._find(keys)
            for number in np.unique(files[(files >= 0) & ~found]):
                columns = self._columns_of(number)
                if columns is None or any(columns[name].dtype != into[name].dtype for name in into):
                    self._forget(number)
                    damaged = True
                    continue
                places = np.flatnonzero((files == number) & ~found)
                for name, values in into.items():
                    values[places] = columns[name][rows[places]]
                found[places], sources[places] = True, number
        return found, [self._files[number] for number in sources[found]]

    def _append(self, file: Path, low: NDArray[np.uint64]) -> None:
        self._files.append(file)
        self._starts.append(self._count)
        self._lows.append(low)
        self._count += len(low)

    def _find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of the file of each row, (n,), −1 for none, and the row in it."""
        files, rows = np.full(len(keys), -1), np.zeros(len(keys), dtype=np.int64)
        high, low = keys.T
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.high, high), max(len(run.high) - 1, 0))
            (alike,) = np.nonzero((run.high[at] == high) & (files < 0)) if len(run.high) else (np.empty(0, int),)
            numbers = run.number[at[alike]].astype(np.int64)
            of_file = np.searchsorted(self._starts, numbers, side="right") - 1
            in_file = numbers - np.asarray(self._starts)[of_file]
            for file in np.unique(of_file):
                mine = of_file == file
                same = self._lows[file][in_file[mine]] == low[alike[mine]]
                files[alike[mine][same]], rows[alike[mine][same]] = file, in_file[mine][same]
        return files, rows

    def _columns_of(self, number: int) -> dict[str, NDArray] | None:
        """Return the columns of a file, or `None` if it is gone, damaged or of another number of rows."""
        if number not in self._columns:
            file = self._files[number]
            try:
                if not is_whole(file, self._record):
                    return None
                columns = read_columns(file)
            except OSError:
                return None
            if any(len(values) != len(self._lows[number]) for values in columns.values()):
                return None
            self._columns[number] = columns
        return self._columns[number]

    def _forget(self, number: int) -> None:
        """Take a file's rows out of every run."""
        first, last = self._starts[number], self._starts[number] + len(self._lows[number])
        kept = [(run.number < first) | (run.number >= last) for run in self._runs]
        self._runs = [_Run(run.high[keep], run.number[keep]) for run, keep in zip(self._runs, kept, strict=True)]


class _Run(NamedTuple):
    """First halves of keys, (n,), sorted, and the numbers of their rows, (n,)."""

    high: NDArray[np.uint64]
    number: NDArray[np.uint32]

    @classmethod
    def of(cls, high: NDArray[np.uint64], number: NDArray[np.uint32] | None = None) -> "_Run":
        """Sort `high` in place; without numbers its rows are the first ones, in their order."""
        order = np.argsort(high)
        high.sort()
        return cls(high, order.astype(np.uint32) if number is None else number[order])
