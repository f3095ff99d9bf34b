"""What LELPTrainer computes: both ways of use, the method's equations, the limits S = 1 and α = 1, unlabelled data."""

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
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

from hf_lelp import ClassProjections
from hf_lelp.student.heads import AuxiliaryHead, student_head
from hf_lelp.student.modeling_lelp import SubclassHead

HEADS = ("subclass", "auxiliary")


def partly_labelled(every: int = 3) -> Dataset:
    """Every third example has a label, the others −100."""
    raw = runs.data()
    labels = [label if row % every == 0 else -100 for row, label in enumerate(raw["label"])]
    return raw.remove_columns("label").add_column("label", labels)


def plain_arguments(folder: Path, **settings: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder / "plain"),
        per_device_train_batch_size=16,
        optim="sgd",
        learning_rate=0.1,
        max_steps=4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )


def tokenized(dataset: Dataset) -> Dataset:
    processing_class = tiny.tokenizer()
    return dataset.map(lambda row: processing_class(row["text"])).rename_column("label", "labels")


class KDTrainer(Trainer):
    """Hinton's distillation, written for this test alone."""

    temperature, alpha = 2.0, 0.3

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels, teacher_logits = inputs.pop("labels"), inputs.pop("teacher_logits")
        logits = model(**inputs).logits
        log_q = (logits / self.temperature).log_softmax(-1)
        soft = -((teacher_logits / self.temperature).softmax(-1) * log_q).sum(-1) * self.temperature**2
        hard = F.cross_entropy(logits, labels, reduction="none")
        return (self.alpha * hard + (1 - self.alpha) * soft).mean()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("student", "teacher"), [("bert", "gpt2"), ("gpt2", "bert"), ("llama", "llama")])
def test_raw_data_and_the_three_steps_by_hand_train_alike(
    student: str, teacher: str, head: str, tmp_path: Path
) -> None:
    raw = runs.data(kind=teacher)
    args = runs.config(tmp_path, student_head=head, alpha=0.25, temperature=2.0)
    at_once = runs.trainer(
        args,
        student,
        train_dataset=raw,
        teacher_model=runs.teacher_model(teacher),
        teacher_processing_class=tiny.tokenizer(teacher),
    )
    at_once.train()

    guide = runs.teacher(teacher)
    columns = raw.map(guide, batched=True)
    projections = ClassProjections.fit(columns, guide.head, 2)
    columns = columns.map(projections, batched=True).remove_columns("teacher_embedding")
    by_hand = runs.trainer(args, student, train_dataset=columns, teacher_model=None, projections=projections)
    by_hand.train()

    assert len(runs.losses(at_once)) == 4
    np.testing.assert_allclose(runs.losses(at_once), runs.losses(by_hand), atol=1e-6)
    runs.assert_same(runs.weights(at_once.model), runs.weights(by_hand.model), 1e-5)
    # Something was learnt, and by all of the head.
    start = runs.trainer(args, student, train_dataset=columns, teacher_model=None, projections=projections)
    placed, fresh = student_head(at_once.model), student_head(start.model)
    assert isinstance(placed, SubclassHead if head == "subclass" else AuxiliaryHead) and fresh is not None
    assert all(not value.equal(fresh.state_dict()[name]) for name, value in placed.state_dict().items())


