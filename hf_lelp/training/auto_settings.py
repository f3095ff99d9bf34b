"""Chooses τ, S and β on a validation part of the training data, from the teacher's columns that are there already.

1. Train plain distillation at each temperature τ, and keep the best τ.
2. Train LELP at that τ; the paper's head takes τ = 1, because it learns badly at others. S is 32, or as many as the
   projections have directions, and β and γ are 0.5, each where it is not set. LELP is taken unless plain distillation
   has more rows right.

A student that reads tokens starts from plain distillation at τ = 1 instead, for such students gain nothing from LELP in
the mean. Another τ, or LELP, is taken only if the validation rows show it: where, row by row, it is ahead by more than
two standard errors. A difference below that is said to be within the noise, and changes nothing. With the paper's head
such a student is tried in the paper's form (S = 8, β = 1, γ = 0), which never cost one much.

Every trial trains in full on the other part: after shorter trainings the accuracies differ by other amounts
(docs/understand/evidence.md, which also says why S, β and γ are not searched for). The teacher is not run, and the
test data is not touched. The cost is that of about three trainings, or what `budget` allows. A small one tries fewer
temperatures,
and one below 3 tries nothing: what such students start from is taken. A large one trains every trial on several parts.

Each trial is kept (`hf_lelp.training.trials`). Other forms of LELP in the same folder share the trials of plain
distillation.
"""

import logging
from functools import partial
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_lelp.config import AUTO, MOST_SUBCLASSES, LELPConfig
from hf_lelp.data.columns import PROJECTIONS_COLUMN
from hf_lelp.training.trials import Fit, Trials, hash_of, key_of, summary_of, validation_parts
from hf_lelp.transfer.origins import Origins

logger = logging.getLogger(__name__)

TEMPERATURES = (1.0, 2.0, 4.0)
SUBCLASS_TEMPERATURE, WHITENING = 0.5, 0.5
SUBCLASSES_OF_TOKENS = 8  # the paper's form: with it β is 1, and γ 0
MOST_PARTS = 5  # with a fifth of the rows held back in each, all rows are by then


def reads_tokens(processing_class: Any, student: Any = None) -> bool:
    """Whether a student reads tokens: a search for such a one starts from plain distillation.

    Args:
        processing_class: the student's.
        student: its model, which tells where the rows come prepared.
    """
    return (
        isinstance(processing_class, PreTrainedTokenizerBase) or getattr(student, "main_input_name", "") == "input_ids"
    )


def best_settings(reads_tokens: bool) -> dict[str, Any]:
    """Return the settings of the method "best": what is searched for, in the form that such students do best in.

    Args:
        reads_tokens: whether the student does.
    """
    head = "subclass" if reads_tokens else "auxiliary"  # docs/understand/evidence.md
    return {"num_subclasses": AUTO, "temperature": AUTO, "subclass_temperature": AUTO, "student_head": head}


