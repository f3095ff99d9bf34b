"""Distil few-class classifiers by LELP: linear projections of the teacher's embeddings as pseudo-subclasses."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["ClassProjections", "LELPConfig", "LELPTrainer", "Teacher", "TeacherLike", "load_student"]

# The module of each name, imported on first use: `import hf_lelp` costs next to nothing.
_EXPORTS = {
    "ClassProjections": "projections.class_projections",
    "LELPConfig": "config",
    "LELPTrainer": "trainer",
    "Teacher": "teacher.teacher",
    "TeacherLike": "teacher.protocol",
    "load_student": "student.loading",
}

if TYPE_CHECKING:
    from hf_lelp.config import LELPConfig
    from hf_lelp.projections.class_projections import ClassProjections
    from hf_lelp.student.loading import load_student
    from hf_lelp.teacher.protocol import TeacherLike
    from hf_lelp.teacher.teacher import Teacher
    from hf_lelp.trainer import LELPTrainer


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