def test_targets_and_first_loss_agree_with_numpy(tmp_path: Path) -> None:
    args = runs.config(
        tmp_path, num_subclasses=3, temperature=1.7, subclass_temperature=0.6, alpha=0.2, rotation_seed=5, max_steps=1
    )
    model = runs.student(dropout=False)
    raw = runs.data()
    run = runs.trainer(args, model=model, train_dataset=raw)

    # The teacher without any part of the library.
    guide = runs.teacher_model().eval()
    with torch.no_grad():
        inputs = tiny.tokenizer()(list(raw["text"]), padding=True, return_tensors="pt")
        embedding = guide.bert(**inputs).pooler_output.numpy()
        logits = guide(**inputs).logits.numpy()
    labels = np.array(raw["label"])
    fitted = reference.fit(
        embedding, reference.assign(logits, labels), guide.classifier.weight.detach().numpy(), 3, True
    )
    assert run.projections is not None
    fitted = fitted._replace(directions=reference.align(fitted.directions, run.projections.directions.numpy()))
    rotation = run.projections.rotation(3, scale=False, seed=5).double().numpy()
    expected = reference.targets(logits, embedding, fitted, 1.7, 0.6, rotation)

    columns = run.train_dataset.with_format("torch")[:]
    scores = run.subclass_scores(columns["teacher_projections"])
    actual = (columns["teacher_logits"] / 1.7).softmax(-1).unsqueeze(-1) * (scores / 0.6).softmax(-1)
    np.testing.assert_allclose(actual, expected, atol=1e-5)

    head = student_head(run.model)
    assert isinstance(head, SubclassHead)
    with torch.no_grad():
        outputs = F.linear(model.eval().bert(**inputs).pooler_output, head.weight, head.bias).numpy()
    loss = dict(
        zip(
            zip(raw["text"], raw["label"], strict=True),
            reference.loss(outputs, expected, labels, 1.7, 0.2),
            strict=True,
        )
    )
    first: list[Any] = []
    collate = run.data_collator

    def watched(rows: list[dict[str, Any]]) -> Any:
        first.extend(
            [] if first else [(run.processing_class.decode(row["input_ids"][1:-1]), row["labels"]) for row in rows]
        )
        return collate(rows)

    run.data_collator = watched
    run.train()
    assert len(first) == 16
    assert runs.losses(run)[0] == pytest.approx(np.mean([loss[row] for row in first]), abs=1e-5)


def test_one_subclass_is_plain_distillation_to_the_last_digit(tmp_path: Path) -> None:
    columns = runs.data().map(runs.teacher(), batched=True).remove_columns("teacher_embedding")
    args = runs.config(tmp_path, num_subclasses=1, temperature=KDTrainer.temperature, alpha=KDTrainer.alpha)
    lelp = runs.trainer(args, train_dataset=columns, teacher_model=None)
    lelp.train()
    kd = KDTrainer(
        runs.student(),
        plain_arguments(tmp_path, remove_unused_columns=False),
        data_collator=DataCollatorWithPadding(tiny.tokenizer()),
        train_dataset=tokenized(columns).remove_columns(["text", "teacher_fingerprint"]),
    )
    kd.train()
    assert [entry["loss"] for entry in kd.state.log_history if "loss" in entry] == runs.losses(lelp)
    runs.assert_same(runs.weights(lelp.model), runs.weights(kd.model))


def test_alpha_1_is_the_plain_trainer_and_needs_no_teacher(tmp_path: Path) -> None:
    lelp = runs.trainer(runs.config(tmp_path, alpha=1.0), teacher_model=None)
    lelp.train()
    plain = Trainer(
        runs.student(),
        plain_arguments(tmp_path),
        train_dataset=tokenized(runs.data()),
        processing_class=tiny.tokenizer(),
    )
    plain.train()
    # Trainer divides the sum of the losses by their number, LELPTrainer takes their mean: the last digit may differ.
    runs.assert_same(runs.weights(lelp.model), runs.weights(plain.model), 1e-6)
    assert not (tmp_path / "columns").exists()


@pytest.mark.parametrize("head", HEADS)
def test_without_a_label_column_it_is_the_same_as_with_all_labels_missing(head: str, tmp_path: Path) -> None:
    raw = runs.data()
    args = runs.config(tmp_path, student_head=head)
    none = runs.trainer(args, train_dataset=raw.remove_columns("label"))
    none.train()
    missing = raw.remove_columns("label").add_column("label", [-100] * len(raw))
    hidden = runs.trainer(args, train_dataset=missing)
    hidden.train()
    assert len(runs.losses(none)) == 4
    runs.assert_same(runs.weights(none.model), runs.weights(hidden.model))
    assert none.model.config.id2label == dict(enumerate(tiny.LABEL_NAMES))


