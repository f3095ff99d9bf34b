"""Which classifiers of transformers LELP works with: every one of its mappings, built tiny, run for real.

    python -m benchmarks.reliability.coverage               # all; writes coverage.md and coverage.json
    python -m benchmarks.reliability.coverage --only Bert   # those with "Bert" in the name; writes nothing
    python -m benchmarks.reliability.coverage --modality audio

Each class gets random weights and inputs, and these checks. *exact*: the model's logits are those of its final linear
layer on the captured embedding, also in bfloat16. For both forms of student, *trained*: one step of `LELPTrainer`
lowers the loss on the same batch; *loaded*: saved and loaded, by hf_lelp and by the Auto class, it gives the same
logits. *cut*: a student of its layers but the first, or but the last, loads again so too, and one of all of them has
its logits; what `layers:` refuses by name is no problem, but a "no". *one output*: with one output z the embedding is
exact too; it becomes two classes with the logits 0 and z, and one output again, which loads. Each class runs in a
process of its own, so that one that crashes or hangs is a row and not the end.
"""

import argparse
import copy
import json
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from benchmarks.places import DOCS
from benchmarks.reliability.tiny_architectures import NUM_LABELS, ROWS, random_inputs, tiny_model
from hf_lelp.classifiers import LinearHead, check_embedding, find_heads, headless, joint_layer, logits_of
from hf_lelp.config import LELPConfig
from hf_lelp.data.columns import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN
from hf_lelp.making.layers import cut_model, number_of_layers
from hf_lelp.making.one_output import with_one_output, with_two_outputs
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.student.loading import load_student
from hf_lelp.trainer import LELPTrainer

MAPPINGS: dict[str, dict[str, Any]] = {
    "text": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "image": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "audio": modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    "video": modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
}
AUTO_CLASSES = {
    "text": transformers.AutoModelForSequenceClassification,
    "image": transformers.AutoModelForImageClassification,
    "audio": transformers.AutoModelForAudioClassification,
    "video": transformers.AutoModelForVideoClassification,
}
FORMS = ("subclass", "auxiliary")
NUM_SUBCLASSES = 4
TOLERANCE = 1e-5
TIMEOUT = 120.0


@dataclass
class Row:
    """What one class showed; an empty `problem` means that it passed every check.

    Attributes:
        modality: text, image, audio or video.
        name: of the class.
        runs: could be built and run here.
        head: name of its final layer, or layers.
        error: largest difference of the logits rebuilt from the embedding, relative to the largest logit (at least 1).
        exact: that is within 1e-5.
        half: the same in bfloat16, within its rounding.
        trained: forms of student that a step made better.
        loaded: forms of student that came back the same.
        cut: a student of some of its layers can be made.
        one_output: with one output it is a teacher of two classes, and a student of them has one output again.
        problem: why a check failed, in the words of the error.
        ended: all checks were tried.
    """

    modality: str
    name: str
    runs: bool = False
    head: str = ""
    error: float | None = None
    exact: bool = False
    half: bool = False
    trained: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    cut: bool = False
    one_output: bool = False
    problem: str = ""
    ended: bool = False


def classes(modality: str) -> list[str]:
    """Names of the classifiers of transformers in a mapping, each once, in alphabetical order."""
    names = ((entry,) if isinstance(entry, str) else entry for entry in MAPPINGS[modality].values())
    return sorted({name for entry in names for name in entry})


