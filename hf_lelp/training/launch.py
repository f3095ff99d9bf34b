"""Checks how a run was launched: one GPU a process, and the same settings in all processes."""

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.utils import gather_object

from hf_lelp.config import LELPConfig

logger = logging.getLogger(__name__)


def check_launch(args: LELPConfig) -> None:
    """Check that this process has one GPU at most, and knows of the processes launched beside it.

    Raises:
        RuntimeError: with several GPUs in one process, or several processes that do not know of each other.
    """
    if args.world_size == 1 and int(os.environ.get("WORLD_SIZE", 1)) > 1 and "LOCAL_RANK" in os.environ:
        raise RuntimeError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but each would train alone and overwrite the others."
            " On a machine without GPUs set use_cpu=True (--use_cpu)."
        )
    if args.n_gpu > 1:
        raise RuntimeError(
            f"{args.n_gpu} GPUs in one process would train with DataParallel, which LELPTrainer does not support."
            f" Start the script with `accelerate launch --num_processes {args.n_gpu}`, or show it one GPU"
            " (CUDA_VISIBLE_DEVICES=0)."
        )


SEEDS = ("seed", "data_seed", "rotation_seed")


def common_settings(args: LELPConfig) -> LELPConfig:
    """Give all processes of a launch the seeds of the first one, and check that they have the same settings of LELP.

    With seeds of its own, each process would rotate the directions, order the rows and choose a trial's rows otherwise.
    The one student would then learn other subclasses from each.

    Returns:
        `args`, or a copy with the seeds of the first process where they differ.

    Raises:
        ValueError: in every process, see `check_same_settings`.
    """
    kinds = ("loss", "subclasses", "directions", "training")  # the teacher's fingerprint holds those of columns
    own = [name for name, item in LELPConfig.__dataclass_fields__.items() if item.metadata.get("changes") in kinds]
    of_all = gather_object([{name: getattr(args, name) for name in {*own, *SEEDS}}])
    check_same_settings([{name: of[name] for name in own if name not in SEEDS} for of in of_all])
    seeds = [{name: of[name] for name in SEEDS} for of in of_all]
    if all(of == seeds[0] for of in seeds):
        return args
    logger.warning(f"The processes have the seeds {', '.join(str(of['seed']) for of in seeds)}; all take the first.")
    args = copy.copy(args)
    for name, value in seeds[0].items():
        setattr(args, name, value)
    return args


def check_same_settings(of_all: Sequence[Mapping[str, Any]]) -> None:
    """Refuse settings that differ among the processes of a launch: they train one student.

    Args:
        of_all: settings of each process, by name.

    Raises:
        ValueError: naming the settings, with the value of each process.
    """
    first, *others = of_all
    differ = [name for name in first if any(of[name] != first[name] for of in others)]
    if differ:
        found = "; ".join(f"{name} is {', '.join(str(of[name]) for of in of_all)}" for name in differ)
        raise ValueError(f"The processes of this launch train one student with other settings: {found}. Set one value.")
