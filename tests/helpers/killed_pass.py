"""A teacher pass in a process of its own, to be killed: `python killed_pass.py CACHE [PASSES]` over the rows of `data`.

After `SHARDS` shards it waits, so that it cannot end before it is killed; with PASSES, before the next forward pass
after so many, of `BATCH` rows each, which are kept one by one.
"""

import sys
import time
from pathlib import Path
from typing import Any

import runs
from datasets import Dataset

import hf_lelp.teacher.columns
import hf_lelp.teacher.rows_once

SHARD_ROWS = 16
SHARDS = 5
BATCH = 4


def data() -> Dataset:
    return runs.data(320)


if __name__ == "__main__":
    folder, batch = Path(sys.argv[1]), {"batch_size": BATCH} if sys.argv[2:] else {}
    teacher, passes = runs.teacher(**batch), []
    teacher._checked = True  # else the first pass is made twice

    def wait(*args: Any) -> None:
        if len(list(folder.rglob("[!.]*.arrow"))) == SHARDS or [len(passes)] == [*map(int, sys.argv[2:])]:
            print("waiting", flush=True)
            for _ in range(3000):  # a signal just before one long wait would be heeded after it
                time.sleep(0.1)
            sys.exit("nobody killed it")
        passes.append(args)

    teacher.model.register_forward_pre_hook(wait)
    hf_lelp.teacher.columns.SHARD_ROWS = SHARD_ROWS
    if sys.argv[2:]:
        hf_lelp.teacher.rows_once.KEEP_SECONDS = 0.0
    hf_lelp.teacher.columns.teacher_columns(data(), teacher, folder)
