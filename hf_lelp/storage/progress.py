"""Says what long work is doing: a line a stage, with rows, rate and the time that remains."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

SHORT = 1.0  # seconds: a stage that takes less says nothing
EVERY = 30.0  # seconds between lines where there is no terminal


@contextmanager
def stage(what: str, total: int | None, *, unit: str = "row", quiet: bool = False) -> Iterator[Callable[[int], object]]:
    """Show how far a stage is, and in the end one line with its rows, time and rate.

    On a terminal, and in a notebook, one line moves and is then replaced. Elsewhere, as in a file, plain lines come
    twice a minute. TQDM_DISABLE in the environment hides both.

    Args:
        what: is done, as "Running the teacher".
        total: how much there is; `None` if that is not known.
        unit: of it.
        quiet: whether to show nothing.

    Yields:
        A function to call with how much more is done.
    """
    if quiet or os.environ.get("TQDM_DISABLE"):
        yield lambda more: None
        return
    counter = _Lines(what, total, unit)
    moves = sys.stderr.isatty() or "notebook" in tqdm.__module__
    bar = tqdm(total=total, desc=what, unit=unit, leave=False, delay=SHORT, disable=not moves, dynamic_ncols=True)

    def advance(more: int) -> None:
        counter.advance(more, plain=not moves)
        bar.update(more)

    try:
        yield advance
    finally:
        bar.close()
        counter.end()


class _Lines:
    """Counts what is done, and writes it as lines."""

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self.start = self.last = time.monotonic()

    def advance(self, more: int, *, plain: bool) -> None:
        self.done += more
        now = time.monotonic()
        if plain and now - self.last >= EVERY and self.done != self.total:
            self.last = now
            rate = self.done / (now - self.start)
            left = "" if self.total is None or not rate else f", {duration((self.total - self.done) / rate)} left"
            of = "" if self.total is None else f" of {self.total:,}"
            self._write(f"{self.what}: {self.done:,}{of} {self.unit}s, {rate:,.0f} {self.unit}s/s{left}")

    def end(self) -> None:
        seconds = time.monotonic() - self.start
        if seconds >= SHORT and self.done:
            rate = self.done / seconds
            self._write(f"{self.what}: {self.done:,} {self.unit}s in {duration(seconds)} ({rate:,.0f} {self.unit}s/s)")

    def _write(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Write a time as 42 s, 3:20 min or 2:05:00 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"
