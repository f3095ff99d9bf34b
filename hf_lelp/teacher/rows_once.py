"""Makes shards of the teacher's columns: copies the rows that were run before, and runs the others, each once."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN
from hf_lelp.data.encoding import taken
from hf_lelp.data.rows import as_bytes, media_columns, row_keys
from hf_lelp.storage.row_index import PART, RowIndex, has_sidecar, key_columns, write_sidecar
from hf_lelp.storage.shards import Progress, narrowed, read_columns, write_shard
from hf_lelp.teacher.protocol import TeacherLike
from hf_lelp.teacher.teacher import Teacher

logger = logging.getLogger(__name__)

KEEP_SECONDS = 30.0  # what was run is on the disk after this time


@dataclass(frozen=True)
class Kept:
    """What a pass keeps of each row in place of the teacher's own columns, such as projections without embeddings.

    Attributes:
        folder: of its shards.
        shapes: of a row's columns, by name.
        of: from the teacher's columns of some rows to these.
    """

    folder: Path
    shapes: Mapping[str, tuple[int, ...]]
    of: Callable[[Mapping[str, NDArray]], Mapping[str, Any]]


class RowsOnce:
    """Makes the shards of a dataset's rows, as `make_missing_shards` asks for them.

    A shard's rows that another shard has, or that a killed pass left in a part, are copied. The index of these is
    loaded with the first shard that is missing; where other columns are kept, so is that of the teacher's own. The rows
    that are left are run in the order of the dataset, each once. Every `KEEP_SECONDS` they go to the shard's part,
    which goes away when the shard is there.

    Args:
        parts: the rows of each shard, the teacher's input columns alone.
        files: of the shards.
        teacher: the classifier.
        dtype: of the columns.
        decoded_rows: rows of a call where one call for a shard would take too much memory or time: images and sounds,
            and teachers that do not give their results in batches.
        whole: folder of the teacher's own columns.
        kept: what the shards hold in their place, if anything.

    Attributes:
        rows_run: how many the teacher was run over.
        teacher: the classifier.
    """

    def __init__(
        self,
        parts: Sequence[Dataset],
        files: Sequence[Path],
        teacher: TeacherLike,
        dtype: str,
        decoded_rows: int,
        whole: Path,
        kept: Kept | None = None,
    ) -> None:
        self.rows_run = 0
        self._whole = cache(lambda: RowIndex(whole))
        self._kept = kept
        self.teacher = teacher
        self._parts, self._files, self._dtype = parts, files, dtype
        self._decoded_rows = decoded_rows
        self._index: RowIndex | None = None
        self._keys = lru_cache(maxsize=1)(lambda place: row_keys(parts[place]))
        self._writable = True
        self._reader = ThreadPoolExecutor(1)
        self._read: dict[int, Future[dict[str, list[Any]]]] = {}  # tokens of the shard that comes next

    def make(self, place: int, progress: Progress, following: int | None = None) -> Mapping[str, NDArray]:
        """Return the columns of one shard's rows, (n, …) each. Its folder, not every row, says who made them."""
        part = self._parts[place]
        if self._index is None:
            self._index = RowIndex(self._files[place].parent)
        # The first row of each key stands for all.
        _, first, same = np.unique(as_bytes(self._keys(place)), return_index=True, return_inverse=True)
        shard = _Shard(self._files[place], self._keys(place), self.teacher, self._dtype, self._kept)
        left = shard.copy(self._index, np.sort(first))
        if self._kept is not None and len(left):
            left = shard.convert(self._whole(), left)
        progress(len(part) - len(left))
        if len(left):
            self._run(shard, place, left, progress, following)
        if len(first) == len(part):
            return shard.columns
        return {name: values[first[same]] for name, values in shard.columns.items()}

    def whole(self, place: int) -> None:
        """Give a shard its sidecar, if it has none, and remove its part."""
        file = self._files[place]
        part = file.with_suffix(PART)
        if part.exists():  # a cache may be read-only: to remove what is not there fails too
            part.unlink()
        if self._writable and not has_sidecar(file):
            try:
                write_sidecar(file, self._keys(place))
            except OSError as error:  # a cache may be read-only: then do not hash its rows either
                logger.warning(f"The rows of {file.parent} will not be found again in other datasets: {error}.")
                self._writable = False
        if self._index is not None:
            self._index.add(file, self._keys(place))

    def _run(
        self, shard: "_Shard", place: int, left: NDArray[np.integer], progress: Progress, following: int | None
    ) -> None:
        """Run the teacher over the rows of a shard that are left, and keep them in its part now and then."""
        kept = time.monotonic()
        try:
            for places, columns in self._results(place, left, int(shard.own.sum()), following):
                shard.fill(left[places], columns)
                self.rows_run += len(places)
                progress(len(places))
                if time.monotonic() - kept >= KEEP_SECONDS:
                    shard.keep()
                    kept = time.monotonic()
        except BaseException:
            shard.keep()
            raise

    def _results(
        self, place: int, left: NDArray[np.integer], done: int, following: int | None
    ) -> Iterator[tuple[NDArray[np.integer], Mapping[str, Any]]]:
        """Yield places in `left`, (k,), and the teacher's results for these rows, after each forward pass.

        With `done` rows of an earlier, interrupted pass, the passes are those that it would have made next.
        """
        part, teacher = self._parts[place], self.teacher
        own_call = not isinstance(teacher, Teacher) or type(teacher).__call__ is not Teacher.__call__
        if isinstance(teacher, Teacher) and teacher.pipelined and not (own_call or media_columns(part)):
            read = self._read.pop(place, None)
            tokens = teacher.encoded(part[:]) if read is None else read.result()
            if following is not None:  # all of its rows: which are left is known when this shard is there
                next_part = self._parts[following]
                self._read = {following: self._reader.submit(lambda: teacher.encoded(next_part[:]))}
            yield from teacher.in_batches(taken(tokens, left), encoded=True)
            return
        rows = part if len(left) == len(part) else part.select(left)
        size = self._decoded_rows if media_columns(part) or own_call else len(left) + done
        starts = [0, *range(size - done % size, len(left), size)]
        for start, end in zip(starts, [*starts[1:], len(left)], strict=True):
            batch = rows[start:end]
            if isinstance(teacher, Teacher) and not own_call:
                for places, columns in teacher.in_batches(batch):
                    yield start + places, columns
            else:
                yield np.arange(start, end), teacher(batch)


