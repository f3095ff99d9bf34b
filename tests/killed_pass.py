"""A teacher pass in a process of its own, to be killed: `python killed_pass.py CACHE` over the rows of `data`."""

import sys

import runs
from datasets import Dataset

import hf_lelp.columns

SHARD_ROWS = 16


def data() -> Dataset:
    return runs.data(320)


if __name__ == "__main__":
    hf_lelp.columns.SHARD_ROWS = SHARD_ROWS
    hf_lelp.columns.teacher_columns(data(), runs.teacher(), sys.argv[1])
