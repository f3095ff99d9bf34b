"""The stages that can be killed, what they work on, and what each must leave in the end."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401  # for the plots of compare
import numpy as np
import tiny
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from hf_lelp import ClassProjections, LELPConfig, LELPTrainer, Teacher, load_student
from hf_lelp import __main__ as distill_command
from hf_lelp.compare import comparison as compare_command
from hf_lelp.export import export as export_command
from hf_lelp.projections.cache import fit_projections
from hf_lelp.storage.shards import RECORD_NAME
from hf_lelp.student.checkpoints import check_checkpoint
from hf_lelp.student.heads import place_student_head, student_head
from hf_lelp.teacher.columns import teacher_columns

# Times, hashes of files with times in them, and what a tokenizer's file says of the last call.
VARYING = {"train_seconds", "examples_per_second", "examples_per_second_alike", "sha256", "truncation", "padding"}

Started = Callable[[], object]


@dataclass(frozen=True)
class Stage:
    """Something that can be killed.

    Attributes:
        name: for the table.
        kills: as many as a whole campaign has.
        run: does the work in a folder, from the shared inputs; calls its last argument when the work begins.
        result: what must be the same in the end, by name.
        check: run after a kill, before the work is done again; raises if something half-done can be read as whole.
    """

    name: str
    kills: int
    run: Callable[[Path, Path, Started], None]
    result: Callable[[Path], dict[str, Any]]
    check: Callable[[Path, Path], None] | None = None


def make_inputs(folder: Path) -> None:
    """A tiny teacher and student, rows, and a finished student with its projections."""
    teacher = tiny.named(tiny.classifier(hidden_size=32))
    for name, model in (("teacher", teacher), ("student", tiny.classifier(seed=1))):
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    for name, rows in (("many", 5 * 2048), ("train", 320), ("test", 160)):
        tiny.dataset(teacher, rows, seed=rows).to_parquet(folder / f"{name}.parquet")
    guide = _teacher(folder)
    columns = teacher_columns(_rows(folder, "train"), guide, folder / "columns")
    ClassProjections.fit(columns, guide.head, 2).save_pretrained(folder / "projections")
    _trainer(folder, folder / "finished", temperature=1.0, seed=5).save_model()


def _rows(inputs: Path, name: str) -> Dataset:
    return Dataset.from_parquet(str(inputs / f"{name}.parquet"), cache_dir=str(inputs / "cache"))


def _teacher(inputs: Path) -> Teacher:
    return Teacher.from_pretrained(str(inputs / "teacher"))


def _student(temperature: float, seed: int) -> PreTrainedModel:
    model = tiny.named(tiny.classifier(seed=seed))
    place_student_head(model, 2, "subclass", temperature)
    return model


def _trainer(inputs: Path, folder: Path, *, temperature: float, seed: int) -> LELPTrainer:
    args = LELPConfig(output_dir=str(folder), num_subclasses=2, temperature=temperature, use_cpu=True, report_to="none")
    projections = ClassProjections.from_pretrained(inputs / "projections")
    return LELPTrainer(_student(temperature, seed), args, processing_class=tiny.tokenizer(), projections=projections)


# ---- The stages ----


def run_teacher(inputs: Path, folder: Path, started: Started) -> None:
    rows, teacher = _rows(inputs, "many"), _teacher(inputs)
    started()
    teacher_columns(rows, teacher, folder / "columns")


def run_fit(inputs: Path, folder: Path, started: Started) -> None:
    rows, teacher = _rows(inputs, "many"), _teacher(inputs)
    columns = teacher_columns(rows, teacher, inputs / "columns")
    started()
    fit_projections(columns, np.asarray(rows["label"]), teacher.head, 4, cache_dir=folder / "columns")


def run_saving(inputs: Path, folder: Path, started: Started) -> None:
    """Save a student, with its projections, where an earlier one is."""
    if not (folder / "model").exists():
        _trainer(inputs, folder / "model", temperature=1.0, seed=5).save_model()
    trainer = _trainer(inputs, folder / "model", temperature=2.0, seed=6)
    started()
    trainer.save_model()


def check_saving(inputs: Path, folder: Path) -> None:
    """The old student or the new one, or none that loads; a mixture would have one's weights and the other's τ."""
    try:
        found = load_student(str(folder / "model"))
    except ValueError:
        return
    head = student_head(found)
    temperature = float(getattr(head, "temperature", 0))
    expected = _student(temperature, {1.0: 5, 2.0: 6}[temperature]).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items()), "a mixture"


def _options(inputs: Path, folder: Path, **options: Any) -> list[str]:
    given: dict[str, Any] = {
        "teacher_model": inputs / "teacher",
        "student_model": inputs / "student",
        "train_file": inputs / "train.parquet",
        "eval_file": inputs / "test.parquet",
        "output_dir": folder / "out",
        "columns_cache_dir": folder / "columns",
        "num_subclasses": 2,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "report_to": "none",
        **options,
    }
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def run_training(inputs: Path, folder: Path, started: Started) -> None:
    checkpoints = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 3, "resume_from_checkpoint": "last"}
    options = _options(inputs, folder, max_steps=60, logging_steps=4, student_head="auxiliary", **checkpoints)
    started()
    distill_command.main(options)


def check_training(inputs: Path, folder: Path) -> None:
    """A checkpoint that passes for whole loads, in every part."""
    for checkpoint in (folder / "out").glob("checkpoint-*"):
        try:
            check_checkpoint(checkpoint)
        except ValueError:
            continue
        load_student(str(checkpoint))
        ClassProjections.from_pretrained(checkpoint / "class_projections")
        assert (checkpoint / "optimizer.pt").exists() and (checkpoint / "auxiliary_head.safetensors").exists()


def run_export(inputs: Path, folder: Path, started: Started) -> None:
    data = ["--train_file", str(inputs / "train.parquet"), "--eval_file", str(inputs / "test.parquet")]
    started()
    export_command.PROGRAM.main(
        [str(inputs / "finished"), "--to", "plain", "torch", "--output_dir", str(folder / "out"), *data]
    )


def run_compare(inputs: Path, folder: Path, started: Started) -> None:
    started()
    compare_command.PROGRAM.main([*_options(inputs, folder, seeds=2, max_steps=4, methods="kd"), "lelp"])


# ---- What must be the same ----


def files(*patterns: str, but: Iterable[str] = ()) -> Callable[[Path], dict[str, Any]]:
    """Hashes of the files of these patterns, those but for a killed process's temporary ones."""

    def result(folder: Path) -> dict[str, Any]:
        found = {path.relative_to(folder): path for pattern in patterns for path in folder.glob(pattern)}
        return {
            str(name): hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in sorted(found.items())
            if path.is_file() and path.name not in but and not temporary(name)
        }

    return result


