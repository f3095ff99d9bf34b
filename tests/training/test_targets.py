"""The columns of both sides, made before training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
from datasets import ClassLabel, Dataset, IterableDataset

from hf_lelp import ClassProjections, LELPConfig, Teacher
from hf_lelp.data.columns import PROJECTIONS_MARK, TEACHER_MARK
from hf_lelp.data.labels import Classes
from hf_lelp.data.rows import with_columns
from hf_lelp.training.student_inputs import student_columns
from hf_lelp.training.targets import TeacherData, make_targets

CLASSES = Classes(2, tiny.LABEL_NAMES, [0, 1])


def stream(dataset: Dataset) -> IterableDataset:
    """The rows as a stream that does not know its columns."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from dataset

    return IterableDataset.from_generator(rows)


# ---- make_targets ----


def add(
    dataset: Dataset,
    args: LELPConfig,
    teacher: Teacher | None = None,
    projections: ClassProjections | None = None,
) -> TeacherData:
    return make_targets(dataset, teacher, args, CLASSES, projections)


def test_columns_are_added_beside_those_of_the_data(tmp_path: Path) -> None:
    raw, guide = runs.data(), runs.teacher()
    data = add(raw, runs.config(tmp_path, num_directions=3), guide)
    assert data.dataset.column_names == ["text", "label", "teacher_logits", "teacher_projections"]
    assert list(data.dataset["text"]) == list(raw["text"]) and data.dataset.features["label"] == raw.features["label"]
    assert data.embeddings is not None and data.projections is not None
    assert np.shape(data.dataset[:]["teacher_projections"]) == (len(raw), 2, 3)
    by_hand = raw.map(guide, batched=True)
    projections = ClassProjections.fit(by_hand, guide.head, 3)
    by_hand = by_hand.map(projections, batched=True)
    for name in ("teacher_logits", "teacher_projections"):
        np.testing.assert_allclose(data.dataset[:][name], by_hand[:][name], atol=1e-5)


def test_with_one_subclass_logits_are_enough(tmp_path: Path) -> None:
    data = add(runs.data(), runs.config(tmp_path, num_subclasses=1), runs.teacher())
    assert data.dataset.column_names == ["text", "label", "teacher_logits"] and data.projections is None


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    columns, projections = runs.prepared()
    args = runs.config(tmp_path)
    for dataset, given in (
        (columns, projections),
        (columns.remove_columns("teacher_projections"), projections),
        (columns.remove_columns(["teacher_projections", "teacher_logits"]), projections),
    ):
        guide = runs.teacher()
        with runs.rows_seen(guide.model) as seen:
            data = add(dataset, args, guide, given)
        assert bool(seen) == ("teacher_logits" not in dataset.column_names)
        assert data.projections is given
        assert not {TEACHER_MARK, PROJECTIONS_MARK} & {*data.dataset.column_names}
        np.testing.assert_allclose(data.dataset[:]["teacher_projections"], columns[:]["teacher_projections"], atol=1e-5)
    # Embeddings and projections without a teacher are enough.
    data = add(columns.remove_columns("teacher_projections"), args, None, projections)
    np.testing.assert_array_equal(data.dataset[:]["teacher_projections"], columns[:]["teacher_projections"])


def test_other_directions_for_the_same_rows(tmp_path: Path) -> None:
    data = add(runs.data(), runs.config(tmp_path), runs.teacher())
    assert data.projections is not None
    before = np.array(data.dataset[:]["teacher_projections"])
    tensors = {name: getattr(data.projections, name) for name in ("mean", "variance", "count", "null_space", "teacher")}
    flipped = ClassProjections(directions=-data.projections.directions, **tensors)
    again = data.projected_by(flipped, data.dataset)
    assert again.column_names.count("teacher_projections") == 1
    np.testing.assert_array_equal(again[:]["teacher_projections"], -before)


def test_a_format_of_the_data_is_no_hindrance(tmp_path: Path) -> None:
    raw = runs.data()
    args = runs.config(tmp_path, alpha=0.5)
    plain = add(raw, args, runs.teacher()).dataset
    for dataset in (
        raw.with_format("torch"),
        raw.with_format("numpy", columns=["label"]),
        raw.with_format("arrow"),
        raw.with_format("pandas"),
    ):
        assert add(dataset, args, runs.teacher()).dataset[:] == plain[:]
        run = runs.trainer(args, train_dataset=dataset, eval_dataset=dataset)
        run.train()
        assert run.train_dataset[:]["labels"] == list(raw["label"])
        assert "eval_accuracy" in run.evaluate()
    columns, projections = runs.prepared()
    formatted = columns.with_format("torch", columns=["teacher_logits", "label"])
    prepared = add(formatted, args, None, projections).dataset
    assert prepared[:]["teacher_projections"] == columns[:]["teacher_projections"]


# ---- student_columns ----


def student_rows(dataset: Any, **settings: Any) -> Any:
    arguments = {"input_columns": None, "label_column": "label", "max_length": None, "classes": CLASSES}
    return student_columns(dataset, settings.pop("processing_class", tiny.tokenizer()), **{**arguments, **settings})


