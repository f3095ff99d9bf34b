"""Inputs and labels of the student."""

from typing import Any

import pytest
import runs
import tiny
from datasets import ClassLabel, Dataset
from streams import stream

from hf_lelp.data.columns import RunColumns
from hf_lelp.data.labels import Classes
from hf_lelp.training.student_inputs import student_columns

CLASSES = Classes(2, tiny.LABEL_NAMES, [0, 1])


def student_rows(dataset: Any, **settings: Any) -> Any:
    columns = RunColumns(None, settings.pop("label_column", "label"), settings.pop("input_columns", None))
    arguments = {"columns": columns, "max_length": None, "classes": CLASSES}
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
                columns=RunColumns(None, "labels"),
                max_length=None,
                classes=classes,
            )
            assert data["labels"][:] == [0, 1, -100, -100]
    swapped = Dataset.from_dict({**tokens, "labels": [0, 1, -1, -1]}).cast_column(
        "labels", ClassLabel(names=["b", "a"])
    )
    for _ in range(2):
        swapped = student_columns(
            swapped, tiny.tokenizer(), columns=RunColumns(None, "labels"), max_length=None, classes=classes
        )
        assert swapped["labels"][:] == [1, 0, -100, -100]


def test_streams() -> None:
    raw = runs.data(8)
    expected = student_rows(raw)[:]
    for dataset in (raw.to_iterable_dataset(), stream(raw)):
        rows = list(student_rows(dataset))
        assert {name: [row[name] for row in rows] for name in rows[0]} == expected


def test_labels_named_in_another_order_than_the_classes_of_the_run_are_mapped() -> None:
    classes = Classes(2, ["negative", "positive"], None)
    columns = {"columns": RunColumns(["text"], "label"), "max_length": None, "classes": classes}
    names = ["positive", "negative"]
    dataset = Dataset.from_dict({"text": ["good", "bad", "fine"], "label": [0, 1, -1]})
    dataset = dataset.cast_column("label", ClassLabel(names=names))
    assert student_columns(dataset, tiny.tokenizer(), **columns)["labels"][:] == [1, 0, -100]
    other = dataset.cast_column("label", ClassLabel(names=["spam", "ham"]))
    with pytest.raises(ValueError, match=r"classes .spam, ham. are not those of the run .negative, positive."):
        student_columns(other, tiny.tokenizer(), **columns)


def test_columns_that_the_format_hides_are_not_read() -> None:
    rows = {"input_ids": [[2, 4, 3]] * 2, "attention_mask": [[1, 1, 1]] * 2, "token_type_ids": [[1, 1, 1]] * 2}
    tokens = Dataset.from_dict({**rows, "label": [0, 1], "teacher_logits": [[0.0, 1.0]] * 2})
    shown = ["input_ids", "attention_mask", "label"]
    ready = student_rows(tokens.with_format("torch", columns=shown))
    assert sorted(ready.column_names) == ["attention_mask", "input_ids", "labels", "teacher_logits"]
    ready = student_rows(tokens.with_format("torch", columns=shown, output_all_columns=True))
    assert "token_type_ids" in ready.column_names
