"""Deprecated, for one release: `teacher_columns` is in `hf_lelp.teacher.columns`."""

import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "teacher_columns":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hf_lelp.teacher.columns import teacher_columns

    moved = "hf_lelp.columns.teacher_columns is hf_lelp.teacher.columns.teacher_columns now"
    warnings.warn(f"{moved}; this name goes with version 0.3", DeprecationWarning, stacklevel=2)
    return teacher_columns
