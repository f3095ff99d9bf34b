"""Each method that LELP is compared with: its loss as documented, its stages, and a student without a trace of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import runs
import tasks
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForImageClassification, PreTrainedModel, TrainerCallback

from hf_lelp import ClassProjections, LELPConfig
from hf_lelp.compare.baselines.losses import (
    annealed_logit_regression,
    comparative_loss,
    crd_loss,
    dist_loss,
    dkd_loss,
    logit_regression,
    pkt_loss,
    procrustes_loss,
    rkd_loss,
    sp_loss,
    vid_loss,
)
from hf_lelp.compare.baselines.trainer import (
    CRD_FEATURES,
    LELP_CRD,
    ON_EMBEDDINGS,
    Baseline,
    BaselineConfig,
    BaselineTrainer,
)
from hf_lelp.losses import subclass_loss, subclass_targets
from hf_lelp.student.heads import AuxiliaryHead, student_head

BASELINES = get_args(Baseline)
TAU, WEIGHT = 2.0, 0.3


def config(folder: Path, baseline: Any, **settings: Any) -> BaselineConfig:
    defaults = {**tasks.SETTINGS, "output_dir": str(folder / "out"), "save_strategy": "no", "report_to": "none"}
    defaults |= {"num_subclasses": 1, "temperature": TAU, "baseline_weight": WEIGHT, "max_steps": 4}
    defaults |= {"disable_tqdm": True, "logging_steps": 1}
    if baseline == LELP_CRD:
        defaults |= {"num_subclasses": 2, "student_head": "auxiliary"}
    return BaselineConfig(**{**defaults, "baseline": baseline, **settings})


def trainer(args: BaselineConfig, **arguments: Any) -> BaselineTrainer:
    torch.manual_seed(0)
    task = tasks.task()
    defaults: dict[str, Any] = {"model": tasks.student(), "train_dataset": task.train.with_format("torch")}
    if getattr(args, "baseline", None) == "srd":
        defaults["head"] = task.head
    if getattr(args, "baseline", None) == LELP_CRD and args.num_subclasses != 1:
        defaults["projections"] = ClassProjections.fit(task.train, task.head, args.directions)
    return BaselineTrainer(args=args, **{**defaults, **arguments})


def batch_of(run: BaselineTrainer, labelled: bool = True) -> dict[str, Tensor]:
    """One batch as `compute_loss` takes it; every third row without its label."""
    batch: dict[str, Tensor] = next(iter(run.get_train_dataloader()))
    if labelled:
        batch["labels"][::3] = -100
    return batch


class Parts:
    """Of a student and a batch, what the methods' losses are made of, without any part of the trainer."""

    def __init__(self, run: BaselineTrainer, batch: dict[str, Tensor]) -> None:
        model = run.model.eval()
        self.z = batch["teacher_logits"]
        if "teacher_embedding" in batch:
            train = np.array(tasks.task().train["teacher_embedding"])
            standard = (batch["teacher_embedding"].double().numpy() - train.mean(0)) / train.std(0, ddof=1)
            self.mean, self.spread = (torch.from_numpy(v).float() for v in (train.mean(0), train.std(0, ddof=1)))
            self.teacher, self.raw = torch.from_numpy(standard).float(), batch["teacher_embedding"]
        self.student = model.vit(batch["pixel_values"]).last_hidden_state[:, 0]
        self.o = F.linear(self.student, model.classifier.weight, model.classifier.bias)
        if run.args.num_subclasses != 1:
            self.scores = run.subclass_scores(batch["teacher_projections"])
        head = student_head(model)
        self.auxiliary: Any = head.auxiliary if isinstance(head, AuxiliaryHead) else None
        self.classes = torch.where(batch["labels"] == -100, self.z.argmax(-1), batch["labels"])
        self.kd = TAU**2 * F.cross_entropy(self.o / TAU, (self.z / TAU).softmax(-1))

    def mapped(self, layer: Any) -> Tensor:
        return F.linear(self.student, layer.weight, layer.bias)

    def crd(self) -> Tensor:
        teacher = self.auxiliary.teacher
        return crd_loss(
            self.mapped(self.auxiliary.student), F.linear(self.teacher, teacher.weight, teacher.bias)
        ).mean()

    def lelp(self) -> Tensor:
        targets = subclass_targets(self.z, self.scores, temperature=TAU)
        return self.kd + TAU * subclass_loss(self.mapped(self.auxiliary.subclasses), targets).mean()

    def srd(self) -> Tensor:
        head, mapped = tasks.task().head, self.mapped(self.auxiliary)
        cross = (self.mean + self.spread * mapped) @ head.weight.T + head.bias
        return F.mse_loss(mapped, self.teacher) + F.mse_loss(cross, self.z)


