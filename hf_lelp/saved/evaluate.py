"""Evaluates a student, or any classifier, on labelled rows: by class, and beside always giving one answer."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_lelp.calibration.threshold import deciding_logits
from hf_lelp.cli.advice import rare_class_advice
from hf_lelp.cli.data import DataArguments, load_data
from hf_lelp.cli.options import Program
from hf_lelp.data.labels import NO_LABEL
from hf_lelp.markdown import cell, half_interval, markdown_table
from hf_lelp.metrics import expected_calibration_error, few_class_metrics
from hf_lelp.saved.saved_student import open_student
from hf_lelp.storage.files import write_json


@dataclass
class EvaluateArguments(DataArguments):
    """The student, and the rows to evaluate it on.

    Raises:
        ValueError: if the student or the data is missing.
    """

    student: str | None = field(default=None, metadata={"help": "The student: folder or Hub id."})
    input_columns: list[str] | None = field(
        default=None, metadata={"help": "One or two text columns (default: as in training)."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels (default: as in training)."})
    max_length: int | None = field(
        default=None, metadata={"help": "Longest input in tokens (default: as in training)."}
    )
    output_file: str | None = field(default=None, metadata={"help": "JSON file for the figures (default: none)."})
    seed: int = field(default=42, metadata={"help": "For rows that are held out at random."})

    def __post_init__(self) -> None:
        if self.student is None:
            raise ValueError("student is missing: a folder or Hub id.")
        if self.dataset_name is None and self.train_file is None:
            self.train_file = self.eval_file  # nothing is trained
        super().__post_init__()


def evaluate(arguments: EvaluateArguments) -> dict[str, Any]:
    """Print a student's figures on labelled rows, and write them where `output_file` says.

    Args:
        arguments: see `EvaluateArguments`.

    Returns:
        `rows`, `majority_baseline`, the figures of `few_class_metrics`, `classes` by name (`rows`, `precision`,
        `recall`, `f1`), and `confusion`, (C, C), rows by label.

    Raises:
        ValueError: if no row has a label, or data and student do not fit together.
    """
    student = open_student(
        str(arguments.student), arguments.input_columns, arguments.label_column, arguments.max_length
    )
    _, rows = load_data(arguments, arguments.seed)
    labels = student.labels_of(rows)
    if labels is None or (labels == NO_LABEL).all():
        raise ValueError(
            f"No row has a label in {student.label_column!r} (the columns are {', '.join(rows.column_names)}): there is"
            " nothing to evaluate by. Set label_column; hf-lelp predict needs no labels."
        )
    logits = student.logits(rows)
    decided = deciding_logits(logits, student.model.config)
    figures = {**few_class_metrics(decided, labels), **figures_by_class(decided, labels, student.classes)}
    labelled = labels != NO_LABEL
    # A threshold changes answers, and no probability.
    figures["ece"] = expected_calibration_error(logits[labelled].astype(np.float64), labels[labelled])
    cut = f", cut at {student.max_length} tokens" if student.max_length else ""
    print(f"{arguments.student} on {figures['rows']:,} labelled rows of {', '.join(student.columns_of(rows))}{cut}\n")
    print(figures_text(figures))
    if arguments.output_file is not None:
        write_json(Path(arguments.output_file).expanduser(), figures)
    return figures


def figures_by_class(logits: NDArray[Any], labels: NDArray[np.int64], names: list[str]) -> dict[str, Any]:
    """Compute what `evaluate` returns beside `few_class_metrics`.

    Args:
        logits: (N, C).
        labels: (N,); −100 is no label.
        names: of the C classes.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # slow to import

    labelled = labels != NO_LABEL
    truth, answers, indices = labels[labelled], logits.argmax(1)[labelled], np.arange(len(names))
    scores = precision_recall_fscore_support(truth, answers, labels=indices, zero_division=0)
    by_class = zip(names, *(values.tolist() for values in scores), strict=True)
    return {
        "rows": len(truth),
        "majority_baseline": float(np.bincount(truth).max() / len(truth)),
        "classes": {
            name: {"rows": rows, "precision": precision, "recall": recall, "f1": f1}
            for name, precision, recall, f1, rows in by_class
        },
        "confusion": confusion_matrix(truth, answers, labels=indices).tolist(),
    }


def figures_text(figures: dict[str, Any]) -> str:
    """Show the figures of `evaluate` as lines and tables in Markdown."""
    classes, rows = figures["classes"], figures["rows"]
    commonest = max(classes, key=lambda name: classes[name]["rows"])
    interval = half_interval([figures["accuracy"]], rows)
    lines = [
        f"accuracy {figures['accuracy']:.1%} (95%: ±{100 * interval:.1f} points); always answering {commonest!r}:"
        f" {figures['majority_baseline']:.1%}",
        f"macro-F1 {100 * figures['macro_f1']:.1f}, Matthews correlation {figures['mcc']:.3f}, calibration error"
        f" {100 * figures['ece']:.1f}",
    ]
    shares = ("precision", "recall", "f1")
    body = [
        [cell(name), f"{of_class['rows']:,}", *(f"{100 * of_class[share]:.1f}" for share in shares)]
        for name, of_class in classes.items()
    ]
    confusion = [
        [cell(name), *(f"{count:,}" for count in row)] for name, row in zip(classes, figures["confusion"], strict=True)
    ]
    tables = [
        markdown_table(["class", "rows", "precision", "recall", "F1"], body),
        "Answers by label (a line a label, a column an answer):",
        markdown_table(["", *map(cell, classes)], confusion),
    ]
    advice = rare_class_advice({name: of_class["rows"] for name, of_class in classes.items()}, in_evaluation=True)
    return "\n\n".join(["\n".join(lines), *tables, *([advice] if advice else [])])


PROGRAM = Program(
    evaluate,
    (EvaluateArguments,),
    "Evaluate a student on labelled rows: by class, with the confusion matrix and the majority baseline.",
    first="student",
)
