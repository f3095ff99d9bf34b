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

DIES_AT = 3  # batches that all actors have seen by then
REFUSES_FIRST = 8  # not of the block of the death: Ray does that one again, and may drop what comes of it, an error too


class MortalTeacher(Teacher):
    """The teacher of `runs`.

    Attributes:
        seen: a file with a line of texts for each of its calls, by any actor.
        refused: a file with the number of the call that is refused.
    """

    seen: Path
    refused: Path

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        with self.seen.open("a") as notes:
            notes.write("|".join(batch["text"]) + "\n")
        calls = len(self.seen.read_text().splitlines())
        if calls == DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == int(self.refused.read_text()):
            raise ValueError("Row 3 is refused, this once.")
        return super().__call__(batch)


def _make(seen: Path, refused: Path) -> MortalTeacher:
    teacher = MortalTeacher(runs.teacher_model(), tiny.tokenizer())
    teacher.seen, teacher.refused = seen, refused
    return teacher


def maker(seen: Path, refused: Path) -> Callable[[], MortalTeacher]:
    """What makes the teacher on an actor."""
    return partial(_make, seen, refused)