def check(modality: str, name: str) -> Iterator[Row]:
    """The four checks on the class called `name`; yields its row again after each, more of it filled in."""
    row = Row(modality, name)
    problems = []

    def attempt(what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            problems.append(f"{what}{_first_sentence(error)}")
        row.problem = "; ".join(problems)

    def build() -> None:
        model = tiny_model(getattr(transformers, name)).eval()
        with torch.inference_mode():
            model(**random_inputs(model))
        row.runs = True

    def teach() -> None:
        model = tiny_model(getattr(transformers, name)).eval()
        row.head, row.error = embedding_error(model, random_inputs(model))
        row.exact = row.error <= TOLERANCE
        if not row.exact:
            raise ValueError(f"the rebuilt logits differ by {row.error:.1g}")

    def teach_half() -> None:
        model = tiny_model(getattr(transformers, name)).eval().to(torch.bfloat16)
        inputs = random_inputs(model)
        embedding_error(
            model, {key: value.bfloat16() if value.is_floating_point() else value for key, value in inputs.items()}
        )
        row.half = True

    def learn(form: str) -> None:
        student = tiny_model(getattr(transformers, name))
        inputs = random_inputs(student)
        before, after = train_step(student, inputs, form)
        if not after < before:
            raise ValueError(f"the loss went from {before:.4f} to {after:.4f}")
        row.trained += (form,)
        if not (worst := loading_error(student, inputs, modality)) <= TOLERANCE:
            raise ValueError(f"loaded again, its logits differ by {worst:.1g}")
        row.loaded += (form,)

    def cut() -> None:
        teacher = tiny_model(getattr(transformers, name)).eval()
        inputs = random_inputs(teacher)
        try:
            count = number_of_layers(teacher)
            whole = cut_model(teacher, range(count))
            try:
                student = cut_model(teacher, range(min(1, count - 1), count))
            except ValueError:  # T5: the first layer has a table for all
                student = cut_model(teacher, range(max(1, count - 1)))
        except ValueError as refusal:
            if "cannot be cut" in str(refusal):
                return
            raise
        if not (worst := (_logits(whole, inputs) - _logits(teacher, inputs)).abs().max().item()) <= TOLERANCE:
            raise ValueError(f"with all its layers, its logits differ by {worst:.1g}")
        if not (worst := loading_error(student, inputs, modality)) <= TOLERANCE:
            raise ValueError(f"loaded again, its logits differ by {worst:.1g}")
        row.cut = True

    def have_one_output() -> None:
        model = tiny_model(getattr(transformers, name), num_labels=1).eval()
        if not (worst := one_output_error(model, random_inputs(model), modality)) <= TOLERANCE:
            raise ValueError(f"its logits differ by {worst:.1g}")
        row.one_output = True

    attempt("", build)
    if row.runs:
        attempt("teacher: ", teach)
        if row.head:
            attempt("bfloat16 teacher: ", teach_half)
        for form in FORMS if row.head else ():
            yield row
            attempt(f"{form} student: ", partial(learn, form))
        if row.head:
            yield row
            attempt("cut: ", cut)
            yield row
            attempt("one output: ", have_one_output)
    row.ended = True
    yield row


@torch.inference_mode()
def embedding_error(model: PreTrainedModel, inputs: dict[str, Tensor]) -> tuple[str, float]:
    """Name of the final layer, and the largest relative difference of the logits rebuilt from the embedding.

    Raises:
        ValueError: if hf_lelp refuses the model as a teacher, or the embedding does not tell rows apart.
    """
    heads = find_heads(model, int(model.config.num_labels or 0))
    logits = logits_of(model(**inputs))
    with headless(model, heads):
        embedding = logits_of(model(**inputs))
    check_embedding(model, heads, embedding, inputs)
    if not embedding.std(dim=0).max() > 1e-4 * embedding.abs().max():
        raise ValueError("the embedding is the same for every row")
    rebuilt = torch.nn.functional.linear(embedding, *joint_layer(heads.values()))
    difference = (rebuilt - logits).abs().max() / logits.abs().max().clamp(min=1)
    return ", ".join(heads), difference.item()


@torch.inference_mode()
def one_output_error(model: PreTrainedModel, inputs: dict[str, Tensor], modality: str) -> float:
    """Largest difference of a model's one output z from the embedding, as two classes, and as one output again.

    It is relative to the largest z (at least 1).
    """
    z = _logits(model, inputs)
    two = with_two_outputs(copy.deepcopy(model))
    again = with_one_output(two)
    differences = [_logits(two, inputs) - torch.cat([torch.zeros_like(z), z], dim=-1), _logits(again, inputs) - z]
    worst = max(difference.abs().max().item() for difference in differences) / max(1.0, z.abs().max().item())
    return max(worst, embedding_error(model, inputs)[1], loading_error(again, inputs, modality))


def train_step(student: PreTrainedModel, inputs: dict[str, Tensor], form: str) -> tuple[float, float]:
    """LELP loss on the batch before and after one step of `LELPTrainer` on it, dropout drawn alike."""
    columns, projections = teacher_columns()
    rows = [{key: value[row] for key, value in (inputs | columns).items()} for row in range(ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        args = LELPConfig(
            output_dir=folder,
            num_subclasses=NUM_SUBCLASSES,
            student_head=form,  # type: ignore[arg-type]
            max_steps=1,
            per_device_train_batch_size=ROWS,
            learning_rate=1e-5,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = LELPTrainer(student, args, train_dataset=rows, projections=projections)
        trainer.remove_callback(PrinterCallback)

        @torch.no_grad()
        def loss() -> float:
            torch.manual_seed(0)
            return float(trainer.compute_loss(student.train(), inputs | columns))

        before = loss()
        torch.manual_seed(0)
        trainer.train()
        return before, loss()


@cache
def teacher_columns() -> tuple[dict[str, Tensor], ClassProjections]:
    """A batch of a made-up teacher's logits and projections, and what it was fitted as."""
    generator = torch.Generator().manual_seed(0)
    head = LinearHead(torch.randn(NUM_LABELS, 8, generator=generator), torch.zeros(NUM_LABELS))
    embedding = torch.randn(60, 8, generator=generator)
    data = {EMBEDDING_COLUMN: embedding.numpy(), LOGITS_COLUMN: (embedding @ head.weight.T).numpy()}
    projections = ClassProjections.fit(Dataset.from_dict(data), head, num_directions=NUM_SUBCLASSES)
    columns = projections({key: value[:ROWS] for key, value in data.items()})
    return {
        LOGITS_COLUMN: torch.tensor(data[LOGITS_COLUMN][:ROWS]),
        PROJECTIONS_COLUMN: torch.tensor(columns[PROJECTIONS_COLUMN]),
    }, projections


@torch.inference_mode()
def loading_error(student: PreTrainedModel, inputs: dict[str, Tensor], modality: str) -> float:
    """Largest difference of the logits after saving and loading, by hf_lelp and by the Auto class."""
    expected = _logits(student, inputs)
    with tempfile.TemporaryDirectory() as folder:
        student.save_pretrained(folder)
        loaded = load_student(folder), AUTO_CLASSES[modality].from_pretrained(folder, trust_remote_code=True)
        return max((_logits(model, inputs) - expected).abs().max().item() for model in loaded)


@torch.inference_mode()
def _logits(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    torch.manual_seed(0)
    return logits_of(model.eval()(**inputs))


def _first_sentence(error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.partition(". ")[0].removesuffix(".")


def isolated(modality: str, name: str) -> Row:
    """`check` in a forked process; what it found before a crash or the time limit is kept."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_rows, args=(sender, modality, name))
    process.start()
    sender.close()
    row, deadline, problem = Row(modality, name), time.monotonic() + TIMEOUT, f"no end after {TIMEOUT:.0f} s"
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            row, problem = receiver.recv(), "crashed"
            if row.ended:
                problem = row.problem
                break
    except EOFError:
        problem = "crashed"
    process.kill()
    process.join()
    return replace(row, problem=problem)


def _send_rows(sender: Any, modality: str, name: str) -> None:
    warnings.filterwarnings("ignore")
    for row in check(modality, name):
        sender.send(row)


def table(rows: list[Row]) -> str:
    """The rows as docs/reference/coverage.md: counts, exceptions with their reasons, and every class."""
    measures: dict[str, Callable[[Row], bool]] = {
        "classes": lambda row: True,
        "run here": lambda row: row.runs,
        "embedding exact": lambda row: row.exact,
        "bfloat16 teacher": lambda row: row.half,
        "`auxiliary` student trained": lambda row: "auxiliary" in row.trained,
        "`auxiliary` student loaded again": lambda row: "auxiliary" in row.loaded,
        "`subclass` student trained": lambda row: "subclass" in row.trained,
        "`subclass` student loaded again": lambda row: "subclass" in row.loaded,
        "cut by its layers": lambda row: row.cut,
        "one output": lambda row: row.one_output,
    }
    kinds = [kind for kind in MAPPINGS if any(row.modality == kind for row in rows)]
    lines = [
        "# Classifiers of transformers that LELP works with",
        "",
        f"Written by `python -m benchmarks.reliability.coverage` with transformers {transformers.__version__} and torch"
        f" {torch.__version__.partition('+')[0]}; do not edit by hand. Every class of the sequence, image, audio and"
        " video classification mappings is built tiny with random weights and run for real. *Exact*: the logits are"
        " those of the final linear layer on the captured embedding, to 1e-5. *Trained*: one step of `LELPTrainer`"
        " lowers the loss on the same batch. *Loaded again*: saved and loaded, by `load_student` and by the Auto class"
        " with `trust_remote_code=True`, the student gives the same logits. *Cut*: `layers:` makes a student of"
        " it without its first or last layer, which loads again so too, and with all layers gives the class's own"
        " logits; the others are refused by name. *One output*: with one output z its embedding is exact too; it"
        " becomes two classes with the logits 0 and z, and a model of one output again, which loads.",
        "",
        "The embedding is the input of the final linear layer, whatever comes before it: where the head is an MLP (as"
        " in RoBERTa or ELECTRA), it is the hidden layer's output; where the model averages two final layers, it is the"
        " inputs of both, side by side.",
        "",
        f"| | {' | '.join(kinds)} | all |",
        "|---|" + "---:|" * (len(kinds) + 1),
    ]
    for what, measure in measures.items():
        counts = [sum(measure(row) for row in rows if row.modality == kind) for kind in kinds]
        share = f" ({sum(counts) / len(rows):.1%})" if what != "classes" else ""
        lines.append(f"| {what} | {' | '.join(map(str, counts))} | {sum(counts)}{share} |")
    lines += ["", "## Exceptions", ""]
    lines += [f"- **{row.name}** ({row.modality}): {row.problem}." for row in rows if row.problem]
    lines += [
        "",
        "## Every class",
        "",
        "| | class | final layer | error | bfloat16 | auxiliary | subclass | cut | one output |",
    ]
    lines += ["|---|---|---|---:|---|---|---|---|---|"]
    for row in rows:
        error = "" if row.error is None else f"{row.error:.0e}"
        forms = ["yes" if form in row.loaded else "no" for form in ("auxiliary", "subclass")]
        half, *rest = ("yes" if passed else "no" for passed in (row.half, row.cut, row.one_output))
        cells = [row.modality, row.name, row.head, error, half, *forms, *rest]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="classes with this in their name; writes nothing")
    parser.add_argument("--modality", choices=MAPPINGS, help="of this kind alone; writes nothing")
    parser.add_argument("--docs", type=Path, default=DOCS / "reference", help="folder of the table")
    arguments = parser.parse_args()
    quiet()
    teacher_columns()  # once, before the processes part
    rows = []
    for modality in [arguments.modality] if arguments.modality else MAPPINGS:
        for name in [name for name in classes(modality) if arguments.only in name]:
            start = time.monotonic()
            rows.append(row := isolated(modality, name))
            print(f"{modality:6} {name:48} {time.monotonic() - start:5.1f} s  {row.problem or 'ok'}", flush=True)
    if not arguments.only and not arguments.modality:
        arguments.docs.mkdir(exist_ok=True)
        (arguments.docs / "coverage.md").write_text(table(rows), encoding="utf-8")
        (arguments.docs / "coverage.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def quiet() -> None:
    """No warnings or progress bars of the libraries: what counts is in the table."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    main()