def choose_settings(
    args: LELPConfig,
    dataset: Any,
    fit: Fit,
    student: str = "",
    projections: str = "",
    origins: Origins | None = None,
    reads_tokens: bool = False,
) -> list[dict[str, Any]]:
    """Choose what is "auto" in `args`, and set it there.

    Args:
        args: changed in place; the trials are kept in its `output_dir`.
        dataset: training data with the teacher's columns and, where there are any, labels.
        fit: trains a student and gives its logits.
        student: identifies the student: trials of another one are not used for it.
        projections: fingerprint of the projections that made the dataset's column.
        origins: of the rows; `None` where all are the data's own. Rows are held back with all that was made of them.
        reads_tokens: whether the student does; it starts from plain distillation then.

    Returns:
        The trials, in order: settings, validation accuracy and the seconds that it took. The accuracy is against the
        labels, or the teacher's class where a row has none. "within_noise" marks a trial that was ahead of another, but
        not by enough. The last one, with `"chosen": True`, was taken. Empty with `alpha` 1, which has no use for these
        settings.

    Raises:
        ValueError: if the data is no `datasets.Dataset`, so that no part can be held back.
    """
    if args.alpha == 1:
        args.num_subclasses, args.temperature, args.subclass_temperature = 1, 1.0, 1.0
        return []
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f'Settings that are "auto" are chosen on a part of the training data, which is a {type(dataset).__name__}'
            " and not a datasets.Dataset. Set numbers instead."
        )
    fall_back = args.num_subclasses == AUTO
    lelp = _lelp_of(args, _directions(dataset) if fall_back else 0, reads_tokens)
    temperatures: tuple[float, ...] = TEMPERATURES if args.temperature == AUTO else (float(args.temperature),)
    at_1 = args.student_head == "subclass" and args.temperature == AUTO
    if at_1 and not fall_back and args.num_subclasses != 1:
        temperatures = (1.0,)  # plain distillation will not be taken
    compared = fall_back and lelp["num_subclasses"] > 1
    temperatures, parts = _within_budget(args.budget, temperatures, compared, reads_tokens)
    split = validation_parts(dataset, origins, args.seed, max(parts, 1))
    key = partial(key_of, data=hash_of(dataset), student=student, projections=projections)
    trials = Trials(args, fit, split, key, beyond_noise=reads_tokens)
    candidates = [
        {"num_subclasses": 1, "temperature": temperature, "subclass_temperature": 1.0} for temperature in temperatures
    ]
    chosen = candidates[0]
    for candidate in candidates[1:]:
        chosen = candidate if trials.ahead(candidate, chosen) else chosen
    if lelp["num_subclasses"] > 1:
        lelp = {**chosen, **lelp} | ({"temperature": 1.0} if at_1 else {})
        if compared and parts:
            trials.run(chosen)
            # Of equals, and within the noise, what such students start from is kept.
            taken = trials.ahead(lelp, chosen) if reads_tokens else not trials.ahead(chosen, lelp)
        else:
            taken = not (compared and reads_tokens)
        chosen = lelp if taken else chosen
    for name, value in chosen.items():
        setattr(args, name, value)
    tried = [*trials.tried.values(), {**chosen, "chosen": True}]
    if len(tried) > 1:
        # Not a problem, but a warning shows what "auto" chose even where logging is not set up.
        near = [summary_of(trial) for trial in tried if trial.get("within_noise")]
        more = f"; ahead within the noise: {', '.join(near)}" if near else ""
        logger.warning(f"auto: {summary_of(tried[-1])} was chosen on {trials.validation_rows:,} validation rows{more}")
    elif compared:
        logger.warning(f"auto: {summary_of(tried[-1])} was taken untried; a comparison needs a budget of 3 trainings")
    return tried


def _lelp_of(args: LELPConfig, directions: int, reads_tokens: bool) -> dict[str, Any]:
    """Return the form of LELP to try, without its temperature; at S = 1 there is none."""
    fall_back = args.num_subclasses == AUTO
    papers = fall_back and reads_tokens and args.student_head == "subclass"
    most = SUBCLASSES_OF_TOKENS if papers else MOST_SUBCLASSES
    given = args.subclass_temperature
    beta = float(given) if given != AUTO else 1.0 if papers else SUBCLASS_TEMPERATURE
    lelp: dict[str, Any] = {
        "num_subclasses": min(directions, most) if fall_back else int(args.num_subclasses),
        "subclass_temperature": beta,
    }
    if fall_back and args.whitening is None:
        lelp["whitening"] = 0.0 if papers else WHITENING
    return lelp


def _within_budget(
    budget: int | None, temperatures: tuple[float, ...], compared: bool, reads_tokens: bool
) -> tuple[tuple[float, ...], int]:
    """Return the temperatures to try, and on how many parts; 0 where no two trials can be compared.

    Args:
        budget: of trainings, the last one, on all rows, among them; `None` for every temperature on one part.
        temperatures: of plain distillation, that there are to try.
        compared: whether LELP is tried beside it.
        reads_tokens: whether the student does.
    """
    if budget is None:
        return temperatures, 1
    trials = budget - 1
    if trials >= len(temperatures) + compared:
        return temperatures, min(trials // (len(temperatures) + compared), MOST_PARTS)
    # τ = 1 is where students that read tokens start; to others 4 gave a little more.
    preferred = [value for value in ((1.0, 4.0) if reads_tokens else (4.0, 1.0)) if value in temperatures]
    kept = (preferred or [temperatures[0]])[: max(trials - compared, 1)]
    return tuple(sorted(kept)), int(trials >= len(kept) + compared)


def _directions(dataset: Dataset) -> int:
    """K, the number of directions in the column of projections."""
    row = dataset.with_format(None).select_columns([PROJECTIONS_COLUMN])[0]
    return len(row[PROJECTIONS_COLUMN][0])
