"""A teacher for Ray's actors that notes what it sees, once dies of a batch, and once refuses another."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import runs
import tiny

from hf_lelp import Teacher

# Batches that all actors have seen by then. The refusal is not in the block of the death: Ray does that block again,
# and may drop what comes of it, an error too.
DIES_AT, REFUSES_AT = 3, 8


class MortalTeacher(Teacher):
    """The teacher of `runs`; `seen` is a file with a line of texts for each of its calls, by any actor."""

    seen: Path

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        with self.seen.open("a") as notes:
            notes.write("|".join(batch["text"]) + "\n")
        calls = len(self.seen.read_text().splitlines())
        if calls == DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == REFUSES_AT:
            raise ValueError("Row 3 is refused, this once.")
        return super().__call__(batch)


def _make(seen: Path) -> MortalTeacher:
    teacher = MortalTeacher(runs.teacher_model(), tiny.tokenizer())
    teacher.seen = seen
    return teacher


def maker(seen: Path) -> Callable[[], MortalTeacher]:
    """What makes the teacher on an actor."""
    return partial(_make, seen)
