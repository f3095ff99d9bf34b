"""Datasets that LELPTrainer is given: prepared for the student whatever their columns, kind and format."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tasks
import tiny
import torch
from datasets import Dataset, Features, IterableDataset, List, Value, concatenate_datasets

from hf_lelp import ClassProjections, LELPTrainer
from hf_lelp.data.columns import TEACHER_COLUMNS
from hf_lelp.overrides.batches import ColumnArrays, rows_and_columns


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
        rows = loader.dataset.dataset  # without the teacher's columns
        assert isinstance(rows, Dataset) == (form is None)  # the other is in memory
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


def columns_of(rows: int = 40) -> tuple[Dataset, dict[str, Any]]:
    """Prepared rows of lists from Python, and arguments of a trainer for them."""
    columns, projections = runs.prepared(runs.data(rows))
    return columns.remove_columns("teacher_embedding"), {"teacher_model": None, "projections": projections}


def check_batches(run: LELPTrainer, loader: Any, columns: Dataset) -> list[dict[str, Any]]:
    """Each row of the batches has the teacher's columns of its own text."""
    assert run.processing_class is not None
    tokens = run.processing_class(list(columns["text"]))["input_ids"]
    stored = columns.with_format(None)[:]
    batches = list(loader)
    for batch in batches:
        for number, ids in enumerate(batch["input_ids"]):
            row = tokens.index(ids[batch["attention_mask"][number] == 1].tolist())
            for name in ("teacher_logits", "teacher_projections"):
                torch.testing.assert_close(batch[name][number], torch.tensor(stored[name][row]), rtol=0, atol=0)
    return batches


def pieces(columns: Dataset) -> Dataset:
    """The same rows in several chunks, in another order."""
    parts = [columns.select(range(start, start + 8)) for start in range(0, 40, 8)]
    return concatenate_datasets(parts).shuffle(seed=0)


@pytest.mark.parametrize("change", [lambda rows: rows, pieces, lambda rows: rows.select(range(5, 30))])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dataloader_num_workers": 2},
        {"train_sampling_strategy": "group_by_length"},
        {"remove_unused_columns": False},
    ],
)
def test_rows_keep_their_teacher(change: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    columns, arguments = columns_of()
    args = runs.config(tmp_path, num_train_epochs=1, max_steps=-1, **settings)
    run = runs.trainer(args, train_dataset=change(columns), eval_dataset=change(columns), **arguments)
    for loader in (run.get_train_dataloader(), run.get_eval_dataloader()):
        batches = check_batches(run, loader, columns)
        assert sum(len(batch["input_ids"]) for batch in batches) == len(change(columns))
        assert "teacher_embedding" not in batches[0]


def test_a_collator_sees_the_student_s_columns_alone(tmp_path: Path) -> None:
    columns, arguments = columns_of()
    seen: set[str] = set()
    run = runs.trainer(runs.config(tmp_path), train_dataset=columns, **arguments)
    usual = run.data_collator

    def strict(rows: list[dict[str, Any]]) -> Any:
        seen.update(*rows)
        return usual([{name: row[name] for name in ("input_ids", "attention_mask", "labels")} for row in rows])

    run.data_collator = strict
    check_batches(run, run.get_train_dataloader(), columns)
    assert seen and not {"teacher_logits", "teacher_projections"} & seen and run.data_collator is strict


@pytest.mark.parametrize("change", [lambda rows: rows[::-1], lambda rows: rows[1:]])
def test_a_collator_that_reorders_or_drops_rows(change: Any, tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path))
    usual = run.data_collator
    run.data_collator = lambda rows: usual(change(rows))
    with pytest.raises(ValueError, match="Let it keep all rows in their order"):
        run.train()


def test_columns_in_float16_and_of_numbers_from_python() -> None:
    values = np.arange(24, dtype=np.float16).reshape(6, 2, 2)
    nested = List(List(Value("float16"), length=2), length=2)
    stored = Dataset.from_dict({"teacher_projections": values}, features=Features({"teacher_projections": nested}))
    lists = Dataset.from_dict({"teacher_projections": values.tolist()})
    for dataset, dtype in ((stored, torch.float16), (lists, torch.float32)):
        rows = rows_and_columns(dataset.add_column("labels", [0] * 6), TEACHER_COLUMNS, None)
        assert rows is not None
        batch = pickle.loads(pickle.dumps(rows)).__getitems__([4, 0, -1]).columns["teacher_projections"]
        assert batch.dtype == dtype
        np.testing.assert_array_equal(batch.numpy(), values[[4, 0, 5]])
        assert torch.equal(rows[4]["teacher_projections"], batch[0])


@pytest.mark.parametrize("values", [[[1.0], [1.0, 2.0]], [[1.0, 2.0], None], [[1.0, None], [1.0, 2.0]]])
def test_columns_that_are_no_array_stay_in_the_rows(values: list[Any]) -> None:
    dataset = Dataset.from_dict({"teacher_logits": values, "labels": [0, 1]})
    assert ColumnArrays.of(dataset.data, "teacher_logits") is None
    assert rows_and_columns(dataset, TEACHER_COLUMNS, None) is None


def test_resuming_within_an_epoch_reads_the_same_batches(tmp_path: Path) -> None:
    columns, arguments = columns_of()
    args = runs.config(tmp_path, save_strategy="steps", save_steps=1, max_steps=3)
    whole, again = (
        runs.trainer(args, train_dataset=pieces(columns), model=runs.student(dropout=False), **arguments) for _ in "ab"
    )
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    runs.assert_same(runs.weights(again.model), runs.weights(whole.model))


def test_a_transform_of_one_s_own_may_read_the_teacher_s_columns(tmp_path: Path) -> None:
    columns, arguments = columns_of()

    def marked(batch: dict[str, Any]) -> dict[str, Any]:
        assert len(batch["teacher_logits"]) == len(batch["text"])
        return batch

    args = runs.config(tmp_path, remove_unused_columns=False, num_train_epochs=1, max_steps=-1)
    run = runs.trainer(args, train_dataset=columns.with_transform(marked), **arguments)
    rows = run.get_train_dataloader().dataset.__getitems__([3, 1])
    assert {*rows.columns} == {"teacher_logits", "teacher_projections"} and not {*rows.columns} & {*rows.rows[0]}


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


@pytest.mark.parametrize("rows", [3, 100])
def test_arrays_of_several_chunks(rows: int) -> None:
    values = np.random.default_rng(0).normal(size=(40, 2, 3))
    parts = [Dataset.from_dict({"teacher_projections": values[start : start + 10]}) for start in range(0, 40, 10)]
    gather = ColumnArrays.of(concatenate_datasets(parts).data, "teacher_projections")
    chosen = np.random.default_rng(1).integers(0, 40, rows)
    assert gather is not None
    np.testing.assert_array_equal(gather(chosen), values[chosen])
