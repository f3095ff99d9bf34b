"""Which classifiers of transformers LELP works with: every one of its mappings, built tiny, run for real.

    python benchmarks/coverage.py                  # all; writes docs/coverage.md and docs/coverage.json
    python benchmarks/coverage.py --only Bert      # those with "Bert" in the name; writes nothing
    python benchmarks/coverage.py --modality audio

Each class gets random weights and random inputs, and four checks. *exact*: its logits are those of the final linear
layer applied to the captured embedding. For both forms of student, *trained*: one step of `LELPTrainer` lowers the loss
on the same batch. *loaded*: saved and loaded it gives the same logits. Each class runs in a process of its own, so that
one that crashes or hangs is a row of the table and not the end of it.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
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

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.tiny_architectures import NUM_LABELS, ROWS, random_inputs, tiny_model
from hf_lelp.config import LELPConfig
from hf_lelp.heads import LinearHead, check_embedding, find_heads, headless, joint_layer, logits_of
from hf_lelp.projections import EMBEDDING_COLUMN, LOGITS_COLUMN, PROJECTIONS_COLUMN, ClassProjections
from hf_lelp.students import load_student
from hf_lelp.trainer import LELPTrainer

MAPPINGS = {
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
    """What one class showed; an empty `problem` means that it passed every check."""

    modality: str
    name: str
    head: str = ""
    exact: bool = False
    error: float = float("nan")
    trained: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
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
    try:
        model = tiny_model(getattr(transformers, name)).eval()
        inputs = random_inputs(model)
        row.head, row.error = embedding_error(model, inputs)
        row.exact = row.error <= TOLERANCE
        if not row.exact:
            problems.append(f"embedding is off by {row.error:.1g}")
    except Exception as error:
        problems.append(f"teacher: {_first_line(error)}")
    for form in FORMS if row.head else ():
        try:
            student = tiny_model(getattr(transformers, name))
            before, after = train_step(student, inputs, form)
            if not after < before:
                raise ValueError(f"the loss went from {before:.4f} to {after:.4f}")
            row.trained += (form,)
            if (worst := loading_error(student, inputs, modality)) > TOLERANCE:
                raise ValueError(f"loaded again, its logits differ by {worst:.1g}")
            row.loaded += (form,)
        except Exception as error:
            problems.append(f"{form} student: {_first_line(error)}")
        row.problem = "; ".join(problems)
        yield row
    row.problem, row.ended = "; ".join(problems), True
    yield row


@torch.inference_mode()
def embedding_error(model: PreTrainedModel, inputs: dict[str, Tensor]) -> tuple[str, float]:
    """Name of the final layer, and the largest relative difference of the logits rebuilt from the embedding.

    Raises:
        ValueError: if hf_lelp refuses the model as a teacher, or the embedding does not tell rows apart.
    """
    heads = find_heads(model, NUM_LABELS)
    logits = logits_of(model(**inputs))
    with headless(model, heads):
        embedding = logits_of(model(**inputs))
    check_embedding(model, heads, embedding, inputs)
    if not embedding.std(dim=0).max() > 1e-4 * embedding.abs().max():
        raise ValueError("the embedding is the same for every row")
    rebuilt = torch.nn.functional.linear(embedding, *joint_layer(heads.values()))
    difference = (rebuilt - logits).abs().max() / logits.abs().max().clamp(min=1)
    return ", ".join(heads), difference.item()


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

    def logits(model: PreTrainedModel) -> Tensor:
        torch.manual_seed(0)
        return logits_of(model.eval()(**inputs))

    expected = logits(student)
    with tempfile.TemporaryDirectory() as folder:
        student.save_pretrained(folder)
        loaded = load_student(folder), AUTO_CLASSES[modality].from_pretrained(folder, trust_remote_code=True)
        return max((logits(model) - expected).abs().max().item() for model in loaded)


def _first_line(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:300]


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
    """The rows as docs/coverage.md: counts, exceptions with their reasons, and all of them."""
    counts = {
        "classes": len(rows),
        "exact": sum(row.exact for row in rows),
        **{f"trained, {form}": sum(form in row.trained for row in rows) for form in FORMS},
        **{f"loaded again, {form}": sum(form in row.loaded for row in rows) for form in FORMS},
    }
    lines = [
        "# Classifiers of transformers that LELP works with",
        "",
        f"Written by `python benchmarks/coverage.py`, transformers {transformers.__version__}, torch"
        f" {torch.__version__.partition('+')[0]}; do not edit by hand.",
        "",
        "| | " + " | ".join([*MAPPINGS, "all"]) + " |",
        "|---|" + "---:|" * (len(MAPPINGS) + 1),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="classes with this in their name; writes nothing")
    parser.add_argument("--modality", choices=MAPPINGS, help="of this kind alone; writes nothing")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs", help="folder of the table")
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
