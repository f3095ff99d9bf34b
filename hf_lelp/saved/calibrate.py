"""Calibrates a saved student, and chooses its threshold, on rows that it did not train on: `hf-lelp calibrate STUDENT`.

`distill` does both for the students that it trains.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers.utils import CONFIG_NAME

from hf_lelp.calibration.settled import RECORD_NAME, draw, hold_back, measured, settle, summary_of
from hf_lelp.calibration.threshold import Aim
from hf_lelp.cli.data import DataArguments, expand, load_data, load_file
from hf_lelp.cli.options import Program
from hf_lelp.cli.results import say
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.saved.saved_student import SavedStudent, open_student
from hf_lelp.storage.checksums import WEIGHTS, write_checksums
from hf_lelp.storage.files import check_writable, new_files
from hf_lelp.student.card import CARD_NAME, add_calibration


@dataclass
class CalibrateArguments(DataArguments):
    """The student, and the rows that it did not train on.

    Raises:
        ValueError: if the student or the data is missing, or the aim of the threshold is unknown.
    """

    student: str | None = field(default=None, metadata={"help": "The student's folder, in which it is saved again."})
    calibration_file: str | None = field(
        default=None,
        metadata={"help": "Rows that the student did not train on (default: those that distill held back from it)."},
    )
    threshold: str | None = field(
        default=None, metadata={"help": "For two classes: f1, recall=R, precision=P or costs=ALARM:MISS."}
    )
    input_columns: list[str] | None = field(
        default=None, metadata={"help": "The columns that the student reads (default: the only ones of their kind)."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels (default: as in training)."})
    max_length: int | None = field(default=None, metadata={"help": "Longest input, as in training."})
    seed: int = field(default=42, metadata={"help": "Of the training: it drew the rows that were held back."})

    def __post_init__(self) -> None:
        if self.student is None:
            raise ValueError("student is missing: a folder that a student was saved to.")
        if self.threshold is not None:
            Aim.parse(self.threshold)
        if self.dataset_name is None and self.train_file is None:
            self.train_file = self.calibration_file  # no other row is trained on
        super().__post_init__()


def calibrate(arguments: CalibrateArguments) -> dict[str, Any]:
    """Fit a saved student's temperature, and its threshold where one is asked for, and save the student again.

    Args:
        arguments: the student, the data as `distill` had it, and the aim.

    Returns:
        See `measured`.

    Raises:
        ValueError: if it is not known which rows the student did not train on; see also `settle`.
    """
    folder = Path(expand(str(arguments.student)))
    check_writable(folder)
    student = open_student(str(folder), arguments.input_columns, arguments.label_column, arguments.max_length)
    model = student.model
    held, evaluation = _rows(arguments, student)

    def answered(dataset: Dataset) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        labels = student.labels_of(dataset)
        return student.logits(dataset), np.full(len(dataset), NO_LABEL) if labels is None else labels

    result = settle(model, *answered(held), calibrate=True, threshold=arguments.threshold)
    if evaluation is not None:
        logits, labels = answered(evaluation)
        result = measured(result, logits, labels, model.config)
        draw(result, logits, labels, model.config, folder.with_name(f"{folder.name}-calibrated"))
    with new_files(folder, last=CONFIG_NAME) as temporary:
        model.save_pretrained(temporary)
        write_checksums(temporary, WEIGHTS)
    lines = summary_of("student", result)
    after = result.get("after", {}).get("ece")
    add_calibration(folder / CARD_NAME, lines.replace("student: ", ""), after)
    say(lines)
    return result


def _rows(arguments: CalibrateArguments, student: SavedStudent) -> tuple[Dataset, Dataset | None]:
    """Return the rows to fit on, and those to measure on."""
    record = getattr(student.model.config, RECORD_NAME, None)
    if arguments.calibration_file is not None:
        held = load_file(arguments.calibration_file)
        alone = arguments.train_file == arguments.calibration_file
        if alone and arguments.eval_file is None:
            return held, None
        return held, load_data(arguments, arguments.seed)[1]
    if record is None:
        raise ValueError(
            "The student's config.json names no rows that were held back from it, and a temperature fitted on rows"
            " that it trained on would be too small. Give a calibration_file of other rows, or train with held_back."
        )
    train, evaluation = load_data(arguments, arguments.seed)
    if [record["rows"], record["seed"]] != [len(train), arguments.seed]:
        raise ValueError(
            f"The student's rows were held back from {record['rows']} training rows with seed {record['seed']}, and"
            f" these are {len(train)} with seed {arguments.seed}. Give the data and the seed of its training."
        )
    return hold_back(train, record["share"], record["seed"], student.columns_of(train))[1], evaluation


PROGRAM = Program(
    calibrate,
    (CalibrateArguments,),
    "Make a student's probabilities true by one temperature, folded into its final layer; choose its threshold.",
    first="student",
)