def test_tokens_labels_and_the_teacher_s_columns_stay() -> None:
    columns, _ = runs.prepared()
    ready = student_rows(columns.add_column("id", list(range(runs.ROWS))))
    tokens = tiny.tokenizer()(list(columns["text"]))
    assert {*ready.column_names} == {
        *tokens,
        *("labels", "teacher_logits", "teacher_embedding", "teacher_projections"),
    }
    assert ready[:]["input_ids"] == tokens["input_ids"] and ready[:]["labels"] == list(columns["label"])
    short = student_rows(columns, max_length=4)
    assert max(map(len, short["input_ids"])) == 4
    again = student_rows(ready)
    assert again[:] == ready[:]


def test_labels_are_encoded() -> None:
    raw = runs.data(6).select_columns(["text"])
    words = raw.add_column("label", ["positive", None, "negative", "positive", None, "negative"])
    assert student_rows(words)[:]["labels"] == [1, -100, 0, 1, -100, 0]
    missing = raw.add_column("label", [1, -1, -100, 0, None, 1])
    assert student_rows(missing)[:]["labels"] == [1, -100, -100, 0, -100, 1]
    as_class = Dataset.from_dict({"text": ["good", "bad"], "label": [-1, 1]}).cast_column(
        "label", ClassLabel(names=tiny.LABEL_NAMES)
    )
    assert student_rows(as_class)[:]["labels"] == [-100, 1]
    assert [row["labels"] for row in student_rows(as_class.to_iterable_dataset())] == [-100, 1]
    renamed = as_class.rename_column("label", "labels")
    assert student_rows(renamed, label_column="labels")[:]["labels"] == [-100, 1]
    tokens = as_class.map(lambda row: tiny.tokenizer()(row["text"]))
    assert student_rows(tokens)[:]["labels"] == [-100, 1]
    assert "labels" not in student_rows(raw).column_names
    prepared = raw.add_column("labels", [0, 1, 0, 1, 0, -100])
    assert student_rows(prepared, label_column="labels")[:]["labels"] == [0, 1, 0, 1, 0, -100]


def test_tokenized_data_keeps_its_columns() -> None:
    raw = runs.data(8)
    ready = raw.map(lambda row: tiny.tokenizer()(row["text"], truncation=True, max_length=3))
    encoded = student_rows(ready)
    assert {*encoded.column_names} == {"text", "labels", "input_ids", "token_type_ids", "attention_mask"}
    assert encoded[:]["input_ids"] == ready[:]["input_ids"] and encoded[:]["labels"] == list(raw["label"])
    finished = encoded.with_format("torch")
    assert student_rows(finished) is finished
    without = student_rows(raw, processing_class=None)
    assert without.column_names == ["text", "labels"]


def test_prepared_labels_become_indices() -> None:
    classes = Classes(2, ["a", "b"], None)
    tokens = {"input_ids": [[2, 3]] * 4}
    for values in ([0.0, 1.0, float("nan"), None], [0, 1, -1, None], ["a", "b", None, None], [False, True, None, None]):
        data = Dataset.from_dict({**tokens, "labels": values})
        for _ in range(2):  # what is ready stays as it is
            data = student_columns(
                data,
                tiny.tokenizer(),
                input_columns=None,
                label_column="labels",
                max_length=None,
                classes=classes,
            )
            assert data["labels"][:] == [0, 1, -100, -100]
    swapped = Dataset.from_dict({**tokens, "labels": [0, 1, -1, -1]}).cast_column(
        "labels", ClassLabel(names=["b", "a"])
    )
    for _ in range(2):
        swapped = student_columns(
            swapped, tiny.tokenizer(), input_columns=None, label_column="labels", max_length=None, classes=classes
        )
        assert swapped["labels"][:] == [1, 0, -100, -100]


def test_streams() -> None:
    raw = runs.data(8)
    expected = student_rows(raw)[:]
    for dataset in (raw.to_iterable_dataset(), stream(raw)):
        rows = list(student_rows(dataset))
        assert {name: [row[name] for row in rows] for name in rows[0]} == expected


# ---- Which column is which ----


def test_beside() -> None:
    left = Dataset.from_dict({"a": [1, 2, 3], "b": [4, 5, 6]}).select([2, 0])
    right = Dataset.from_dict({"b": [7, 8], "c": [9, 10]})
    assert with_columns(left, right)[:] == {"a": [3, 1], "b": [7, 8], "c": [9, 10]}


def test_labels_named_in_another_order_than_the_classes_of_the_run_are_mapped() -> None:
    classes = Classes(2, ["negative", "positive"], None)
    columns = {"input_columns": ["text"], "label_column": "label", "max_length": None, "classes": classes}
    names = ["positive", "negative"]
    dataset = Dataset.from_dict({"text": ["good", "bad", "fine"], "label": [0, 1, -1]})
    dataset = dataset.cast_column("label", ClassLabel(names=names))
    assert student_columns(dataset, tiny.tokenizer(), **columns)["labels"][:] == [1, 0, -100]
    other = dataset.cast_column("label", ClassLabel(names=["spam", "ham"]))
    with pytest.raises(ValueError, match=r"classes .spam, ham. are not those of the run .negative, positive."):
        student_columns(other, tiny.tokenizer(), **columns)
