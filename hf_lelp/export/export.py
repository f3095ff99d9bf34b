"""Exports a student from the command line: `python -m hf_lelp.export STUDENT --to plain onnx int8 torch ...`.

A student already is a transformers model. Export it if you cannot use `trust_remote_code=True`, or PyTorch.
"""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME

from hf_lelp.classifiers import auto_class, shown_names
from hf_lelp.cli.data import DataArguments, load_data
from hf_lelp.cli.options import Program
from hf_lelp.data.encoding import Processor, batches
from hf_lelp.export.fidelity import class_logits, fidelity
from hf_lelp.export.measure import measure, runtimes_table
from hf_lelp.export.plain import plain_config, plain_student
from hf_lelp.export.runtimes import Batch, Runtime, save_int8, save_onnx, save_torch_export, torch_runtime
from hf_lelp.making.one_output import check_two_classes, with_one_output
from hf_lelp.markdown import template
from hf_lelp.saved.saved_student import SavedStudent, open_student
from hf_lelp.storage.checksums import WEIGHTS, checksum, write_checksums
from hf_lelp.storage.files import check_writable, new_files, read_json, write_json, write_text
from hf_lelp.student.card import (
    CARD_NAME,
    EvaluationData,
    StudentCard,
    add_runtimes,
    card_of_one_output,
    how_made,
    hub_id,
    is_own_card,
)
from hf_lelp.student.heads import student_head
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.modeling_lelp import StaticForSequenceClassification, SubclassHead

FORMS = ("plain", "one_output", "onnx", "int8", "torch")
BATCH_SIZE = 32
RESULTS_NAME = "export.json"
# The latency of one text is a median over so many texts.
SINGLES = 64


