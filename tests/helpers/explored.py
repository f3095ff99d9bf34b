"""Rows to explore, made up so that what is to be found is known; and a hostile text."""

from typing import Any

import numpy as np
import torch

from hf_lelp.explore.rows import Explored
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.student.answers import Answers

HOSTILE = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'> \" ' & <b>"
WORDS = ["apple", "banana", "cherry", "damson"]


def projections(classes: int = 2, directions: int = 4, size: int = 8) -> ClassProjections:
    return ClassProjections(
        mean=torch.zeros(classes, size),
        directions=torch.eye(size)[:directions].repeat(classes, 1, 1),
        variance=torch.tensor([[4.0, 3.0, 2.0, 1.0][:directions]] * classes),
        count=torch.full((classes,), 100),
        null_space=True,
        teacher="someone",
        total_variance=torch.full((classes,), 20.0),
    )


def rows(count: int = 400, subclasses: int = 4, *, students: bool = True, **changes: Any) -> Explored:
    """Two classes of some subclasses, equally many rows of each; students are often wrong in subclass 1 of class 0."""
    generator = np.random.default_rng(0)
    subclass, label = np.arange(count) % subclasses, np.arange(count) // subclasses % 2
    scores = 4 * np.eye(subclasses)[subclass] + generator.normal(size=(count, subclasses))
    scores[np.arange(count), subclass] += 8
    teacher = 3.0 * np.eye(2)[label]
    wrong = (subclass == 1 % subclasses) & (label == 0) & (generator.random(count) < 0.7)
    logits = np.where(wrong[:, None], -1, 1) * teacher + generator.normal(size=(count, 2)) / 10
    teacher[0] = teacher[0][::-1] * 2  # a confident error
    answers = {
        "kd": Answers(logits, generator.normal(size=(count, 6))),
        "lelp": Answers(logits, np.concatenate([scores[:, :3], generator.normal(size=(count, 3))], axis=1)),
    }
    known: dict[str, Any] = {
        "classes": ["negative", "positive"],
        "labels": label,
        "teacher": teacher,
        "directions": generator.normal(size=(count, 4)),
        "scores": scores,
        "projections": projections(),
        "students": answers if students else {},
        "texts": [f"{WORDS[number % 4]} and row {row}" for row, number in enumerate(subclass)],
        "groups": [("red", "blue")[row // 7 % 2] for row in range(count)],
    }
    return Explored(**{**known, **changes})