def test_with_alpha_0_labels_only_say_which_class_a_row_is_fitted_in(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    args = runs.config(tmp_path)
    labelled = runs.trainer(args, train_dataset=columns, projections=projections)
    labelled.train()
    unlabelled = runs.trainer(args, train_dataset=columns.remove_columns("label"), projections=projections)
    unlabelled.train()
    runs.assert_same(runs.weights(labelled.model), runs.weights(unlabelled.model))

    some = runs.trainer(args, train_dataset=partly_labelled())
    all_rows = runs.trainer(args, train_dataset=runs.data())
    assert some.projections is not None and all_rows.projections is not None
    assert not some.projections.mean.equal(all_rows.projections.mean)
    assert int(some.projections.count.sum()) == runs.ROWS


def test_with_alpha_above_0_unlabelled_rows_drop_the_label_term(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    columns = columns.select(range(16))
    labels = [label if row % 4 else -100 for row, label in enumerate(columns["label"])]
    some = columns.remove_columns("label").add_column("label", labels)
    args = {"per_device_train_batch_size": 16, "max_steps": 1, "check_teacher": False}

    def first_loss(alpha: float, dataset: Dataset) -> float:
        run = runs.trainer(
            runs.config(tmp_path, alpha=alpha, **args),
            model=runs.student(dropout=False),
            train_dataset=dataset,
            teacher_model=None,
            projections=projections,
        )
        run.train()
        return runs.losses(run)[0]

    soft, hard = first_loss(0.0, columns), first_loss(1.0, some)
    assert hard < first_loss(1.0, columns)
    assert first_loss(0.4, some) == pytest.approx(0.4 * hard + 0.6 * soft, abs=1e-6)


def test_metrics_see_class_logits_and_the_labels_of_the_data(tmp_path: Path) -> None:
    seen: list[EvalPrediction] = []

    def watch(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        return {"rows": float(len(prediction.label_ids))}

    raw = runs.data()
    for head in HEADS:
        run = runs.trainer(runs.config(tmp_path, student_head=head), eval_dataset=raw, compute_metrics=watch)
        run.train()
        assert run.evaluate()["eval_rows"] == runs.ROWS
        prediction = run.predict(raw)
        assert isinstance(prediction.predictions, np.ndarray) and prediction.predictions.shape == (runs.ROWS, 2)
        expected = runs.class_logits(run.model, list(raw["text"]), tiny.tokenizer())
        np.testing.assert_allclose(prediction.predictions, expected, atol=1e-5)
        np.testing.assert_allclose(seen[-1].predictions, expected, atol=1e-5)
        np.testing.assert_array_equal(seen[-1].label_ids, raw["label"])


def test_both_heads_learn_what_the_teacher_knows(tmp_path: Path) -> None:
    for head in HEADS:
        run = runs.trainer(
            runs.config(tmp_path, student_head=head, max_steps=80, optim="adamw_torch", learning_rate=1e-2),
            eval_dataset=runs.data(200, seed=1),
        )
        before, _ = run.evaluate()["eval_accuracy"], run.train()
        assert run.evaluate()["eval_accuracy"] > before + 0.1


def test_a_teacher_with_other_order_of_classes_gives_the_same_student(tmp_path: Path) -> None:
    swapped = runs.teacher_model()
    with torch.no_grad():
        for parameter in swapped.classifier.parameters():
            parameter.copy_(parameter.flip(0))
    tiny.named(swapped, ["POSITIVE", "NEGATIVE"])
    ordered = runs.trainer(runs.config(tmp_path, alpha=0.3))
    ordered.train()
    mapped = runs.trainer(runs.config(tmp_path, alpha=0.3), teacher_model=swapped)
    mapped.train()
    assert mapped.model.config.id2label == {0: "negative", 1: "positive"}
    runs.assert_same(runs.weights(mapped.model), runs.weights(ordered.model), 1e-6)


def test_a_student_from_a_folder_gets_the_data_s_classes_in_float32(tmp_path: Path) -> None:
    runs.student(num_labels=2).bfloat16().save_pretrained(tmp_path / "student")
    tiny.tokenizer().save_pretrained(tmp_path / "student")
    run = runs.trainer(runs.config(tmp_path), model=str(tmp_path / "student"), processing_class=None)
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
    assert run.model.config.label2id == {"negative": 0, "positive": 1}
    run.train()
    # And on from there.
    run.save_model()
    again = runs.trainer(runs.config(tmp_path), model=run.args.output_dir, processing_class=None)
    runs.assert_same(runs.weights(again.model), runs.weights(run.model))
    again.train()


def test_evaluation_without_labels_has_no_figures(tmp_path: Path) -> None:
    raw = runs.data().remove_columns("label")
    run = runs.trainer(runs.config(tmp_path), eval_dataset=raw)
    metrics = run.evaluate()
    assert "eval_loss" not in metrics and "eval_accuracy" not in metrics
    assert run.predict(raw).label_ids is None


def test_the_seed_is_all_that_new_layers_depend_on(tmp_path: Path) -> None:
    runs.student().bert.save_pretrained(tmp_path / "base")
    torch.manual_seed(99)
    one, other, another = (
        runs.trainer(runs.config(tmp_path, seed=seed), model=str(tmp_path / "base")).model.classifier.weight
        for seed in (1, 1, 2)
    )
    assert one.equal(other) and not one.equal(another)


def test_evaluation_counts_the_labelled_rows_alone(tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path, per_device_eval_batch_size=8))
    raw = runs.data(16)
    labels = list(raw["label"])
    half = raw.remove_columns("label").add_column("label", [-100 if row % 2 else labels[row] for row in range(16)])
    expected = run.evaluate(raw.select(range(0, 16, 2)))["eval_loss"]
    assert run.evaluate(half)["eval_loss"] == pytest.approx(expected, rel=1e-5)
    none = raw.remove_columns("label").add_column("label", [-100] * 16)
    assert "eval_loss" not in run.evaluate(none)  # the mean of nothing


def test_a_search_cannot_vary_what_the_projections_were_fitted_with(tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path), model_init=lambda: runs.student())
    run.args.null_space = False
    run.hp_search_backend = None
    with pytest.raises(ValueError, match="a search cannot vary null_space"):
        run.call_model_init({"null_space": False})


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_without_weight_the_auxiliary_layer_changes_nothing_of_plain_distillation(alpha: float, tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    settings = {"temperature": 2.0, "alpha": alpha}
    without = runs.trainer(
        runs.config(tmp_path, student_head="auxiliary", subclass_weight=0.0, **settings),
        train_dataset=columns,
        teacher_model=None,
        projections=projections,
    )
    without.train()
    plain = runs.trainer(runs.config(tmp_path, num_subclasses=1, **settings), train_dataset=columns, teacher_model=None)
    plain.train()
    # To rounding: the classes' targets are sums over the subclasses.
    np.testing.assert_allclose(runs.losses(without), runs.losses(plain), atol=1e-5)
    kept = {name: value for name, value in runs.weights(without.model).items() if ".auxiliary." not in name}
    assert len(kept) + 2 == len(without.model.state_dict())
    runs.assert_same(kept, runs.weights(plain.model), 1e-6)


def batch_of(run: Any, rows: int = 16) -> dict[str, torch.Tensor]:
    """The first rows of the training data, ready for `compute_loss`."""
    dataset = run._remove_unused_columns(run.train_dataset)
    return dict(run.data_collator([dataset[row] for row in range(rows)]))


@pytest.mark.parametrize("head", HEADS)
def test_the_weight_is_that_of_the_subclasses_part_alone(head: str, tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    args = runs.config(tmp_path, student_head=head, temperature=2.0)
    run = runs.trainer(
        args, model=runs.student(dropout=False), train_dataset=columns, teacher_model=None, projections=projections
    )
    shuffle_rows(run)
    batch = batch_of(run)

    def loss(weight: float) -> float:
        args.subclass_weight = weight
        return float(run.compute_loss(run.model, batch))

    none, one = loss(0.0), loss(1.0)
    with torch.no_grad():
        class_logits = run.model(**{k: v for k, v in batch.items() if not k.startswith(("teacher", "labels"))}).logits
    plain = 4 * F.cross_entropy(class_logits / 2, (batch["teacher_logits"] / 2).softmax(-1))
    assert none == pytest.approx(float(plain), rel=1e-6)
    assert one > none + 0.01
    assert loss(0.5) == pytest.approx((none + one) / 2, rel=1e-6)
    assert loss(3.0) == pytest.approx(none + 3 * (one - none), rel=1e-6)


def shuffle_rows(run: Any) -> None:
    """Large random rows for subclasses, which start as copies of one another and would hide their temperature."""
    head = student_head(run.model)
    layer = head.auxiliary if isinstance(head, AuxiliaryHead) else head
    torch.manual_seed(4)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()


def test_the_loss_with_an_auxiliary_layer_agrees_with_numpy(tmp_path: Path) -> None:
    tau, beta, weight, alpha = 2.5, 0.6, 0.7, 0.2
    args = runs.config(
        tmp_path,
        num_subclasses=3,
        student_head="auxiliary",
        temperature=tau,
        subclass_temperature=beta,
        subclass_weight=weight,
        alpha=alpha,
    )
    columns, projections = runs.prepared(num_directions=3)
    model = runs.student(dropout=False)
    run = runs.trainer(args, model=model, train_dataset=columns, teacher_model=None, projections=projections)
    shuffle_rows(run)
    batch = batch_of(run)
    head = student_head(run.model)
    assert isinstance(head, AuxiliaryHead)
    with torch.no_grad():
        embedding = model.bert(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).pooler_output
        classes = F.linear(embedding, head.weight, head.bias).double().numpy()
        outputs = F.linear(embedding, head.auxiliary.weight, head.auxiliary.bias).double().view(16, 2, 3).numpy()
    rotation = projections.rotation(3, seed=args.seed).double().numpy()
    raw = batch["teacher_projections"].double().numpy()
    u = np.stack([raw[:, c] @ rotation[c] for c in range(2)], axis=1)
    p = reference.subclass_targets(batch["teacher_logits"].numpy(), u, tau, beta)
    losses = []
    for n in range(16):
        hard = -np.log(reference.softmax(classes[n])[batch["labels"][n]])
        soft = -(tau**2) * (p[n].sum(-1) * np.log(reference.softmax(classes[n] / tau))).sum()
        # β alone is the temperature of these: no class's logits are among them.
        within = -tau * sum((p[n, c] * np.log(reference.softmax(outputs[n, c]))).sum() for c in range(2))
        losses.append(alpha * hard + (1 - alpha) * (soft + weight * within))
    assert float(run.compute_loss(run.model, batch)) == pytest.approx(np.mean(losses), abs=1e-5)


def test_scores_are_taken_as_they_are_without_projections(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(runs.ROWS, 2, 4)).astype(np.float32)
    columns = runs.data().map(runs.teacher(), batched=True).remove_columns("teacher_embedding")
    columns = columns.add_column("teacher_projections", scores.tolist())
    settings = {"random_rotation": False, "scale_projections": False, "num_subclasses": 3}
    run = runs.trainer(runs.config(tmp_path, **settings), train_dataset=columns, teacher_model=None)
    given = run.train_dataset.with_format("torch")[:]["teacher_projections"]
    assert run.subclass_scores(given).equal(torch.from_numpy(scores)[..., :3])
    shuffle_rows(run)
    batch = batch_of(run)
    before = float(run.compute_loss(run.model.eval(), batch))
    other = {**batch, "teacher_projections": -batch["teacher_projections"]}
    assert abs(float(run.compute_loss(run.model, other)) - before) > 1e-3  # they are read
    run.train()
    assert len(runs.losses(run)) == 4 and run.projections is None
    # Each of these settings asks for the projections.
    for name in ("random_rotation", "scale_projections", "whitening"):
        run.args.random_rotation = run.args.scale_projections = run.args.whitening = False
        setattr(run.args, name, True)
        with pytest.raises(ValueError, match="the projections that made them are needed for their rotation and scale"):
            run.subclass_scores(given)
