"""The same seed gives the same targets, to the last bit: in one process and two, and after a restart."""

import os
import re
import subprocess
import sys
from pathlib import Path

from ports import free_port

SCRIPT = Path(__file__).parent / "targets.py"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


def digests(folder: Path, seed: int, launcher: list[str] | None = None, hash_seed: int = 0) -> list[str]:
    """The hash that each process found."""
    command = [*(launcher or [sys.executable]), str(SCRIPT), str(folder), str(seed)]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return re.findall(r"process \d of \d: (\w{64})", done.stdout)


def test_one_process_two_and_restarts_give_the_same_targets(tmp_path: Path) -> None:
    (first,) = digests(tmp_path / "one", seed=3)
    # What is kept is read again; elsewhere all is made again, in an order of sets and dictionaries of its own.
    assert digests(tmp_path / "one", seed=3, hash_seed=1) == [first]
    launch = [*LAUNCH, "--main_process_port", str(free_port())]
    assert digests(tmp_path / "two", seed=3, launcher=launch, hash_seed=2) == [first, first]
    assert digests(tmp_path / "one", seed=4) != [first]
