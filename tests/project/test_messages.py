"""Messages of docs/reference/errors.md that one call brings about, and that no other test asks for in full."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import torch
from datasets import Dataset

import hf_lelp
import hf_lelp.student.modeling_lelp
from hf_lelp import ClassProjections, metrics
from hf_lelp.compare.baselines.directions import random_directions
from hf_lelp.compare.baselines.trainer import BaselineConfig, BaselineTrainer
from hf_lelp.compare.comparison import CompareArguments, load_task
from hf_lelp.compare.methods import Method
from hf_lelp.data.checks import check_mark
from hf_lelp.data.labels import resolve_classes
from hf_lelp.export.export import ExportArguments
from hf_lelp.export.fidelity import class_logits, fidelity
from hf_lelp.export.plain import plain_student
from hf_lelp.projections.principal_directions import Moments, principal_directions
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.trainer import LELPTrainer

LOGITS = np.zeros((3, 2))
TEXTS = Dataset.from_dict({"text": ["good", "bad"], "label": [0, 1]})


def compare_arguments(**settings: Any) -> CompareArguments:
    return CompareArguments(**{"student_model": "a", "teacher_model": "b", "train_file": "c.csv", **settings})


def unlabelled(folder: Path) -> Path:
    TEXTS.remove_columns("label").to_csv(folder / "texts.csv")
    return folder / "texts.csv"


def fitted() -> ClassProjections:
    zeros, count = torch.zeros(2, 1, 3), torch.zeros(2, dtype=torch.int64)
    return ClassProjections(zeros[:, 0], zeros, zeros[..., 0], count, True, "teacher")


def damaged() -> ClassProjections:
    return replace(fitted(), mean=torch.zeros(2, 4))


def batches() -> list[dict[str, torch.Tensor]]:
    return [dict(tiny.tokenizer()(["good"], return_tensors="pt"))]


def of_one_row() -> Moments:
    moments = Moments(4)
    moments.add(np.ones((1, 4)))
    return moments


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"subclass_weight": -1}, "subclass_weight=-1.0: a weight is 0 or more"),
    ({"rotation_seed": -1}, "rotation_seed=-1: at least 0 is needed"),
    ({"num_subclasses": 2.5}, "num_subclasses=2.5: a whole number is needed"),
    ({"teacher_batch_size": 0}, "teacher_batch_size=0: at least 1 is needed"),
    ({"windows": 0}, "windows=0: at least 1 is needed"),
    ({"views": -1}, "views=-1: at least 0 is needed"),
    ({"student_head": "both"}, "student_head='both': 'subclass' or 'auxiliary'"),
    ({"input_columns": ["a", "b", "c"]}, "one or two text columns are possible"),
]
CALLS: list[tuple[Callable[[], Any], str]] = [
    (lambda: metrics.few_class_metrics(LOGITS[0], [0]), ": expected (N, C) with N >= 1 examples and C >= 2 classes"),
    (lambda: metrics.few_class_metrics(LOGITS, [[0], [1], [0]]), ": expected (N,) integers"),
    (lambda: metrics.few_class_metrics(LOGITS, [0]), " labels for 3 rows of logits: expected one a row"),
    (lambda: metrics.few_class_metrics(LOGITS, [0, 1, 5]), "is no class: logits have 2 columns"),
    (lambda: fidelity(LOGITS, LOGITS[:2]), "Class logits of shape (3, 2) and (2, 2) cannot be compared"),
    (lambda: class_logits(tiny.classifier(), []), "There are no rows."),
    (lambda: plain_student(tiny.classifier(), [], []), "has no pseudo-subclasses in its final layer"),
    (lambda: Method.parse("nonsense"), "with settings as in lelp:num_subclasses=4"),
    (lambda: Method.parse("kmeans:num_subclasses=auto").check(), "must be a number, only LELP's can be chosen"),
    (lambda: compare_arguments(student_model=None), "student_model is missing: a Hub id or folder"),
    (lambda: compare_arguments(train_sizes=[0]), "at least 1 row is needed"),
    (lambda: compare_arguments(seeds=0), "seeds=0: at least 1 is needed"),
    (lambda: ExportArguments(student="s", to=["paper"], train_file="a.csv"), "to=paper: one or more of"),
    (lambda: BaselineConfig(output_dir="out", baseline="magic"), "baseline='magic': one of"),
    (
        lambda: random_directions(fitted(), np.zeros((4, 3)), np.zeros(4, dtype=int), seed=0),
        "These projections were kept out of the teacher's row space",
    ),
    (damaged, ": these class projections are damaged"),
    (lambda: check_mark(["one"], "two", "teacher"), "The prepared columns were made by the teacher of fingerprint one"),
    (lambda: ClassProjections.fit(TEXTS, runs.teacher().head), "Run the teacher over it first"),
    (lambda: teacher_columns(TEXTS.remove_columns("text"), runs.teacher()), "The teacher reads text; the dataset has"),
    (
        lambda: resolve_classes(TEXTS, "label", num_teacher_classes=2, teacher_class_order=[0, 0]),
        "teacher_class_order=[0, 0] must hold each of the teacher's classes",
    ),
    (
        lambda: principal_directions(of_one_row(), np.zeros((4, 0)), 2, 1),
        "Class 1 has 1 examples whose embeddings span 0 directions",
    ),
]


@pytest.mark.parametrize(("settings", "words"), SETTINGS)
def test_settings(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        runs.config(tmp_path, **settings)


@pytest.mark.parametrize(("call", "words"), CALLS)
def test_calls(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_nothing_to_compare_by(tmp_path: Path) -> None:
    arguments = compare_arguments(train_file=str(unlabelled(tmp_path)))
    with pytest.raises(ValueError, match="The evaluation data has no labels in 'label'"):
        load_task(arguments, runs.config(tmp_path))


def test_fitting_a_plain_layer_on_nothing(tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path))
    with pytest.raises(ValueError, match="There are no rows to fit the final layer on"):
        plain_student(run.model, [], batches())


def test_a_name_that_the_library_does_not_have() -> None:
    with pytest.raises(AttributeError, match="module 'hf_lelp' has no attribute 'Nothing'"):
        hf_lelp.Nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'hf_lelp\.student\.modeling_lelp' has no attribute 'Nothing'"):
        hf_lelp.student.modeling_lelp.Nothing  # noqa: B018


def test_trainers_of_other_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="BaselineTrainer takes a BaselineConfig"):
        BaselineTrainer(runs.student(), runs.config(tmp_path), train_dataset=TEXTS)
    columns = runs.data().map(runs.teacher(), batched=True).remove_columns("teacher_embedding")
    args = BaselineConfig(output_dir=str(tmp_path), baseline="rkd", num_subclasses=1, report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match=r"reads teacher_embedding.*\. Make the column with a Teacher, and keep it"):
        BaselineTrainer(runs.student(), args, train_dataset=columns, processing_class=tiny.tokenizer())


def test_no_teacher_and_an_optimizer_for_several_students(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher_logits .* and no teacher was given"):
        runs.trainer(runs.config(tmp_path), teacher_model=None)
    student = runs.student()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="The optimizer given belongs to one student"):
        LELPTrainer(
            student,
            runs.config(tmp_path, num_subclasses=1, temperature="auto"),
            train_dataset=runs.data(120),
            processing_class=tiny.tokenizer(),
            teacher_model=runs.teacher(),
            optimizers=(optimizer, None),
        )
