"""Every loader of the library, and how the good artefact that it reads is made."""

import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
import transformers
import yaml
from datasets import Dataset
from safetensors.numpy import save_file

from hf_lelp import ClassProjections, Teacher, load_student
from hf_lelp.cli import distill
from hf_lelp.compare import comparison
from hf_lelp.compare.run import _checksum, _read
from hf_lelp.export.export import _earlier
from hf_lelp.storage.checksums import CHECKSUMS_NAME, WEIGHTS, write_checksums
from hf_lelp.student.checkpoints import check_checkpoint, check_settings, load_rest, save_for_resuming
from hf_lelp.student.heads import place_student_head, student_head
from hf_lelp.teacher.columns import teacher_columns


@dataclass(frozen=True)
class Target:
    """A loader.

    Attributes:
        name: for the table.
        inputs: as many as a whole campaign has.
        make: writes a good artefact to a folder.
        load: reads it; what it returns is equal for equal artefacts.
        names: of the files that are changed, or patterns.
        exact: whether the artefact tells a change: then nothing else than what was saved may come out.
    """

    name: str
    inputs: int
    make: Callable[[Path], None]
    load: Callable[[Path], Any]
    names: tuple[str, ...]
    exact: bool = True


# ---- The loaders ----


def _projections() -> ClassProjections:
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 8, 3)))[0].transpose(0, 2, 1)
    return ClassProjections(
        mean=torch.arange(16.0).reshape(2, 8),
        directions=torch.from_numpy(directions.copy()).float(),
        variance=torch.ones(2, 3),
        count=torch.tensor([5, 7]),
        null_space=True,
        teacher="0123456789abcdef",
    )


def make_projections(folder: Path) -> None:
    _projections().save_pretrained(folder)


def load_projections(folder: Path) -> str:
    return ClassProjections.from_pretrained(folder).fingerprint


def _model(form: str) -> transformers.PreTrainedModel:
    model = tiny.named(tiny.classifier(hidden_size=8))
    place_student_head(model, 2, form)
    return model


def make_student(folder: Path) -> None:
    _model("subclass").save_pretrained(folder)


def make_checked_student(folder: Path) -> None:
    make_student(folder)
    write_checksums(folder, WEIGHTS)


def load_weights(folder: Path) -> list[bytes]:
    return [value.numpy().tobytes() for value in load_student(str(folder)).state_dict().values()]


SETTINGS = {"classes": tiny.LABEL_NAMES, "teacher": "0123456789abcdef", "num_subclasses": 2, "seed": 42}


def make_checkpoint(folder: Path) -> None:
    model = _model("auxiliary")
    model.save_pretrained(folder)
    save_for_resuming(folder, student_head(model), SETTINGS)
    _projections().save_pretrained(folder / "class_projections")
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    write_checksums(folder)


def load_checkpoint(folder: Path) -> tuple[str, bytes]:
    check_checkpoint(folder)
    check_settings(str(folder), SETTINGS)
    model = _model("auxiliary")
    head = student_head(model)
    load_rest(str(folder), model, head)
    projections = ClassProjections.from_pretrained(folder / "class_projections")
    assert projections is not None and head is not None
    return projections.fingerprint, head.state_dict()["auxiliary.weight"].numpy().tobytes()


def make_run(folder: Path) -> None:
    logits, labels = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6) % 2
    figures = json.dumps({"accuracy": 0.5, "train_seconds": 1.0, "settings": {"num_subclasses": 2}})
    metadata = {"figures": figures, "checksum": _checksum(figures, logits, labels)}
    save_file({"logits": logits, "labels": labels}, folder / "run.safetensors", metadata)


def load_run(folder: Path) -> tuple[str, bytes, bytes]:
    run = _read(folder / "run.safetensors", "kd", 0)
    return json.dumps(run.figures), run.logits.tobytes(), run.labels.tobytes()


def make_export(folder: Path) -> None:
    (folder / "export.json").write_text(json.dumps({"plain": {"rows": 6, "agreement": 1.0}}, indent=2))


def make_configuration(folder: Path) -> None:
    options = {"teacher_model": "t", "student_model": "s", "train_file": "d.csv", "num_subclasses": 4, "max_steps": 3}
    options |= {"learning_rate": "1e-3", "output_dir": str(folder / "out"), "use_cpu": True, "report_to": "none"}
    (folder / "distill.yaml").write_text(yaml.safe_dump(options | {"method": ["kd", "lelp"]}))
    (folder / "compare.yaml").write_text(
        yaml.safe_dump(options | {"methods": ["kd:temperature=2", "lelp"], "seeds": 2})
    )


def load_configuration(folder: Path) -> None:
    for program, name in ((distill.PROGRAM, "distill.yaml"), (comparison.PROGRAM, "compare.yaml")):
        with open(os.devnull, "w", errors="backslashreplace") as nowhere, redirect_stderr(nowhere):
            program.parse(["--config", str(folder / name)])


def make_shard(folder: Path) -> None:
    load_shard(folder)


def load_shard(folder: Path) -> dict[str, Any]:
    """What the teacher says of a few rows, from its shard in the folder or, where that is not whole, run again."""
    rows = Dataset.from_dict({"text": tiny.texts(5)})
    columns: dict[str, Any] = teacher_columns(rows, _teacher(), folder)[:]
    return columns


@cache
def _teacher() -> Teacher:
    return Teacher(tiny.named(tiny.classifier(hidden_size=8)), tiny.tokenizer())


PROJECTIONS = ("config.json", "class_projections.safetensors")
STUDENT = ("config.json", "model.safetensors")
CHECKPOINT = ("distillation.json", "auxiliary_head.safetensors", "trainer_state.json", CHECKSUMS_NAME)
TARGETS = (
    Target("projections", 4000, make_projections, load_projections, PROJECTIONS),
    Target("teacher's shards", 1500, make_shard, load_shard, ("teacher/**/*.arrow", "teacher/**/*.json")),
    Target("runs of compare", 2500, make_run, load_run, ("run.safetensors",)),
    Target("checkpoint", 1500, make_checkpoint, load_checkpoint, CHECKPOINT),
    Target("student with checksums", 1000, make_checked_student, load_weights, ("model.safetensors", CHECKSUMS_NAME)),
    Target("student without checksums", 1500, make_student, load_weights, STUDENT, exact=False),
    Target("export.json", 500, make_export, lambda folder: _earlier(folder / "export.json"), ("export.json",), False),
    Target("options in YAML", 1000, make_configuration, load_configuration, ("distill.yaml", "compare.yaml"), False),
)