def rows_in_part(file: Path) -> int:
    """Return how many rows of a shard that is not there are in its part."""
    try:
        return len(read_columns(file.with_suffix(PART))[LOGITS_COLUMN])
    except (OSError, ValueError, KeyError):
        return 0


class _Shard:
    """The columns of a shard in the making; `own` says which of its rows were run for it."""

    def __init__(
        self, file: Path, keys: NDArray[np.uint64], teacher: TeacherLike, dtype: str, kept: Kept | None
    ) -> None:
        self.own = np.zeros(len(keys), dtype=bool)
        num_classes, size = teacher.head.weight.shape
        self._given = {LOGITS_COLUMN: (num_classes,), EMBEDDING_COLUMN: (size,)}
        shapes = self._given if kept is None else kept.shapes
        self.columns = {name: np.zeros((len(keys), *shape), dtype=dtype) for name, shape in shapes.items()}
        self._part, self._keys, self._maker = file.with_suffix(PART), keys, type(teacher).__name__
        self._dtype, self._kept = dtype, kept

    def copy(self, index: RowIndex, rows: NDArray[np.integer]) -> NDArray[np.integer]:
        """Fill those of the rows that the index has, and return the others."""
        wanted = {name: np.empty_like(values[rows]) for name, values in self.columns.items()}
        found, sources = index.copy(self._keys[rows], wanted)
        for name, values in wanted.items():
            self.columns[name][rows[found]] = values[found]
        self.own[rows[found]] = [source == self._part for source in sources]
        return rows[~found]

    def convert(self, whole: RowIndex, rows: NDArray[np.integer]) -> NDArray[np.integer]:
        """Fill those of the rows whose columns of the teacher an index has, and return the others."""
        columns = {name: np.empty((len(rows), *shape), dtype=self._dtype) for name, shape in self._given.items()}
        found, _ = whole.copy(self._keys[rows], columns)
        if found.any():
            self.fill(rows[found], {name: values[found] for name, values in columns.items()})
        return rows[~found]

    def fill(self, rows: NDArray[np.integer], results: Mapping[str, Any]) -> None:
        """Put in the teacher's results for some rows.

        Raises:
            ValueError: if they have another shape than its head tells, or a value is too large for the data type.
        """
        given = {}
        for name, shape in self._given.items():
            values = np.asarray(results[name], dtype=np.float32)
            if values.shape != (len(rows), *shape):
                layer = tuple(self._given[column][0] for column in (LOGITS_COLUMN, EMBEDDING_COLUMN))
                raise ValueError(
                    f"{self._maker} gave {name} of shape {values.shape} for {len(rows)} rows, and its final"
                    f" layer has {layer}."
                )
            # What is made of them is made of what would have been kept: it does not tell which rows were found.
            given[name] = narrowed(values, self._dtype, name)
        kept = given if self._kept is None else self._kept.of(given)
        for name, column in self.columns.items():
            column[rows] = narrowed(np.asarray(kept[name]), self._dtype, name)
        self.own[rows] = True

    def keep(self) -> None:
        """Write the rows that were run for this shard to its part."""
        if not self.own.any():
            return
        columns = {name: values[self.own] for name, values in self.columns.items()}
        try:
            write_shard(self._part, columns | key_columns(self._keys[self.own]))
        except OSError as error:  # the shard may yet fit on the disk, and says so if it does not
            logger.warning(f"{len(columns[LOGITS_COLUMN])} rows could not be kept in {self._part}: {error}.")
