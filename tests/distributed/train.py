"""A short training run, to be launched in one process or several: `train.py FOLDER BATCH`.

Writes the student's weights as FOLDER/trainer.safetensors. Several processes train once more, with torch's FSDP 2 in a
plain loop, since Accelerate does not offer that on the CPU: FOLDER/sharded.safetensors.
"""

import sys
from functools import partial
from pathlib import Path

import runs
import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from hf_lelp import LELPTrainer

STEPS = 20


def train_sharded(run: LELPTrainer) -> None:
    """What Trainer does with SGD, on parameters of which every process holds its part."""
    mesh = init_device_mesh("cpu", (PartialState().num_processes,))
    for layer in run.model.bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    model = fully_shard(run.model, mesh=mesh).train()
    assert isinstance(next(model.parameters()), DTensor)
    optimizer = torch.optim.SGD(model.parameters(), lr=run.args.learning_rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for _, batch in zip(range(STEPS), run.get_train_dataloader(), strict=False):
        run.compute_loss(model, batch).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), run.args.max_grad_norm)
        assert isinstance(norm, DTensor)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()


def save(run: LELPTrainer, file: Path) -> None:
    weights = run.accelerator.unwrap_model(run.model).state_dict()
    whole = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in weights.items()}
    if PartialState().is_main_process:
        save_file({name: value.contiguous() for name, value in whole.items()}, file)


def main(folder: Path, batch: int) -> None:
    args = runs.config(folder, max_steps=STEPS, per_device_train_batch_size=batch)
    new = partial(runs.trainer, args, train_dataset=runs.data(320))
    run = new(model=runs.student(dropout=False))
    run.train()
    save(run, folder / "trainer.safetensors")
    if PartialState().num_processes > 1:
        assert isinstance(run.model_wrapped, torch.nn.parallel.DistributedDataParallel)
        run = new(model=runs.student(dropout=False))
        train_sharded(run)
        save(run, folder / "sharded.safetensors")
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
