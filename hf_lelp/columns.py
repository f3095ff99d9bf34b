"""Forwards `teacher_columns` to `hf_lelp.teacher.columns`. Deprecated; it stays for one release."""

import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "teacher_columns":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hf_lelp.teacher.columns import teacher_columns

    moved = "hf_lelp.columns.teacher_columns is hf_lelp.teacher.columns.teacher_columns now"
    warnings.warn(f"{moved}; version 0.3 removes the old name", DeprecationWarning, stacklevel=2)
    return teacher_columns