# The mean loss of a batch at the first step.
EXPECTED: dict[str, Callable[[Parts], Tensor]] = {
    "soft_targets": lambda p: F.cross_entropy(p.o, (p.z / TAU).softmax(-1)),
    "logit_regression": lambda p: logit_regression(p.o, p.z).mean(),
    "dkd": lambda p: dkd_loss(p.o, p.z, p.classes, TAU).mean(),
    "annealing": lambda p: annealed_logit_regression(p.o, p.z, 0.0, 10).mean(),
    "comparative": lambda p: p.kd + WEIGHT * comparative_loss(p.o, p.z, TAU).mean(),
    "embedding_mse": lambda p: p.kd + WEIGHT * F.mse_loss(p.mapped(p.auxiliary), p.teacher),
    "fitnet": lambda p: F.mse_loss(p.mapped(p.auxiliary), p.teacher),
    "vid": lambda p: p.kd + WEIGHT * vid_loss(p.mapped(p.auxiliary.mean), p.auxiliary.raw_variance, p.teacher).mean(),
    "rkd": lambda p: p.kd + WEIGHT * rkd_loss(p.student, p.raw).mean(),
    "crd": lambda p: p.kd + WEIGHT * p.crd(),
    "dist": lambda p: p.kd + WEIGHT * dist_loss(p.o, p.z, TAU).mean(),
    "srd": lambda p: p.kd + WEIGHT * p.srd(),
    "pkt": lambda p: p.kd + WEIGHT * 30_000 * pkt_loss(p.student, p.raw).mean(),
    "sp": lambda p: p.kd + WEIGHT * 3_000 * sp_loss(p.student, p.raw).mean(),
    "procrustes": lambda p: p.kd + WEIGHT * procrustes_loss(p.student, p.raw).mean(),
    "lelp_crd": lambda p: p.lelp() + WEIGHT * p.crd(),
}


def test_every_method_has_its_expected_loss() -> None:
    assert {*EXPECTED} == {*BASELINES} > {*ON_EMBEDDINGS}


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_loss_of_a_batch_is_the_published_function_with_plain_distillation_added(
    baseline: str, tmp_path: Path
) -> None:
    run = trainer(config(tmp_path, baseline))
    batch = batch_of(run)
    with torch.no_grad():
        expected = float(EXPECTED[baseline](Parts(run, batch)))
        assert float(run.compute_loss(run.model, batch)) == pytest.approx(expected, rel=1e-5)
        # The labels' part beside it is that of every trainer here.
        run.args.alpha = 0.25
        hard = F.cross_entropy(Parts(run, batch).o, batch["labels"], reduction="sum") / len(batch["labels"])
        mixed = 0.25 * float(hard) + 0.75 * expected
        assert float(run.compute_loss(run.model, batch)) == pytest.approx(mixed, rel=1e-5)


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_method_trains_and_leaves_a_plain_student(baseline: str, tmp_path: Path) -> None:
    start = trainer(config(tmp_path, baseline))
    evaluation = tasks.task().evaluation.remove_columns("teacher_logits")
    run = trainer(config(tmp_path, baseline, learning_rate=0.02), eval_dataset=evaluation)
    before = runs.weights(run.model)
    runs.assert_same(before, runs.weights(start.model))
    run.train()
    assert len(runs.losses(run)) == 4 and np.isfinite(runs.losses(run)).all()
    # All of what the method needs beside the student learns as well.
    still = [name for name, value in run.model.state_dict().items() if value.equal(before[name])]
    assert all("attention.key.bias" in name or "k_proj.bias" in name for name in still), still
    assert (student_head(run.model) is not None) == (baseline in ON_EMBEDDINGS)

    run.save_model(str(tmp_path / "student"))
    loaded, info = AutoModelForImageClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.state_dict().keys() == tasks.student().state_dict().keys()
    logits = run.predict(evaluation.with_format("torch")).predictions
    with torch.no_grad():
        seen = loaded.eval()(torch.tensor(evaluation["pixel_values"])).logits
    np.testing.assert_allclose(logits, seen, atol=1e-5)
    assert run.evaluate()["eval_loss"] == pytest.approx(
        float(F.cross_entropy(seen, torch.tensor(evaluation["labels"]))), rel=1e-4
    )


