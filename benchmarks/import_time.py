"""What importing hf_lelp adds to importing transformers. `python -m benchmarks.import_time`.

Both import what they are made of when it is first asked for, so two comparisons: the bare packages, and the trainers
with `datasets`, which every user of either has. Each import is timed in a fresh process; the pairs take turns.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import speed
from benchmarks.speed import Seconds, middle

PAIRS = {
    "the packages": ("import transformers", "import transformers, hf_lelp"),
    "the trainers": ("import datasets; from transformers import Trainer", "from hf_lelp import LELPTrainer"),
}
TIMED = """
import json, time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""


def seconds(statement: str) -> Seconds:
    """Time of an import in a fresh process."""
    code = TIMED.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return Seconds(*json.loads(done.stdout.splitlines()[-1]))


def main(pairs: dict[str, tuple[str, str]] = PAIRS, rounds: int = 5, folder: Path = speed.RESULTS) -> None:
    """Measure and write."""
    rows: list[dict[str, str | float]] = []
    for name, (without, with_us) in pairs.items():
        times = [(seconds(without), seconds(with_us)) for _ in range(rounds)]
        before, after = middle([pair[0] for pair in times]), middle([pair[1] for pair in times])
        added = middle([Seconds(b.wall - a.wall, b.cpu - a.cpu) for a, b in times])
        rows.append(
            {
                "what": name,
                "without us, s": before.cpu,
                "with us, s": after.cpu,
                "added, s": added.cpu,
                "added, s, wall": added.wall,
            }
        )
    speed.write("speed_import", rows, folder, rounds=rounds, statements=pairs)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
