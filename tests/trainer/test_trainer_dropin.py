"""LELPTrainer takes what Trainer takes, and does with it what Trainer does."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import runs
import tiny
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import TrainerCallback, default_data_collator

from hf_lelp import LELPTrainer
from hf_lelp.student.heads import AuxiliaryHead, student_head
from hf_lelp.student.modeling_lelp import SubclassHead

HEADS = ("subclass", "auxiliary")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "kind", ["bert", "llama"]
)  # Llama's forward takes **kwargs, for which Trainer skips a division.
def test_accumulated_steps_are_one_large_step(kind: str, head: str, tmp_path: Path) -> None:
    def run(batch_size: int, steps: int) -> LELPTrainer:
        return runs.trained(
            tmp_path,
            kind,
            arguments={"model": runs.student(kind, dropout=False)},
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            student_head=head,
            alpha=0.3,
            max_steps=6,
        )

    whole, pieces = run(16, 1), run(4, 4)
    np.testing.assert_allclose(runs.losses(whole), runs.losses(pieces), atol=1e-5)
    runs.assert_same(runs.weights(whole.model), runs.weights(pieces.model), 1e-5)


def test_label_smoothing(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    columns = columns.select(range(16))
    labels = torch.tensor(columns["label"])

    def first_loss(**settings: Any) -> float:
        arguments = {
            "model": runs.student(dropout=False),
            "train_dataset": columns,
            "teacher_model": None,
            "projections": projections,
        }
        run = runs.trained(tmp_path, arguments=arguments, max_steps=1, check_teacher=False, **settings)
        return runs.losses(run)[0]

    logits = torch.tensor(runs.class_logits(runs.student(), list(columns["text"]), tiny.tokenizer()))
    smooth = F.cross_entropy(logits, labels, label_smoothing=0.2).item()
    assert first_loss(alpha=1.0, label_smoothing_factor=0.2) == pytest.approx(smooth, abs=1e-5)
    # Smoothing is of labels; the teacher's targets are soft already.
    soft = first_loss(label_smoothing_factor=0.2)
    assert soft == pytest.approx(first_loss(), abs=1e-6)
    mixed = first_loss(alpha=0.5, label_smoothing_factor=0.2)
    assert mixed == pytest.approx(0.5 * smooth + 0.5 * soft, abs=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_evaluation_with_and_without_labels_and_teacher_columns(head: str, tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    run = runs.trained(
        tmp_path,
        student_head=head,
        alpha=0.25,
        temperature=1.5,
        arguments={"train_dataset": columns, "teacher_model": None, "projections": projections},
    )
    texts, labels = list(columns["text"]), np.array(columns["label"])
    logits = runs.class_logits(run.model, texts, tiny.tokenizer())
    cross_entropy = F.cross_entropy(torch.tensor(logits), torch.tensor(labels)).item()
    plain = columns.select_columns(["text", "label"])
    ready = plain.map(lambda row: tiny.tokenizer()(row["text"])).rename_column("label", "labels")

    for dataset in (
        plain,
        ready,
        ready.remove_columns("text"),
        columns.select_columns(["text", "label", "teacher_logits"]),
    ):
        metrics = run.evaluate(dataset)
        assert metrics["eval_loss"] == pytest.approx(cross_entropy, abs=1e-5)
        assert metrics["eval_accuracy"] == (logits.argmax(-1) == labels).mean()
    bare = run.evaluate(plain.remove_columns("label"))
    assert "eval_loss" not in bare and "eval_accuracy" not in bare

    # With the teacher's columns the loss is that of training.
    placed = student_head(run.model)
    assert isinstance(placed, SubclassHead | AuxiliaryHead)
    inner = placed if isinstance(placed, SubclassHead) else placed.auxiliary
    with torch.no_grad():
        pooled = run.model.bert(**tiny.tokenizer()(texts, padding=True, return_tensors="pt")).pooler_output
        outputs = F.linear(pooled, inner.weight, inner.bias).numpy()
    scores = run.subclass_scores(torch.tensor(columns[:]["teacher_projections"])).numpy()
    targets = reference.subclass_targets(np.array(columns[:]["teacher_logits"]), scores, 1.5, 1.0)
    soft = reference.loss(outputs, targets, None, 1.5, 0.0).mean()
    if head == "auxiliary":
        # The classes at τ by the plain layer; the subclasses of each class, tempered by β alone, by the auxiliary one.
        given_class = np.log(np.apply_along_axis(reference.softmax, -1, outputs.reshape(targets.shape)))
        soft = reference.loss(logits, targets.sum(-1, keepdims=True), None, 1.5, 0.0).mean()
        soft -= 1.5 * (targets * given_class).sum((1, 2)).mean()
    metrics = run.evaluate(columns)
    assert metrics["eval_loss"] == pytest.approx(0.25 * cross_entropy + 0.75 * soft, abs=1e-4)
    unlabelled = run.evaluate(columns.remove_columns("label"))
    assert "eval_accuracy" not in unlabelled
    assert unlabelled["eval_loss"] == pytest.approx(soft, abs=1e-4)


def test_callbacks_see_the_run(tmp_path: Path) -> None:
    class Record(TrainerCallback):
        steps: list[int] = []  # noqa: RUF012

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.steps.append(state.global_step)

    run = runs.trained(tmp_path, arguments={"callbacks": [Record(), runs.StopAt(3)]})
    assert Record.steps == [1, 2, 3] and run.state.global_step == 3


@pytest.mark.parametrize("head", HEADS)
def test_bf16(head: str, tmp_path: Path) -> None:
    raw = runs.data()
    half = runs.trained(tmp_path, bf16=True, student_head=head, arguments={"eval_dataset": raw})
    full = runs.trained(tmp_path, student_head=head, arguments={"eval_dataset": raw})
    assert runs.losses(half) != runs.losses(full)
    np.testing.assert_allclose(runs.losses(half), runs.losses(full), rtol=0.03)
    assert half.evaluate()["eval_loss"] == pytest.approx(full.evaluate()["eval_loss"], rel=0.03)
    assert {value.dtype for value in half.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("head", HEADS)
def test_torch_compile(head: str, tmp_path: Path) -> None:
    raw = runs.data(32)
    settings = {"student_head": head, "alpha": 0.2, "max_steps": 3}
    compiled, eager = (
        runs.trained(
            tmp_path,
            torch_compile_backend=backend,
            arguments={"model": runs.student(dropout=False), "train_dataset": raw, "eval_dataset": raw},
            **settings,
        )
        for backend in ("aot_eager", None)
    )
    assert compiled.args.torch_compile and not eager.args.torch_compile
    np.testing.assert_allclose(runs.losses(compiled), runs.losses(eager), atol=1e-4)
    assert compiled.evaluate()["eval_loss"] == pytest.approx(eager.evaluate()["eval_loss"], abs=1e-4)
    predictions = compiled.predict(raw).predictions
    np.testing.assert_allclose(predictions, eager.predict(raw).predictions, atol=1e-4)
    # The model itself, between and after compiled calls with all logits, gives C.
    np.testing.assert_allclose(
        runs.class_logits(compiled.model, list(raw["text"]), tiny.tokenizer()), predictions, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_gradient_checkpointing(kind: str, tmp_path: Path) -> None:
    one, other = (runs.trained(tmp_path, kind, gradient_checkpointing=setting) for setting in (True, False))
    runs.assert_same(runs.weights(one.model), runs.weights(other.model), 1e-6)


def test_a_collator_of_one_s_own(tmp_path: Path) -> None:
    raw = runs.data()
    fixed = tiny.tokenizer()(list(raw["text"]), padding="max_length", max_length=14)
    ready = raw
    for name, values in fixed.items():
        ready = ready.add_column(name, values)
    arguments = {"train_dataset": ready, "model": runs.student(dropout=False)}
    one = runs.trained(tmp_path, arguments={**arguments, "data_collator": default_data_collator})
    other = runs.trained(tmp_path, arguments={"model": runs.student(dropout=False)})
    np.testing.assert_allclose(runs.losses(one), runs.losses(other), atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_hyperparameter_search(head: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna").logging.set_verbosity("ERROR")
    space = [(3, 2.0, 0.0), (1, 1.0, 0.5), (2, 0.5, 1.0)]
    rows: list[tuple[int, int]] = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            placed = student_head(model)
            rows.append((args.num_subclasses, placed.num_subclasses if placed else 1))

    def choose(trial: Any) -> dict[str, Any]:
        number = trial.suggest_categorical("number", range(len(space)))
        return dict(zip(("num_subclasses", "temperature", "alpha"), space[number], strict=True))

    raw = runs.data()
    args = runs.config(tmp_path, num_directions=3, student_head=head)
    search = runs.trainer(args, model_init=lambda: runs.student(), eval_dataset=raw, callbacks=[Watch()])
    objectives: list[float] = []

    def objective(metrics: dict[str, float]) -> float:
        objectives.append(metrics["eval_loss"])
        return metrics["eval_loss"]

    import optuna

    best = search.hyperparameter_search(
        choose,
        compute_objective=objective,
        n_trials=3,
        backend="optuna",
        sampler=optuna.samplers.GridSampler({"number": range(3)}),
    )
    assert best.objective == min(objectives)
    assert {asked for asked, _ in rows} == {1, 2, 3}
    assert sorted(rows) == [(1, 1), (2, 1), (3, 3)]  # α = 1 leaves the student plain
    # Each trial is what a run with its settings gives.
    alone = []
    for num_subclasses, temperature, alpha in space:
        run = runs.trainer(
            runs.config(
                tmp_path,
                num_directions=3,
                student_head=head,
                num_subclasses=num_subclasses,
                temperature=temperature,
                alpha=alpha,
            ),
            model_init=lambda: runs.student(),
            eval_dataset=raw,
        )
        run.train()
        alone.append(run.evaluate()["eval_loss"])
    np.testing.assert_allclose(sorted(objectives), sorted(alone), atol=1e-6)


def test_a_trial_s_settings_are_checked(tmp_path: Path) -> None:
    pytest.importorskip("optuna").logging.set_verbosity("CRITICAL")
    search = runs.trainer(runs.config(tmp_path), model_init=lambda: runs.student(), eval_dataset=runs.data())
    with pytest.raises(ValueError, match=r"alpha=1\.5: the weight of the labels is between 0 and 1"):
        search.hyperparameter_search(lambda trial: {"alpha": 1.5}, n_trials=1, backend="optuna")


def test_a_search_from_plain_distillation_to_subclasses(tmp_path: Path) -> None:
    pytest.importorskip("optuna").logging.set_verbosity("ERROR")
    args = runs.config(tmp_path, num_directions=3, num_subclasses=3)
    search = runs.trainer(args, model_init=lambda: runs.student(), eval_dataset=runs.data())
    of_trials = [1, 3]
    losses: list[float] = []

    def objective(metrics: dict[str, float]) -> float:
        losses.append(metrics["eval_loss"])
        return losses[-1]

    search.hyperparameter_search(
        lambda trial: {"num_subclasses": of_trials[trial.number]},
        compute_objective=objective,
        n_trials=2,
        backend="optuna",
    )
    assert len({*losses}) == 2


def test_a_model_that_diverged_ends_no_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("optuna").logging.set_verbosity("CRITICAL")
    rates = [1e38, 0.1]
    search = runs.trainer(runs.config(tmp_path), model_init=lambda: runs.student(), eval_dataset=runs.data())
    best = search.hyperparameter_search(
        lambda trial: {"learning_rate": rates[trial.number]}, n_trials=2, direction="maximize", backend="optuna"
    )
    assert best.run_id == "1" and 0 < best.objective < 4
    assert "The metrics of this evaluation are not known" in caplog.text
    assert len([record for record in caplog.records if "training loss is not finite" in record.message]) == 1


def test_model_init_is_looked_at_first(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = 10**30
    long = [" ".join(["good"] * 100)] * 8
    raw = Dataset.from_dict({"text": [*runs.data()["text"], *long], "label": [*runs.data()["label"], *[0] * 8]})
    run = runs.trainer(
        runs.config(tmp_path, per_device_train_batch_size=104, max_steps=1, teacher_max_length=64, check_teacher=False),
        model_init=partial(lambda dropout: runs.student(dropout=dropout), dropout=False),
        train_dataset=raw,
        processing_class=tokenizer,
    )
    run.train()  # cut to the 64 positions that the student has
    assert max(map(len, run.train_dataset["input_ids"])) == 64


def test_model_init_gets_the_head(tmp_path: Path) -> None:
    usual = runs.trainer(runs.config(tmp_path))
    by_init = runs.trainer(runs.config(tmp_path), model_init=lambda: runs.student())
    start = runs.weights(by_init.model)
    runs.assert_same(start, runs.weights(usual.model))
    by_init.train()
    assert isinstance(student_head(by_init.model), SubclassHead)
    assert not start["classifier.weight"].equal(by_init.model.state_dict()["classifier.weight"])
