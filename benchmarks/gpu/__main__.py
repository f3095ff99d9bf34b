"""What the library does on one GPU: `python -m benchmarks.gpu`, in less than eight minutes.

Data are generated and models have random weights, the teacher of BERT-base's size, so that nothing is fetched. The
results are in benchmarks/results/gpu.json; `python -m benchmarks.speed.page` puts them into the page on
performance.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import run
from benchmarks.places import RESULTS
from benchmarks.speed.common import write_result


def main(small: bool = False, folder: Path | None = None) -> list[dict[str, Any]]:
    """Run all stages; what is done is in the folder, if there is one, after each of them."""
    run.refuse_without_gpu(small)
    stages: list[dict[str, Any]] = []
    start = time.perf_counter()
    for name, stage in run.STAGES.items():
        stages.append(run.run_apart(name, small, stage.budget))
        print(f"{name}: {stages[-1]}", flush=True)
        if folder is not None:
            machine = next((one["machine"] for one in stages if one["machine"]), "unknown")
            write_result("gpu", [], folder, machine=machine, seconds=time.perf_counter() - start, stages=stages)
    return stages


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="try every stage with tiny models, on a CPU too")
    parser.add_argument("--stage", choices=[*run.STAGES], help="run this stage alone, in this process")
    arguments = parser.parse_args()
    if arguments.stage:
        run.run_here(arguments.stage, arguments.small, lambda line: print(line, flush=True))
    else:
        main(arguments.small, None if arguments.small else RESULTS)
