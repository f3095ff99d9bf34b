"""The evidence: every method on every task of the suite, in parts that resume. `make benchmark` runs the suite.

    python -m benchmarks.evidence [suite] [trials] [PART ...] [--seeds 5] [--processes 2]

A part's summary is written to benchmarks/results/PART.json as soon as its runs are there; the runs themselves are kept
in the cache folder of the suite. A later command with more seeds costs the new ones alone.
"""

import argparse
from itertools import chain

import datasets
import torch

from benchmarks.evidence.parts import PARTS, SUITE, TRIALS
from benchmarks.evidence.run import run_part

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m benchmarks.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"suite (the default: {', '.join(SUITE)}), trials ({', '.join(TRIALS)}) or one of these",
    )
    parser.add_argument("--seeds", type=int, help="runs of each method (default: each part's own number)")
    parser.add_argument("--processes", type=int, default=2, help="students to train at once (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.processes)
    datasets.disable_progress_bars()
    groups = {"suite": list(SUITE), "trials": list(TRIALS)}
    if unknown := [name for name in options.parts if name not in {*groups, *PARTS}]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join((*groups, *PARTS))}")
    for part_name in chain.from_iterable(groups.get(name, [name]) for name in options.parts or ["suite"]):
        run_part(part_name, options.seeds, options.processes)
