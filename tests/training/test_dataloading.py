"""Datasets that LELPTrainer is given: prepared for the student whatever their columns, kind and format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import runs
import tasks
import tiny
import torch
from datasets import Dataset, IterableDataset, Value

from hf_lelp import ClassProjections


def test_text_labels_and_other_column_names(tmp_path: Path) -> None:
    raw = runs.data()
    named = Dataset.from_dict(
        {"review": list(raw["text"]), "id": ["x"] * len(raw), "sentiment": [tiny.LABEL_NAMES[i] for i in raw["label"]]}
    )
    settings = {"alpha": 0.5, "input_columns": ["review"], "label_column": "sentiment"}
    other = runs.trainer(runs.config(tmp_path, **settings), train_dataset=named, eval_dataset=named)
    other.train()
    usual = runs.trainer(runs.config(tmp_path, alpha=0.5), eval_dataset=raw)
    usual.train()
    runs.assert_same(runs.weights(other.model), runs.weights(usual.model))
    assert other.evaluate()["eval_accuracy"] == usual.evaluate()["eval_accuracy"]


def test_two_text_columns(tmp_path: Path) -> None:
    raw = runs.data()
    pairs = raw.add_column("text2", tiny.texts(len(raw), seed=9))
    settings = {"input_columns": ["text", "text2"], "check_teacher": False}
    run = runs.trainer(runs.config(tmp_path, **settings), train_dataset=pairs, eval_dataset=pairs)
    ids = tiny.tokenizer()(pairs[0]["text"], pairs[0]["text2"])["input_ids"]
    assert run.train_dataset[0]["input_ids"] == run.eval_dataset[0]["input_ids"] == ids
    run.train()
    assert len(run.predict(pairs).predictions) == len(raw)


def test_class_label_minus_one_is_no_label(tmp_path: Path) -> None:
    raw = runs.data()
    hidden = raw.cast_column("label", Value("int64")).map(
        lambda row, i: {"label": -1 if i % 2 else row["label"]}, with_indices=True
    )
    hidden = hidden.cast_column("label", raw.features["label"])
    run = runs.trainer(runs.config(tmp_path, alpha=0.5), train_dataset=hidden, eval_dataset=hidden)
    run.train()
    assert run.train_dataset["labels"][:4] == [raw["label"][0], -100, raw["label"][2], -100]
    assert isinstance(run.evaluate()["eval_accuracy"], float)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_arrays_in_torch_format_train_like_lists(alpha: float, tmp_path: Path) -> None:
    task = tasks.task(seed=1)
    projections = ClassProjections.fit(task.train, task.head, 2)
    columns = task.train.map(projections, batched=True).remove_columns(["teacher_embedding", "projections_fingerprint"])
    trained, batches = [], []
    for form in (None, "torch"):
        torch.manual_seed(0)
        run = runs.trainer(
            runs.config(tmp_path, alpha=alpha, per_device_train_batch_size=10, max_steps=9),
            model=tasks.student(),
            train_dataset=columns.with_format(form),
            eval_dataset=task.evaluation.with_format(form),
            processing_class=None,
            teacher_model=None,
            projections=projections,
        )
        loader = run.get_train_dataloader()
        assert isinstance(loader.dataset, Dataset) == (form is None)  # the other is in memory
        batches.append({name: (values.shape, values.dtype) for name, values in next(iter(loader)).items()})
        run.train()
        assert isinstance(run.train_dataset, Dataset)
        trained.append((runs.losses(run), runs.weights(run.model), run.evaluate()["eval_loss"]))
    (losses, weights, loss), (in_memory, same_weights, same_loss) = trained
    assert len(losses) == 9 and losses == in_memory and loss == same_loss
    assert batches[0] == batches[1] and batches[0]["pixel_values"] == ((10, 1, 4, 4), torch.float32)
    runs.assert_same(weights, same_weights)


def test_remove_unused_columns_does_not_matter(tmp_path: Path) -> None:
    raw = runs.data()
    one, other = (
        runs.trained(tmp_path, remove_unused_columns=setting, arguments={"eval_dataset": raw})
        for setting in (True, False)
    )
    runs.assert_same(runs.weights(one.model), runs.weights(other.model))
    for dataset in (None, raw, runs.prepared()[0]):
        results = [run.evaluate(dataset) for run in (one, other)]
        assert results[0]["eval_loss"] == results[1]["eval_loss"]
        assert results[0]["eval_accuracy"] == results[1]["eval_accuracy"]


def test_several_evaluation_datasets(tmp_path: Path) -> None:
    one, other = runs.data(40, seed=1), runs.data(30, seed=2)
    several = runs.trained(
        tmp_path, eval_strategy="steps", eval_steps=2, arguments={"eval_dataset": {"one": one, "other": other}}
    )
    logged = {name for entry in several.state.log_history for name in entry}
    assert {"eval_one_accuracy", "eval_other_loss"} <= logged
    metrics = several.evaluate()
    assert metrics["eval_other_accuracy"] == several.evaluate(other)["eval_accuracy"]
    assert several.evaluate({"again": one})["eval_again_loss"] == metrics["eval_one_loss"]


def test_a_stream_of_prepared_rows(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    columns = columns.remove_columns("teacher_embedding")

    def rows() -> Iterator[dict[str, Any]]:
        yield from columns

    arguments = {"teacher_model": None, "projections": projections, "eval_dataset": columns.to_iterable_dataset()}
    runs_ = [
        runs.trained(tmp_path, alpha=0.5, arguments={**arguments, "train_dataset": dataset})
        for dataset in (columns.to_iterable_dataset(), IterableDataset.from_generator(rows))
    ]
    assert len(runs.losses(runs_[0])) == 4
    runs.assert_same(runs.weights(runs_[0].model), runs.weights(runs_[1].model))
    assert runs_[0].evaluate()["eval_loss"] == runs_[1].evaluate(columns)["eval_loss"]

    labels = columns.rename_column("label", "labels")
    renamed = runs.trained(tmp_path, alpha=0.5, arguments={**arguments, "train_dataset": labels.to_iterable_dataset()})
    runs.assert_same(runs.weights(renamed.model), runs.weights(runs_[0].model))


def test_a_torch_dataset_of_prepared_rows(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    columns = columns.remove_columns("teacher_embedding")
    arguments = {"teacher_model": None, "projections": projections}
    usual = runs.trained(tmp_path, alpha=0.5, arguments={**arguments, "train_dataset": columns})

    class Rows(torch.utils.data.Dataset):
        def __init__(self, dataset: Dataset) -> None:
            self.rows = list(dataset)

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return self.rows[index]

    other = runs.trained(tmp_path, alpha=0.5, arguments={**arguments, "train_dataset": Rows(usual.train_dataset)})
    runs.assert_same(runs.weights(other.model), runs.weights(usual.model))


NO_CLASS = {
    "lists": lambda label: [label, 1 - label],
    "lists of fractions": lambda label: [float(label), 1.0 - label],
    "fractions": float,
    "tensors": lambda label: torch.eye(2)[label],
}


@pytest.mark.parametrize(
    ("form", "kind"),
    [*(("list", kind) for kind in NO_CLASS), ("stream", "lists"), ("stream", "fractions"), ("known stream", "lists")],
)
def test_labels_that_are_no_single_class_are_refused_in_data_of_any_kind(form: str, kind: str, tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    arguments = {"teacher_model": None, "projections": projections}
    usual = runs.trainer(runs.config(tmp_path, alpha=0.5), train_dataset=columns, **arguments)
    rows = [{**row, "labels": NO_CLASS[kind](row["labels"])} for row in usual.train_dataset]
    data: Any = rows
    if form == "stream":
        data = IterableDataset.from_generator(lambda: iter(rows))
    elif form != "list":
        data = Dataset.from_list(rows).to_iterable_dataset()
    model = runs.student()
    with pytest.raises(ValueError, match=r"has labels of shape .* and type .*: one class index per row is expected"):
        runs.trained(tmp_path, alpha=0.5, arguments={**arguments, "model": model, "train_dataset": data})
    assert form != "list" or model.config.problem_type is None
    if form == "list":
        with pytest.raises(ValueError, match="The first row has labels of shape"):
            usual.evaluate(data)


def test_a_second_column_of_labels_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label_names=\['labels', 'group'\]: LELPTrainer knows one column of labels"):
        runs.trainer(runs.config(tmp_path, label_names=["labels", "group"]))
    runs.trainer(runs.config(tmp_path, label_names=["labels"])).evaluate(runs.data())
