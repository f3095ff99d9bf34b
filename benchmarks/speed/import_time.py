"""What importing hf_lelp adds to importing transformers. `python -m benchmarks.speed.import_time`.

Both import what they are made of when it is first asked for, so two comparisons: the bare packages, and the trainers
with `datasets`, which every user of either has. In a fresh process each time, theirs is imported
first and then ours.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.places import RESULTS
from benchmarks.speed.common import Seconds, middle, write_result

PAIRS = {
    "the packages": ("import transformers", "import hf_lelp"),
    "the trainers": (
        "import datasets; from transformers import Trainer",
        "from hf_lelp import LELPConfig, LELPTrainer",
    ),
}
TIMED = """
import json, time
def now():
    return [time.perf_counter(), time.process_time()]
start = now()
{theirs}
between = now()
{ours}
print(json.dumps([start, between, now()]))
"""


def seconds(theirs: str, ours: str) -> tuple[Seconds, Seconds]:
    """Time of their import and of ours after it, in a fresh process."""
    code = TIMED.format(theirs=theirs, ours=ours)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start, between, end = (Seconds(*at) for at in json.loads(done.stdout.splitlines()[-1]))
    return (
        Seconds(between.wall - start.wall, between.cpu - start.cpu),
        Seconds(end.wall - between.wall, end.cpu - between.cpu),
    )


def main(pairs: dict[str, tuple[str, str]] = PAIRS, rounds: int = 5, folder: Path = RESULTS) -> None:
    """Measure and write."""
    rows: list[dict[str, str | float]] = []
    for name, (theirs, ours) in pairs.items():
        times = [seconds(theirs, ours) for _ in range(rounds)]
        before, added = middle([one for one, _ in times]), middle([other for _, other in times])
        rows.append(
            {"what": name, "theirs, s": before.cpu, "ours adds, s": added.cpu, "ours adds, s, wall": added.wall}
        )
    write_result("speed_import", rows, folder, rounds=rounds, statements=pairs)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
