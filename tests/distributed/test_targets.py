"""The same seed gives the same targets: to the last bit in one process, after a restart and in all of a launch.

The processes of a launch have seeds of their own: the first one's counts.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
from numpy.typing import NDArray
from ports import free_port

SCRIPT = Path(__file__).parent / "targets.py"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


def found(
    *folders: Path, seed: int, launcher: list[str] | None = None, hash_seed: int | None = None
) -> list[NDArray[np.float32]]:
    """The targets that each process found in each folder."""
    if hash_seed is None:
        done = forked.run(SCRIPT, *folders, str(seed))
    else:
        command = [*(launcher or [sys.executable]), str(SCRIPT), *map(str, folders), str(seed)]
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return [np.load(path) for folder in folders for path in sorted(folder.glob("targets-*.npy"))]


def test_one_process_two_and_restarts_give_the_same_targets(tmp_path: Path) -> None:
    (first,) = found(tmp_path / "one", seed=3)
    # What is kept is read again; elsewhere all is made again, in an order of sets and dictionaries of its own.
    again, anew = found(tmp_path / "one", tmp_path / "anew", seed=3, hash_seed=1)
    assert first.tobytes() == again.tobytes() == anew.tobytes()
    launcher = [*LAUNCH, "--main_process_port", str(free_port())]
    one, other = found(tmp_path / "two", seed=3, launcher=launcher, hash_seed=3)
    assert one.tobytes() == other.tobytes()
    np.testing.assert_allclose(one, first, rtol=0, atol=1e-5)  # the sums of a fit, in two parts, are rounded otherwise
    said = [json.loads((tmp_path / "two" / f"said-{rank}.json").read_text()) for rank in (0, 1)]
    assert all(said[0][name] == said[1][name] for name in ("settings", "rows"))
    assert "train one student with other settings: temperature is 1.0, 2.0." in said[0]["settings"]
    assert "The processes 1 do not read the rows of process 0" in said[0]["rows"]
    assert all("The processes 1 do not see all files in" in of["cache"] for of in said)  # the one file is process 0's
    (another,) = found(tmp_path / "one", seed=4)
    assert np.abs(another - first).max() > 1e-2
