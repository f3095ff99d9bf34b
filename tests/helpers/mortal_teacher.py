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

REFUSES_FIRST = 8  # batches that all actors have seen by then


class MortalTeacher(Teacher):
    """The teacher of `runs`.

    Attributes:
        seen: a file with a line of texts for each of its calls, by any actor.
        refused: a file with the number of the call that is refused.
        dies: a file with the number of the call that ends its actor.
    """

    seen: Path
    refused: Path
    dies: Path

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        with self.seen.open("a") as notes:
            notes.write("|".join(batch["text"]) + "\n")
        calls = len(self.seen.read_text().splitlines())
        if calls == int(self.dies.read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == int(self.refused.read_text()):
            raise ValueError("Row 3 is refused, this once.")
        return super().__call__(batch)


def _make(seen: Path, refused: Path, dies: Path) -> MortalTeacher:
    teacher = MortalTeacher(runs.teacher_model(), tiny.tokenizer())
    teacher.seen, teacher.refused, teacher.dies = seen, refused, dies
    return teacher


def maker(seen: Path, refused: Path, dies: Path) -> Callable[[], MortalTeacher]:
    """What makes the teacher on an actor."""
    return partial(_make, seen, refused, dies)
