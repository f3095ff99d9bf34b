"""LELP runs up to their targets, one in each folder: a process saves those of all training rows. For test_targets.py.

Every process has a seed of its own. Several processes then try what each must have alike, and save what is said of it.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import numpy as np
import runs
import torch
from accelerate import PartialState

from hf_lelp.losses import subclass_targets

RANK = int(os.environ.get("RANK", 0))


def refused(run: Callable[[], object]) -> str:
    try:
        run()
    except ValueError as error:
        return str(error)
    return "it was not refused"


def save_targets(folder: Path, seed: int) -> None:
    run = runs.trainer(runs.config(folder, num_subclasses=4, seed=seed + RANK, max_steps=1))
    rows = run.train_dataset.with_format("torch")
    targets = subclass_targets(
        rows["teacher_logits"][:], run.subclass_scores(rows["teacher_projections"][:]), subclass_temperature=0.5
    )
    assert targets.shape == (runs.ROWS, 2, 4) and targets.dtype == torch.float32
    np.save(folder / f"targets-{PartialState().process_index}.npy", targets.numpy())


if __name__ == "__main__":
    *names, last = sys.argv[1:]
    for name in names:
        save_targets(Path(name), int(last))
    folder = Path(names[-1])
    if PartialState().num_processes > 1:
        each = {
            "settings": lambda: runs.trainer(runs.config(folder, temperature=1.0 + RANK)),
            "rows": lambda: runs.trainer(runs.config(folder), train_dataset=runs.data(64, seed=RANK)),
            "cache": lambda: runs.trainer(runs.config(folder, columns_cache_dir=str(folder / f"of-{RANK}"))),
        }
        said = {name: refused(run) for name, run in each.items()}
        (folder / f"said-{RANK}.json").write_text(json.dumps(said))