def report(name: str) -> Callable[[Path], dict[str, Any]]:
    """A JSON file without what varies."""

    def result(folder: Path) -> dict[str, Any]:
        return {name: _lasting(json.loads((folder / name).read_text()))}

    return result


def together(*results: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {name: value for result in results for name, value in result(folder).items()}


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _lasting(item)
            for name, item in value.items()
            if name not in VARYING and not name.startswith("milliseconds")
        }
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def temporary(name: Path) -> bool:
    return any(part.startswith((".", "_new-", "tmp")) for part in name.parts)


# Arguments and cards say where and when; checksums.json is of files that are compared here, and of those.
BUT = ("training_args.bin", "README.md", "checksums.json", "trainer_state.json")
REPORTS = ("all_results.json", "tokenizer.json")
STUDENT = ("out/*.safetensors", "out/*.json", "out/class_projections/*")
STAGES = (
    Stage("teacher", 12, run_teacher, files("columns/**/*", but=[RECORD_NAME])),  # the record has times
    Stage("fit", 8, run_fit, files("columns/**/*")),
    Stage("saving", 12, run_saving, files("model/**/*", but=BUT), check_saving),
    Stage(
        "training",
        16,
        run_training,
        together(
            files(*STUDENT, "out/checkpoint-60/*.safetensors", but=(*BUT, *REPORTS)),
            *(report(f"out/{name}") for name in REPORTS),
        ),
        check_training,
    ),
    Stage(
        "export", 6, run_export, together(files("out/plain/*", but=(*BUT, "tokenizer.json")), report("out/export.json"))
    ),
    Stage("compare", 10, run_compare, report("out/comparison.json")),
)
