"""τ, S and β chosen for the user, on a validation part of the training data, over columns that are there already.

1. Plain distillation at each temperature τ, with a third of the training; the best one stays.
2. LELP at that τ with each S and β, with a third of the training; the best one stays.
3. The best of each with all of the training: LELP is taken unless plain distillation does better.

The teacher is not run, and the test data not touched. The cost is that of about four trainings.
"""

import copy
import logging
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from hf_lelp.config import AUTO, MOST_SUBCLASSES, LELPConfig
from hf_lelp.prepare import classes_of

logger = logging.getLogger(__name__)

TEMPERATURES = (1.0, 2.0, 4.0)
SUBCLASSES = (4, MOST_SUBCLASSES)
SUBCLASS_TEMPERATURES = (0.5, 1.0)
VALIDATION_SHARE = 0.2
MOST_VALIDATION_ROWS = 5000
SHORT = 1 / 3  # of the training, for the first two steps

# From settings, rows to train on and rows to answer to the logits of the latter, (n, C).
Fit = Callable[[LELPConfig, Dataset, Dataset], NDArray[np.floating]]


def choose_settings(args: LELPConfig, dataset: Dataset, fit: Fit) -> list[dict[str, Any]]:
    """Choose what is "auto" in `args`, and set it there.

    Args:
        args: changed in place.
        dataset: training data with the teacher's columns and, where there are any, labels.
        fit: trains a student and gives its logits.

    Returns:
        What was tried, in order: settings, share of the training and validation accuracy; the last one with
        `"chosen": True` was taken. The accuracy is with the labels, or where a row has none with the teacher's class.
    """
    rows = min(round(VALIDATION_SHARE * len(dataset)), MOST_VALIDATION_ROWS)
    parts = dataset.train_test_split(test_size=max(rows, 1), seed=args.seed)
    truth = classes_of(parts["test"])
    tried: list[dict[str, Any]] = []

    def accuracy(settings: dict[str, Any], share: float) -> float:
        trial = _trial(args, settings, share)
        logits = fit(trial, parts["train"], parts["test"])
        tried.append({**settings, "share": share, "accuracy": float((logits.argmax(-1) == truth).mean())})
        logger.info(f"auto: {_said_of(tried[-1])}")
        return float(tried[-1]["accuracy"])

    def best(candidates: list[dict[str, Any]]) -> dict[str, Any]:
        if len(candidates) == 1:
            return candidates[0]
        return max(candidates, key=lambda settings: accuracy(settings, SHORT))  # the first of equals

    fall_back = args.num_subclasses == AUTO
    temperatures = TEMPERATURES if args.temperature == AUTO else (float(args.temperature),)
    fixed = {"subclass_temperature": 1.0}
    chosen = best([{"num_subclasses": 1, "temperature": temperature, **fixed} for temperature in temperatures])
    if args.num_subclasses != 1:
        subclasses = SUBCLASSES if fall_back else (int(args.num_subclasses),)
        given = args.subclass_temperature
        betas = SUBCLASS_TEMPERATURES if given == AUTO else (float(given),)
        lelp = best(
            [
                {"num_subclasses": s, "temperature": chosen["temperature"], "subclass_temperature": beta}
                for s, beta in product(subclasses, betas)
            ]
        )
        if not fall_back or accuracy(lelp, 1.0) >= accuracy(chosen, 1.0):
            chosen = lelp
    for name, value in chosen.items():
        setattr(args, name, value)
    tried.append({**chosen, "chosen": True})
    logger.info(f"auto: {_said_of(tried[-1])} was chosen on {len(truth):,} validation rows")
    return tried


def _trial(args: LELPConfig, settings: dict[str, Any], share: float) -> LELPConfig:
    """A configuration for a run whose student is thrown away."""
    trial = copy.deepcopy(args)
    silent = {
        "save_strategy": SaveStrategy.NO,
        "eval_strategy": IntervalStrategy.NO,
        "logging_strategy": IntervalStrategy.NO,
        "report_to": [],
        "disable_tqdm": True,
        "push_to_hub": False,
        "load_best_model_at_end": False,
    }
    for name, value in {**silent, **settings}.items():
        setattr(trial, name, value)
    trial.num_train_epochs *= share
    trial.check_teacher = False  # it was, on all rows
    if trial.warmup_steps >= 1:  # below 1 it is a share already
        trial.warmup_steps = max(1, round(trial.warmup_steps * share))
    if trial.max_steps > 0:
        trial.max_steps = max(1, round(trial.max_steps * share))
    return trial


def _said_of(trial: dict[str, Any]) -> str:
    name = "plain distillation"
    if trial["num_subclasses"] > 1:
        name = f"LELP with S={trial['num_subclasses']}, β={trial['subclass_temperature']:g}"
    measured = f", {trial['share']:.0%} of the training: {trial['accuracy']:.4f}" if "accuracy" in trial else ""
    return f"{name}, τ={trial['temperature']:g}{measured}"