@dataclass
class ExportArguments(DataArguments):
    """The forms to export a student to, and the data to fit, check and measure them on.

    Only the plain form is fitted: the others need no more data than `eval_file`.

    Raises:
        ValueError: if no form or an unknown one is asked for, or the data is missing.
    """

    student: str | None = field(default=None, metadata={"help": "The student: folder or Hub id."})
    to: list[str] = field(
        default_factory=list,
        metadata={
            "help": "One or more of plain (a linear final layer), one_output (of two classes one logit, for a sigmoid),"
            " onnx, int8 (quantised ONNX), torch (.pt2)."
        },
    )
    output_dir: str = field(default="exported", metadata={"help": "Folder for the files and export.json."})
    input_columns: list[str] | None = field(
        default=None, metadata={"help": "One column, or two of texts (default: as in training)."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels (default: as in training)."})
    max_length: int | None = field(
        default=None, metadata={"help": "Longest input in tokens (default: as in training)."}
    )
    min_agreement: float = field(
        default=0.98,
        metadata={"help": "plain: least share of evaluation rows with the student's own answer; 0 takes any."},
    )
    seed: int = field(default=42, metadata={"help": "For rows that are drawn at random."})

    def __post_init__(self) -> None:
        if self.student is None:
            raise ValueError("student is missing: a folder or Hub id.")
        unknown = [name for name in self.to if name not in FORMS]
        if unknown or not self.to:
            raise ValueError(f"to={' '.join(self.to)}: one or more of {', '.join(FORMS)} are possible.")
        if self.dataset_name is None and self.train_file is None and "plain" not in self.to:
            self.train_file = self.eval_file  # nothing is fitted
        super().__post_init__()


def export(arguments: ExportArguments) -> dict[str, Any]:
    """Export a student to each form asked for, check and measure the files, and print a line on each.

    Args:
        arguments: the student, of either kind, or any other classifier; the forms; the folder; and the data.

    Returns:
        The results as in `export.json`: "plain", see `plain_student`; "one_output", see `fidelity`; "runtimes",
        see `measure`; and "sha256" of the files.

    Raises:
        ValueError: if data and student do not fit together, the plain form agrees too seldom, or the folder cannot be
            written to.
        RuntimeError: if an exported file does not give the student's logits.
        ImportError: if ONNX is asked for and not installed.
    """
    student, output_dir = str(arguments.student), Path(arguments.output_dir)
    check_writable(output_dir)
    earlier = _earlier(output_dir / RESULTS_NAME)
    opened = open_student(student, arguments.input_columns, arguments.label_column, arguments.max_length)
    model, processing_class, limit = opened.model.cpu(), opened.processing_class, opened.max_length
    check_exportable(student, model, arguments.to)
    train, held_out = load_data(arguments, arguments.seed)
    columns = opened.columns_of(held_out)
    labels = opened.labels_of(held_out)

    def inputs_of(dataset: Dataset, rows: int = BATCH_SIZE) -> Iterator[tuple[Any, dict[str, torch.Tensor]]]:
        return batches(processing_class, dataset.select_columns(columns)[:], columns, limit, rows)

    by_length = list(inputs_of(held_out))
    inputs = [batch for _, batch in by_length]
    labels = None if labels is None else labels[np.concatenate([places for places, _ in by_length])]
    results: dict[str, Any] = {}
    plain, card = model, Path(student).expanduser() / CARD_NAME
    if "plain" in arguments.to:
        if isinstance(student_head(model), SubclassHead):
            to_fit = (batch for _, batch in inputs_of(train))
            plain, report = plain_student(model, to_fit, inputs, labels, min_agreement=arguments.min_agreement)
            card = output_dir / "plain" / CARD_NAME
            _save(plain, processing_class, str(_plain_card(student, model, plain, report).render()), card.parent)
            results["plain"] = report
            print(f"plain: {_summary(report)}; saved in {card.parent}")
        else:
            print(f"plain: {student} is a plain model already, and can be used as it is")
    if "one_output" in arguments.to:
        results["one_output"] = _save_one_output(plain, processing_class, inputs, card, output_dir / "one_output")
    runtimes = [torch_runtime(model), *_saved_runtimes(arguments, opened, inputs)]
    if len(runtimes) > 1:
        processing_class.save_pretrained(output_dir)
        few = held_out.select(range(min(SINGLES, len(held_out))))
        singles = [batch for _, batch in inputs_of(few, rows=1)]
        results["runtimes"] = measure(runtimes, inputs, singles, labels)
        # ONNX Runtime does not notice a changed weight.
        exported = [*output_dir.glob("*.pt2"), *output_dir.glob("onnx/*.onnx*")]
        results["sha256"] = {
            path.relative_to(output_dir).as_posix(): checksum(path, hashlib.sha256) for path in sorted(exported)
        }
        table = runtimes_table(results["runtimes"])
        print(f"\n{table}")
    if results:
        write_json(output_dir / RESULTS_NAME, {**earlier, **results})
    if "runtimes" in results:
        reads_tokens = isinstance(processing_class, PreTrainedTokenizerBase)
        threads = f"Milliseconds from inputs to logits on a CPU (threads: {torch.get_num_threads()})."
        length = f" Texts are sorted by length and cut at {limit} tokens." if limit and reads_tokens else ""
        about = f"{table}\n\nMeasured on {len(held_out):,} rows. {threads}{length}"
        if reads_tokens and ("onnx" in arguments.to or "int8" in arguments.to):
            about += f"\n\n{template('onnx_snippet.md').replace('MAX_LENGTH', str(limit))}"
        _write_card(Path(student).expanduser() / CARD_NAME, output_dir / CARD_NAME, about)
    return results


def check_exportable(student: str, model: PreTrainedModel, forms: Sequence[str]) -> None:
    """Refuse what the export does not know.

    Args:
        student: its name, for messages.
        model: the student.
        forms: that were asked for.

    Raises:
        ValueError: if it classifies videos or gives several labels a row; if it is an encoder with a decoder that
            reads texts, and a runtime was asked for; or if it cannot have the one output that was asked for.
    """
    kind = auto_class(model.config).__name__
    if kind == "AutoModelForVideoClassification":
        raise ValueError(f"{student} classifies videos: the export knows texts, images and sound.")
    if getattr(model.config, "problem_type", None) not in (None, "single_label_classification"):
        raise ValueError(
            f"{student} has problem_type={model.config.problem_type}: the export knows classifiers of one class a row."
        )
    if "one_output" in forms:
        check_two_classes(model, plain="plain" in forms or not isinstance(student_head(model), SubclassHead))
    reads_tokens = kind == "AutoModelForSequenceClassification"
    if reads_tokens and model.config.is_encoder_decoder and {*forms} - {"plain", "one_output"}:
        raise ValueError(
            f"{student} is a {type(model).__name__}, which looks for the end token in each text: torch.export cannot"
            " follow that, nor can ONNX, which is made by it. Distil it into an encoder (new:2x128) to export that."
        )


def save_beside(model: PreTrainedModel, processing_class: Processor, max_length: int | None, folder: Path) -> None:
    """Save what an ONNX file is served with: the processor, and a configuration of one logit a class, with their names.

    Args:
        model: the student.
        processing_class: its own; a tokenizer is saved to cut at the length of the training.
        max_length: that length.
        folder: of the file.
    """
    config = plain_config(copy.deepcopy(model.config))
    processor = copy.deepcopy(processing_class)
    if max_length is not None and isinstance(processor, PreTrainedTokenizerBase):
        processor.model_max_length = max_length
    with new_files(folder, last=CONFIG_NAME) as temporary:
        config.save_pretrained(temporary)
        processor.save_pretrained(temporary)


def _write_card(of_student: Path, card: Path, runtimes: str) -> None:
    """Write the student's card with the runtimes beside the exported files; the student is read only.

    A card that the library did not make is neither copied nor replaced.
    """
    if is_own_card(of_student) and (is_own_card(card) or not card.exists()):
        write_text(card, of_student.read_text(encoding="utf-8", errors="replace"))
        add_runtimes(card, runtimes)
        print(f"\nThe table is on the card, {card}")


def _saved_runtimes(arguments: ExportArguments, opened: SavedStudent, inputs: Sequence[Batch]) -> list[Runtime]:
    """Save the student for the runtimes asked for, and print a line on each."""
    model, output_dir = opened.model, Path(arguments.output_dir)
    runtimes = []
    if "torch" in arguments.to:
        runtimes.append(save_torch_export(model, inputs, output_dir / "model.pt2"))
        print(f"torch: gives PyTorch's logits; saved as {output_dir / 'model.pt2'}")
    if "onnx" in arguments.to or "int8" in arguments.to:
        path = output_dir / "onnx" / "model.onnx"
        runtimes.append(save_onnx(model, inputs, path))
        save_beside(model, opened.processing_class, opened.max_length, path.parent)
        print(f"onnx: gives PyTorch's logits; saved as {path}, with configuration and processor beside it")
        if "int8" in arguments.to:
            runtimes.append(save_int8(path, path.with_name("model_int8.onnx")))
            print(f"int8: saved as {path.with_name('model_int8.onnx')}")
    return runtimes


def _save_one_output(
    plain: PreTrainedModel, processing_class: Processor, inputs: Sequence[Batch], card: Path, folder: Path
) -> dict[str, float]:
    """Save a plain student of two classes with one output; print and return how far its probabilities are apart."""
    model = with_one_output(plain)
    z = class_logits(model, inputs)
    report = fidelity(class_logits(plain, inputs), np.concatenate([np.zeros_like(z), z], axis=1))
    (yes,) = shown_names(model.config)
    about = card_of_one_output(card.read_text(encoding="utf-8", errors="replace"), yes) if is_own_card(card) else None
    _save(model, processing_class, about, folder)
    print(
        f"one_output: its sigmoid is the student's probability of {yes}, to"
        f" {report['max_difference']:.0e} on {report['rows']:,} held-out rows; saved in {folder}"
    )
    return report


def _save(model: PreTrainedModel, processing_class: Processor, card: str | None, folder: Path) -> None:
    with new_files(folder, last=CONFIG_NAME) as temporary:
        if card is not None:
            write_text(temporary / CARD_NAME, card)
        model.save_pretrained(temporary)
        processing_class.save_pretrained(temporary)
        write_checksums(temporary, WEIGHTS)


def _plain_card(student: str, model: PreTrainedModel, plain: PreTrainedModel, report: dict[str, float]) -> StudentCard:
    """Make the plain form's own card: what it is, and how far it was measured to be from the student."""
    results: dict[str, dict[str, Any]] = {"student": {"parameters": model.num_parameters()}}
    results["plain form"] = {"parameters": plain.num_parameters()}
    if "accuracy" in report:
        results["student"]["accuracy"] = report["accuracy_before"]
        results["plain form"]["accuracy"] = report["accuracy"]
    return StudentCard(
        repo="plain",
        made=how_made(Path(student).expanduser() / CARD_NAME),
        max_length=StudentInputs.of(plain.config).max_length,
        method="lelp",
        row="plain form",
        auto_class=auto_class(plain.config).__name__,
        static=isinstance(plain, StaticForSequenceClassification),
        classes=list(map(str, (plain.config.id2label or {}).values())),
        settings={
            "plain form of": hub_id(student) or "a student with pseudo-subclasses in its final layer",
            "its pseudo-subclasses per class, S": model.config.num_subclasses,
            "final layer": "fitted to the student's class probabilities",
            "same answer as the student": f"{report['agreement']:.1%} of {report['rows']:,} held-out rows",
            "probabilities apart by": f"{report['mean_difference']:.4f}, {report['max_difference']:.4f} at most",
        },
        results=results,
        evaluation=EvaluationData(int(report["rows"]), "held-out data given to the export"),
    )


def _summary(report: dict[str, float]) -> str:
    line = (
        f"same answer as the student on {report['agreement']:.1%} of {report['rows']:,} held-out rows, probabilities"
        f" {report['mean_difference']:.4f} apart on average and {report['max_difference']:.4f} at most"
    )
    if "accuracy" in report:
        line += f", accuracy {report['accuracy_before']:.1%} before and {report['accuracy']:.1%} after"
    return line


def _earlier(path: Path) -> dict[str, Any]:
    """Read the results of earlier exports to the same folder."""
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} of an earlier export is damaged ({error}). Remove it.") from error


PROGRAM = Program(
    export,
    (ExportArguments,),
    "Export a student as a plain model, ONNX (int8 too) or a torch.export program; check and measure each.",
    first="student",
)