class Watch(TrainerCallback):
    """Whether the final layer and the auxiliary module have moved by the end of each step."""

    def __init__(self) -> None:
        self.moved: list[tuple[bool, bool]] = []
        self._before: dict[str, Tensor] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, model: PreTrainedModel, **kwargs: Any) -> None:
        self._before = runs.weights(model.classifier)

    def on_step_end(self, args: Any, state: Any, control: Any, model: PreTrainedModel, **kwargs: Any) -> None:
        now = runs.weights(model.classifier)
        changed = {name: not value.equal(self._before[name]) for name, value in now.items()}
        self.moved.append((changed["weight"], changed["auxiliary.weight"]))


def test_fitnet_learns_embeddings_in_the_first_half_and_classes_in_the_second(tmp_path: Path) -> None:
    watch = Watch()
    run = trainer(config(tmp_path, "fitnet", max_steps=6), callbacks=[watch])
    run.train()
    assert watch.moved == [(False, True)] * 3 + [(True, False)] * 3


def loss_at(run: BaselineTrainer, batch: dict[str, Tensor], step: int) -> float:
    run.state.global_step = step
    with torch.no_grad():
        return float(run.compute_loss(run.model, batch))


def test_the_second_half_of_fitnet_is_plain_distillation(tmp_path: Path) -> None:
    run = trainer(config(tmp_path, "fitnet"))
    batch = batch_of(run)
    run.state.max_steps = 7
    with torch.no_grad():
        parts = Parts(run, batch)
        hint, kd = float(EXPECTED["fitnet"](parts)), float(parts.kd)
    assert abs(hint - kd) > 1e-3
    expected = [hint] * 4 + [kd] * 3  # step 3 begins before the middle of seven
    assert [loss_at(run, batch, step) for step in range(7)] == pytest.approx(expected, rel=1e-5)


