"""A teacher pass in a process of its own, to be killed: `python killed_pass.py CACHE` over the rows of `data`.

After `SHARDS` shards it waits, so that it cannot end before it is killed.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import runs
from datasets import Dataset

import hf_lelp.teacher.columns

SHARD_ROWS = 16
SHARDS = 5


def data() -> Dataset:
    return runs.data(320)


if __name__ == "__main__":
    folder, teacher = Path(sys.argv[1]), runs.teacher()

    def wait(*args: Any) -> None:
        if len(list(folder.rglob("[!.]*.arrow"))) == SHARDS:
            signal.alarm(300)  # its end, should nobody kill it
            signal.pause()

    teacher.model.register_forward_pre_hook(wait)
    hf_lelp.teacher.columns.SHARD_ROWS = SHARD_ROWS
    hf_lelp.teacher.columns.teacher_columns(data(), teacher, folder)
