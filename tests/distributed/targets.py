"""A LELP run up to its targets: each process saves those of all training rows. Started by test_targets.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import numpy as np
import runs
import torch
from accelerate import PartialState

from hf_lelp.losses import subclass_targets

if __name__ == "__main__":
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    run = runs.trainer(runs.config(folder, num_subclasses=4, seed=seed, max_steps=1))
    rows = run.train_dataset.with_format("torch")
    targets = subclass_targets(
        rows["teacher_logits"][:], run.subclass_scores(rows["teacher_projections"][:]), subclass_temperature=0.5
    )
    assert targets.shape == (runs.ROWS, 2, 4) and targets.dtype == torch.float32
    np.save(folder / f"targets-{PartialState().process_index}.npy", targets.numpy())
