"""Answers the rows of a file with a student: a file in, the same rows with answers and probabilities out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import softmax

from hf_lelp.calibration.threshold import decide
from hf_lelp.cli.data import load_file
from hf_lelp.cli.options import Program
from hf_lelp.data.rows import with_columns
from hf_lelp.saved.saved_student import open_student
from hf_lelp.storage.files import check_writable, write_atomically

ANSWER, PROBABILITY = "predicted", "probability of {}"


@dataclass
class PredictArguments:
    """The student, and the file to answer.

    Raises:
        ValueError: if one of them is missing, or the answers would go where they are uploaded with the student.
    """

    student: str | None = field(default=None, metadata={"help": "The student: folder or Hub id."})
    file: str | None = field(default=None, metadata={"help": "CSV, TSV, JSON, Parquet or text file with the rows."})
    output_file: str | None = field(
        default=None, metadata={"help": "Where the rows go with their answers (default: beside FILE)."}
    )
    input_columns: list[str] | None = field(
        default=None, metadata={"help": "One or two text columns (default: as in training)."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest input in tokens (default: as in training)."}
    )

    def __post_init__(self) -> None:
        if self.student is None or self.file is None:
            raise ValueError("A student and a file are needed: hf-lelp predict STUDENT --file new.csv")
        source = Path(self.file)
        target = source.with_name(f"{source.stem}_predicted{source.suffix}")
        target = target if self.output_file is None else Path(self.output_file).expanduser()
        if target.suffix == ".txt" and self.output_file is None:
            target = target.with_suffix(".csv")
        if target.suffix not in _WRITERS:
            raise ValueError(f"output_file={target}: the format is told by the ending, one of {', '.join(_WRITERS)}.")
        student = Path(self.student).expanduser()
        if student.is_dir() and student.resolve() in target.resolve().parents:
            raise ValueError(
                f"output_file={target} lies in the student's folder, whose files are published with it: choose another"
                " place with --output_file."
            )
        self.output_file = str(target)


def predict(arguments: PredictArguments) -> Dataset:
    """Write the rows of a file with the student's answers beside them, and say where.

    The new columns are `predicted`, the name of the likeliest class (or of the one by the student's threshold), and the
    probability of each class.

    Args:
        arguments: see `PredictArguments`.

    Returns:
        The rows as written.

    Raises:
        ValueError: if the file cannot be read, has no rows or lacks the student's columns, or a row cannot be read.
    """
    target = Path(str(arguments.output_file))
    check_writable(target.parent)
    rows = load_file(str(arguments.file))
    student = open_student(str(arguments.student), arguments.input_columns, None, arguments.max_length)
    logits = student.logits(rows).astype(np.float64)
    probabilities, chosen = softmax(logits, axis=1), decide(logits, student.model.config)
    names = student.classes
    answers: dict[str, Any] = {ANSWER: [names[index] for index in chosen]}
    answers |= {PROBABILITY.format(name): probabilities[:, index] for index, name in enumerate(names)}
    answered = with_columns(rows, Dataset.from_dict(answers))
    write_atomically(target, lambda path: _WRITERS[target.suffix](answered, path))
    counts = np.bincount(chosen, minlength=len(names))
    shares = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    print(f"{len(rows):,} rows answered ({shares}); they are in {target}")
    return answered


_WRITERS: dict[str, Callable[[Dataset, Path], Any]] = {
    ".csv": lambda rows, path: rows.to_csv(path),
    ".tsv": lambda rows, path: rows.to_csv(path, sep="\t"),
    ".json": lambda rows, path: rows.to_json(path),
    ".jsonl": lambda rows, path: rows.to_json(path),
    ".parquet": lambda rows, path: rows.to_parquet(path),
}

PROGRAM = Program(
    predict,
    (PredictArguments,),
    "Answer the rows of a file with a student, with the probability of each class.",
    first="student",
)
