"""Defines what a teacher must offer: `Teacher` does, and so can a scikit-learn pipeline."""

from typing import Any, Protocol, runtime_checkable

from hf_lelp.classifiers import LinearHead


@runtime_checkable
class TeacherLike(Protocol):
    """Anything whose logits are a linear map of an embedding. examples/sklearn_teacher.py has one.

    The members are properties here, so that a plain attribute, a field or a property will do.
    """

    @property
    def input_columns(self) -> list[str]:
        """The columns of the data that it reads."""
        ...

    @property
    def class_names(self) -> list[str] | None:
        """Names of its C classes, in the data's order; `None` where they have none."""
        ...

    @property
    def head(self) -> LinearHead:
        """The linear map, z = h Wᵀ + b, with W of (C, D)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the row that a row's results depend on. The columns are kept under it."""
        ...

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
        """Return columns for a batch of rows: `teacher_logits`, (n, C), and `teacher_embedding`, (n, D), floats."""
        ...
