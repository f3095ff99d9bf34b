"""Names of methods to settings, and one student trained by each on a tiny task."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tasks
import torch
from datasets import Dataset, Features, List, Value
from places import ROOT

from hf_lelp import ClassProjections, LELPTrainer
from hf_lelp.compare.baselines.trainer import ON_EMBEDDINGS, BaselineConfig, BaselineTrainer
from hf_lelp.compare.methods import (
    BEST,
    CLUSTERINGS,
    DIRECTIONS,
    SETTINGS,
    SUBCLASS_LOGITS_COLUMN,
    Method,
    train_student,
)
from hf_lelp.compare.run import RUN_SETTINGS
from hf_lelp.compare.task import Task
from hf_lelp.config import LELPConfig
from hf_lelp.data.labels import classes_of
from hf_lelp.data.rows import with_columns
from hf_lelp.student.heads import AuxiliaryHead, student_head
from hf_lelp.student.modeling_lelp import SubclassHead

SCORED = (*CLUSTERINGS, "oracle", "subclass_distillation")


def in_memory(task: Task) -> Task:
    train = with_columns(task.train, retrained_teacher_logits(len(task.train)))
    train, evaluation = train.with_format("torch"), task.evaluation.with_format("torch")
    settings = {**task.settings, "num_subclasses": tasks.FINE}
    return replace(task, train=train, evaluation=evaluation, settings=settings)


def retrained_teacher_logits(rows: int) -> Dataset:
    outputs = np.random.default_rng(1).normal(size=(rows, tasks.CLASSES, tasks.FINE))
    feature = List(List(Value("float32"), length=tasks.FINE), length=tasks.CLASSES)
    return Dataset.from_dict({SUBCLASS_LOGITS_COLUMN: outputs}, features=Features({SUBCLASS_LOGITS_COLUMN: feature}))


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LELPTrainer]:
    """A student of each method, trained once for all tests."""
    return cache(lambda name: trained(name, tmp_path_factory.mktemp("student")))


def trained(name: str, folder: Path, task: Task | None = None, **settings: Any) -> LELPTrainer:
    task, method = task or in_memory(tasks.task()), Method.parse(name)
    config = method.config(task, **{**RUN_SETTINGS, "output_dir": str(folder), "max_steps": 1, **settings})
    return train_student(task, method, config)


def scores(run: LELPTrainer) -> np.ndarray:
    """p(s | c, x) of every training row, (N, C, S)."""
    given = run.train_dataset.with_format("torch")[:]["teacher_projections"]
    return np.asarray((run.subclass_scores(given) / run.args.subclass_temperature).softmax(-1))


# ---- Names ----


def test_methods_that_the_documents_name_can_be_asked_for() -> None:
    root = ROOT
    texts = [file.read_text(encoding="utf-8") for file in (root / "README.md", *sorted(root.glob("docs/**/*.md")))]
    named = {name for text in texts for name in re.findall(r"`([a-z_]+:[a-z_]+=[^`\s]*)`", text)}
    assert len(named) > 2
    for name in named:
        Method.parse(name).check()


def test_a_kind_alone_has_its_own_settings() -> None:
    assert Method.parse("kd") == Method("kd", "kd", {"num_subclasses": 1})
    assert Method.parse("lelp").settings == Method.parse("lelp:").settings == {}
    assert Method.parse("direct").settings == {"alpha": 1.0}
    assert Method.parse("vid").settings == {"baseline": "vid", "num_subclasses": 1}


def test_settings_after_the_colon_are_numbers_booleans_and_words() -> None:
    text = (
        "lelp:num_subclasses=4, temperature=2.5,random_rotation=false,student_head=auxiliary,subclass_temperature=auto"
    )
    method = Method.parse(text)
    assert (method.name, method.kind) == (text, "lelp")
    assert method.settings == {
        "num_subclasses": 4,
        "temperature": 2.5,
        "random_rotation": False,
        "student_head": "auxiliary",
        "subclass_temperature": "auto",
    }
    # They go before the kind's own.
    assert Method.parse("lelp_no_null_space:null_space=true").settings == {"null_space": True}


def test_a_number_may_be_written_with_an_exponent() -> None:
    for text in ("1e-3", "1E-3", "1.0e-3", "0.001"):
        assert Method.parse(f"lelp:learning_rate={text}").settings["learning_rate"] == 0.001


@pytest.mark.parametrize(
    "text", ["", "lalp", "lelp:temperature", "kd,lelp", "LELP", "lelp num_subclasses=4", "lelp:a=1,b"]
)
def test_what_is_no_method_is_refused_with_all_that_are(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        Method.parse(text)
    message = str(raised.value)
    assert repr(text) in message and all(kind in message for kind in SETTINGS) and "num_subclasses=4" in message


def test_which_settings_go_before_which(tmp_path: Path) -> None:
    task = tasks.task(settings={"temperature": 3.0, "learning_rate": 0.2, "num_subclasses": 5, "alpha": 0.1})
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none"}
    config = Method.parse("lelp:temperature=4").config(task, **settings)
    assert (config.temperature, config.learning_rate, config.num_subclasses, config.alpha) == (4, 0.2, 5, 0.1)
    assert Method.parse("lelp:temperature=4").config(task, **settings, temperature=7.0).temperature == 7
    # The task's S and α do not make another method of these.
    assert Method.parse("kd").config(task, **settings).num_subclasses == 1
    assert Method.parse("direct").config(task, **settings).alpha == 1
    assert Method.parse("rkd").config(task, **settings).num_subclasses == 1
    # LELP with CRD has them, and as many as LELP where nothing says how many.
    assert Method.parse("lelp_crd").config(task, **settings).num_subclasses == 5
    assert Method.parse("lelp_crd").config(None, **settings).num_subclasses == 8


def test_each_kind_has_its_configuration(tmp_path: Path) -> None:
    task = tasks.task()
    settings = {"output_dir": str(tmp_path), "report_to": "none"}
    for kind in SETTINGS:
        config = Method.parse(kind).config(task, **settings)
        assert isinstance(config, BaselineConfig) == ("baseline" in SETTINGS[kind])
        assert not isinstance(config, BaselineConfig) or config.baseline == kind
        assert not isinstance(config, BaselineConfig) or config.num_subclasses == (2 if kind == "lelp_crd" else 1)
        if kind in SCORED:
            assert (config.random_rotation, config.scale_projections, config.subclass_temperature) == (False, False, 1)


def test_settings_that_there_are_not_or_out_of_range(tmp_path: Path) -> None:
    for text, words in (
        ("lelp:num_subclases=4", "no setting num_subclases; did you mean num_subclasses?"),
        ("kd:baseline_weight=2", ": no setting baseline_weight"),
        ("lelp:temperature=-1", "temperature=-1.0"),
        ("vid:num_subclasses=2", "num_subclasses=2"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            Method.parse(text).config(tasks.task(), output_dir=str(tmp_path))


# ---- Students ----


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_kind_trains_a_student_with_the_head_that_it_should_have(
    kind: str, students: Callable[[str], LELPTrainer]
) -> None:
    run = students(kind)
    head = student_head(run.model)
    assert run.state.global_step == 1
    start = tasks.student().state_dict().keys()
    assert {name for name in run.model.state_dict() if ".auxiliary" not in name} == {*start}
    assert isinstance(run, BaselineTrainer) == ("baseline" in SETTINGS[kind])
    if kind in ON_EMBEDDINGS:
        assert isinstance(head, AuxiliaryHead)
    elif kind == BEST:
        assert len(run.auto_trials) == 5 and (head is None) == (run.args.num_subclasses == 1)
        assert head is None or isinstance(head, AuxiliaryHead)
    elif kind in ("direct", "kd") or "baseline" in SETTINGS[kind]:
        assert head is None
    else:
        assert isinstance(head, SubclassHead) and head.num_subclasses == tasks.FINE
        assert (run.projections is None) == (kind in SCORED)
    logits = run.predict(tasks.task().evaluation.with_format("torch")).predictions
    assert logits.shape == (64, 2) and np.isfinite(logits).all()


def test_subclass_distillation_learns_all_outputs_of_the_retrained_teacher(tmp_path: Path) -> None:
    run = trained("subclass_distillation:temperature=2", tmp_path)
    outputs = retrained_teacher_logits(64).with_format("torch")[:][SUBCLASS_LOGITS_COLUMN]
    columns = run.train_dataset.with_format("torch")[:]
    classes = (columns["teacher_logits"] / 2).softmax(-1)
    targets = classes[..., None] * torch.from_numpy(scores(run))
    torch.testing.assert_close(targets, (outputs / 2).flatten(1).softmax(-1).view_as(outputs), atol=1e-5, rtol=0)


def test_subclass_distillation_needs_its_teacher_and_a_temperature(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Subclass Distillation needs a teacher retrained with subclasses of its own"):
        trained("subclass_distillation", tmp_path, tasks.task())
    for text in ("subclass_distillation:temperature=auto", "subclass_distillation:num_subclasses=auto"):
        with pytest.raises(ValueError, match="its teacher has the subclasses, for one temperature; set numbers"):
            Method.parse(text).check()


def test_the_variants_of_lelp_are_fitted_as_they_say(students: Callable[[str], LELPTrainer]) -> None:
    fitted = {name: students(name) for name in SETTINGS if name.startswith("lelp") or name in DIRECTIONS}
    projections = {name: run.projections for name, run in fitted.items()}
    weight = tasks.task().head.weight
    read = {name: float((p.directions @ weight.T).abs().max()) for name, p in projections.items() if p is not None}
    assert all(value < 1e-5 for name, value in read.items() if name != "lelp_no_null_space")
    assert read["lelp_no_null_space"] > 0.1
    lelp, control = projections["lelp"], projections["random_directions"]
    assert lelp is not None and control is not None
    assert lelp.mean.equal(control.mean) and not torch.allclose(lelp.directions, control.directions, atol=0.1)
    assert float(lelp.variance.sum()) > float(control.variance.sum())
    # Without rotation a score is its direction's projection, over one number for each class.
    columns = fitted["lelp_no_rotation"].train_dataset[:]["teacher_projections"]
    u, raw = fitted["lelp_no_rotation"].subclass_scores(columns).numpy(), columns.numpy()
    np.testing.assert_allclose(u / raw, np.broadcast_to((u / raw)[:1, :, :1], u.shape), rtol=1e-4)
    rotated = fitted["lelp"].subclass_scores(fitted["lelp"].train_dataset[:]["teacher_projections"]).numpy()
    assert not np.allclose(np.abs(rotated), np.abs(u), atol=0.1)


@pytest.mark.parametrize("kind", CLUSTERINGS)
def test_clusters_are_hard_and_their_number_is_the_one_asked_for(
    kind: str, students: Callable[[str], LELPTrainer]
) -> None:
    p = scores(students(kind))
    assert p.shape == (64, 2, tasks.FINE)
    assert np.allclose(np.sort(p, axis=-1), [0, 0, 1], atol=1e-6)
    group, classes = np.array(tasks.task().train["fine"]), np.array(tasks.task().train["labels"])
    for index in range(2):
        own = p[classes == index, index].argmax(-1)
        pairs = {*zip(own.tolist(), group[classes == index].tolist(), strict=True)}
        # The groups are far apart: every clustering finds them, the control does not.
        assert (len(pairs) == tasks.FINE) == (kind != "random_partition")


def test_the_oracle_knows_the_groups(tmp_path: Path) -> None:
    run = trained("oracle:num_subclasses=7", tmp_path)
    assert run.args.num_subclasses == tasks.FINE  # whatever was asked for
    p, task = scores(run), tasks.task()
    group, classes = np.array(task.train["fine"]), np.array(task.train["labels"])
    rows = np.arange(len(group))
    np.testing.assert_allclose(p[rows, classes], np.eye(tasks.FINE)[group % tasks.FINE], atol=1e-6)
    np.testing.assert_allclose(p[rows, 1 - classes], 1 / tasks.FINE, atol=1e-6)


def test_the_oracle_without_a_fine_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"oracle needs the true subclasses.*fine_column"):
        trained("oracle", tmp_path, in_memory(tasks.task(fine_column=None)))


def test_too_few_rows_for_the_clusters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Class \d has \d+ rows, and num_subclasses=40 takes at least 40"):
        trained("random_partition:num_subclasses=40", tmp_path)


def test_what_is_random_in_the_subclasses_follows_the_rotation_s_seed(tmp_path: Path) -> None:
    def made(**settings: Any) -> np.ndarray:
        return scores(trained("random_partition", tmp_path, **settings))

    first = made(seed=1)
    assert not np.array_equal(first, made(seed=2))
    assert np.array_equal(first, made(seed=2, rotation_seed=1))


def test_lelp_is_the_trainer_s_own(tmp_path: Path) -> None:
    task = in_memory(tasks.task())
    run = trained("lelp:temperature=2", tmp_path, task, seed=5, max_steps=3)
    projections = ClassProjections.fit(task.train, task.head, tasks.FINE)
    columns: Dataset = task.train.with_format(None).map(projections, batched=True)
    torch.manual_seed(5)
    by_hand = LELPTrainer(
        tasks.student(),
        LELPConfig(**{**task.settings, "temperature": 2.0, "seed": 5, "max_steps": 3}, output_dir=str(tmp_path)),
        train_dataset=columns,
        projections=projections,
    )
    by_hand.train()
    runs.assert_same(runs.weights(run.model), runs.weights(by_hand.model), 1e-6)


def test_the_seed_is_that_of_the_student_too(tmp_path: Path) -> None:
    torch.manual_seed(99)
    one, same, other = (runs.weights(trained("kd", tmp_path, seed=seed).model) for seed in (1, 1, 2))
    runs.assert_same(one, same)
    assert not one["vit.embeddings.patch_embeddings.projection.weight"].equal(
        other["vit.embeddings.patch_embeddings.projection.weight"]
    )


def test_the_task_is_left_as_it_was(tmp_path: Path) -> None:
    task = in_memory(tasks.task())
    columns, settings = list(task.train.column_names), dict(task.settings)
    trained("oracle", tmp_path, task)
    assert task.train.column_names == columns and task.settings == settings
    assert task.train.format["type"] == "torch"


def test_classes_are_labels_or_else_the_teacher_s() -> None:
    task = tasks.task()
    labels, guesses = np.array(task.train["labels"]), np.array(task.train["teacher_logits"]).argmax(-1)
    assert (labels != guesses).any()
    np.testing.assert_array_equal(classes_of(task.train), labels)
    some = np.where(np.arange(64) % 2, -100, labels)
    partly = replace(task, train=task.train.remove_columns("labels").add_column("labels", some))
    np.testing.assert_array_equal(classes_of(partly.train), np.where(some == -100, guesses, labels))
    none = replace(task, train=task.train.remove_columns("labels").with_format("torch"))
    np.testing.assert_array_equal(classes_of(none.train), guesses)