def test_annealing_passes_its_ten_temperatures_and_then_learns_labels(tmp_path: Path) -> None:
    run = trainer(config(tmp_path, "annealing"))
    batch = batch_of(run)
    run.state.max_steps = 40
    parts = Parts(run, batch)
    o, z = parts.o.detach().numpy(), parts.z.numpy()
    # Ten temperatures of two steps each: a tenth of the teacher's logits more each time.
    expected = [float(np.square(o - z * (1 + step // 2) / 10).mean()) for step in range(20)]
    expected += [float(F.cross_entropy(parts.o, parts.classes))] * 20
    assert [loss_at(run, batch, step) for step in range(40)] == pytest.approx(expected, rel=1e-5)


def test_the_term_of_pkt_fades_with_the_epochs(tmp_path: Path) -> None:
    run = trainer(config(tmp_path, "pkt"))
    batch = batch_of(run)
    with torch.no_grad():
        parts = Parts(run, batch)
        kd, first = float(parts.kd), float(EXPECTED["pkt"](parts))
    losses = []
    for epoch in (None, 0.9, 1.0, 2.5):
        run.state.epoch = epoch
        losses.append(loss_at(run, batch, 0) - kd)
    assert losses == pytest.approx([(first - kd) * share for share in (1, 1, 0.7, 0.49)], rel=1e-4)


def test_lelp_with_one_subclass_and_crd_is_crd(tmp_path: Path) -> None:
    both, crd = (trainer(config(tmp_path, name, num_subclasses=1)) for name in (LELP_CRD, "crd"))
    runs.assert_same(runs.weights(both.model), runs.weights(crd.model))
    batch = batch_of(crd)
    assert loss_at(both, batch, 0) == loss_at(crd, batch, 0)


@pytest.mark.parametrize("baseline", ["srd", "pkt"])
def test_rows_without_labels_serve_as_they_are(baseline: str, tmp_path: Path) -> None:
    run = trainer(config(tmp_path, baseline))
    batch = batch_of(run, labelled=False)
    assert loss_at(run, {**batch, "labels": torch.full_like(batch["labels"], -100)}, 0) == loss_at(run, batch, 0)


@pytest.mark.parametrize("baseline", ["dkd", "annealing"])
def test_rows_without_a_label_count_as_of_the_teachers_class(baseline: str, tmp_path: Path) -> None:
    run = trainer(config(tmp_path, baseline))
    run.state.max_steps = 2
    batch = batch_of(run, labelled=False)
    teacher, others = batch["teacher_logits"].argmax(-1), 1 - batch["teacher_logits"].argmax(-1)
    cases = [torch.full_like(teacher, -100), teacher, others]
    hidden, known, wrong = (loss_at(run, {**batch, "labels": labels}, 1) for labels in cases)
    assert hidden == known == loss_at(run, {name: v for name, v in batch.items() if name != "labels"}, 1)
    # With two classes the order of the two is all the same to DKD.
    assert (wrong == pytest.approx(known, rel=1e-5)) == (baseline == "dkd")


def test_the_size_of_the_teachers_embedding_plays_no_part(tmp_path: Path) -> None:
    task = tasks.task()
    embedding = np.array(task.train["teacher_embedding"])
    moved = task.train.remove_columns("teacher_embedding").add_column(
        "teacher_embedding", (1000 * embedding * np.arange(1, 9) - 50).tolist()
    )
    losses = []
    for train in (task.train, moved):
        run = trainer(config(tmp_path, "embedding_mse"), train_dataset=train.with_format("torch"))
        run.train()
        losses.append(runs.losses(run))
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_an_embedding_dimension_that_never_varies_does_no_harm(tmp_path: Path) -> None:
    task = tasks.task()
    embedding = np.array(task.train["teacher_embedding"])
    embedding[:, 3] = 7.0
    train = task.train.remove_columns("teacher_embedding").add_column("teacher_embedding", embedding.tolist())
    run = trainer(config(tmp_path, "vid"), train_dataset=train.with_format("torch"))
    run.train()
    assert np.isfinite(runs.losses(run)).all() and max(runs.losses(run)) < 1e3


@pytest.mark.parametrize("baseline", ["rkd", "vid", "pkt", LELP_CRD])
def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_been_stopped(baseline: str, tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(config(tmp_path, baseline, **settings))
    whole.train()
    stopped = trainer(config(tmp_path / "stopped", baseline, **settings), callbacks=[runs.StopAt(2)])
    stopped.train()
    resumed = trainer(config(tmp_path / "stopped", baseline, **settings))
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    runs.assert_same(runs.weights(resumed.model), runs.weights(whole.model))


def test_texts_and_a_tokenizer(tmp_path: Path) -> None:
    columns = runs.data().map(runs.teacher(), batched=True)
    args = config(tmp_path, "crd", columns_cache_dir=str(tmp_path / "columns"))
    run = trainer(args, model=runs.student(), train_dataset=columns, processing_class=tiny.tokenizer())
    run.train()
    assert len(runs.losses(run)) == 4
    head = student_head(run.model)
    assert isinstance(head, AuxiliaryHead) and head.auxiliary.teacher.out_features == CRD_FEATURES


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"baseline='nonsense': one of soft_targets, .*, lelp_crd\."):
        config(tmp_path, "nonsense")
    with pytest.raises(ValueError, match="num_subclasses=2: the method rkd has no subclasses"):
        config(tmp_path, "rkd", num_subclasses=2)
    with pytest.raises(ValueError, match="student_head='subclass': lelp_crd puts two layers beside the student's own"):
        config(tmp_path, LELP_CRD, student_head="subclass")
    with pytest.raises(ValueError, match=r"temperature=0\.0: a temperature is a positive number"):
        config(tmp_path, "rkd", temperature=0)
    assert BaselineConfig(output_dir=str(tmp_path)).num_subclasses == 1


@pytest.mark.parametrize("baseline", ON_EMBEDDINGS)
def test_a_method_on_embeddings_without_the_teachers_embedding(baseline: str, tmp_path: Path) -> None:
    train = tasks.task().train.remove_columns("teacher_embedding")
    with pytest.raises(ValueError, match=rf"{baseline}.*teacher_embedding|teacher_embedding.*{baseline}"):
        trainer(config(tmp_path, baseline), train_dataset=train)


def test_srd_needs_the_teacher_s_final_layer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with the teacher's final layer: pass head"):
        trainer(config(tmp_path, "srd"), head=None)


def test_settings_of_another_trainer_are_refused(tmp_path: Path) -> None:
    args = LELPConfig(output_dir=str(tmp_path), num_subclasses=1, report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match=r"LELPConfig.*BaselineConfig"):
        trainer(args)  # type: ignore[arg-type]


@pytest.mark.parametrize("baseline", ["embedding_mse", "fitnet", "vid", "crd", "srd", LELP_CRD])
def test_a_chosen_temperature_trains_what_the_number_trains_whether_trials_are_made_or_found(
    baseline: str, tmp_path: Path
) -> None:
    made, found = (trainer(config(tmp_path, baseline, temperature="auto")) for _ in range(2))
    assert made.auto_trials == found.auto_trials and len(found.auto_trials) > 1
    given = trainer(config(tmp_path, baseline, temperature=made.args.temperature))
    for run in (made, found):
        runs.assert_same(runs.weights(run.model), runs.weights(given.model))
