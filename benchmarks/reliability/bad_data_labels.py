"""Datasets whose labels say a class, or do not; those with the library's columns in them, right or wrong; others."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
import tiny
from datasets import ClassLabel, Dataset
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from benchmarks.reliability.bad_data_case import ONE_ROW, ROWS, SIZE, SURE, Case, classes, teacher
from hf_lelp import ClassProjections
from hf_lelp.data.labels import NO_LABEL

# ---- Labels ----

MISSING: dict[str, list[Any]] = {
    "integer": [None, -1, -100],
    "float": [None, -1.0, -100.0, math.nan],
    "boolean": [None],
    "text": [None],
}


@st.composite
def good_labels(draw: DrawFn, kind: str) -> Case:
    """Every type of label that says a class, some of them missing."""
    truth = draw(classes())
    type_: pa.DataType | None = None
    names: dict[int, Any] = {0: 0, 1: 1}
    if kind == "integer":
        type_ = draw(st.sampled_from([pa.int8(), pa.int16(), pa.int32(), pa.int64()]))
    elif kind == "float":
        type_ = draw(st.sampled_from([pa.float32(), pa.float64()]))
    elif kind == "boolean":
        names = {0: False, 1: True}
    elif kind == "text":
        names = draw(
            st.sampled_from([{0: "negative", 1: "positive"}, {0: "NEG", 1: "POS"}, {0: "Negative", 1: " positive"}])
        )
    values: list[Any] = [names[label] for label in truth]
    for row in draw(st.sets(st.integers(SURE, ROWS - 1))):
        values[row] = draw(st.sampled_from(MISSING.get(kind, [None, -1])))
        truth[row] = -100
    if kind == "text" and sorted(names.values()) != list(names.values()):
        truth = [label if label < 0 else 1 - label for label in truth]  # text has the order of the alphabet
    label: Any = values if kind == "ClassLabel" else pa.array(values, type_)
    data = Dataset.from_dict({"text": tiny.texts(ROWS)}).add_column("label", label)
    if kind == "ClassLabel":
        data = data.cast_column("label", ClassLabel(names=tiny.LABEL_NAMES))
    options = {"alpha": draw(st.sampled_from([0.0, 0.5])), "num_subclasses": draw(st.sampled_from([1, 2]))}
    return Case(f"labels: {kind}", data, truth, options=options)


BAD_LABELS: dict[str, st.SearchStrategy[Any]] = {
    "out of range": st.integers(2, 2**63 - 1) | st.integers(-(2**63), -2).filter(lambda value: value != -100),
    "fraction": st.floats(-2, 2).filter(lambda value: value != int(value)),
    "large float": st.floats(2, 1e300),
    "infinite": st.sampled_from([math.inf, -math.inf]),
    "text": st.text(st.characters(codec="utf-8")),
    "list": st.lists(st.integers(0, 1)),
    "dictionary": st.fixed_dictionaries({"class": st.integers(0, 1)}),
    "bytes": st.binary(),
    "time": st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    "decimal": st.decimals(-9, 9, places=2).filter(lambda value: value != int(value)),
}


def words_on(bad: Any) -> str:
    """What is said of a label that is none, among 0 and 1 or two texts."""
    if isinstance(bad, str) or bad == 2:  # it looks like a third class
        return "The teacher has 2 classes (negative, positive) and the data 3"
    if isinstance(bad, int) or (isinstance(bad, float) and bad.is_integer()):
        return f"with 3 classes they must be 0 to 2 ({NO_LABEL} for no label)"
    return "class labels are integers or text. Soft labels"


@st.composite
def bad_labels(draw: DrawFn, name: str) -> Case:
    """One value that says no class, among good ones of its type; or one class alone."""
    truth = draw(classes())
    row = draw(st.integers(0, ROWS - 1))
    data = Dataset.from_dict({"text": tiny.texts(ROWS)})
    if name.startswith("one class"):
        label = draw(st.integers(0, 1))
        data = data.add_column("label", [label] * ROWS)
        words = f"All labels in 'label' are {label}, and a classifier needs two classes or more"
        if name != "one class":
            data = data.cast_column("label", ClassLabel(names=tiny.LABEL_NAMES))
            words = f"No example of class {1 - label}"
        return Case(f"labels: {name}", data, words=words)
    bad = draw(BAD_LABELS[name])
    if name in ("list", "dictionary", "bytes", "time"):
        values: list[Any] = [bad] * ROWS
    elif name == "text":
        values = [tiny.LABEL_NAMES[label] for label in truth]
        if bad in values:
            bad += "?"
        values[row] = bad
    else:
        values = [type(bad)(label) for label in truth]
        values[row] = bad
    return Case(f"labels: {name}", data.add_column("label", pa.array(values)), words=words_on(bad))


# ---- Columns ----

NO_LISTS = "and lists of numbers are expected under that name"
# The column, and what is said of it; `{row}` is the one that is changed.
BAD_LOGITS: dict[str, tuple[Callable[[DrawFn, list[Any], int], Any], str]] = {
    "numbers, not lists": (lambda draw, rows, row: [row[0] for row in rows], NO_LISTS),
    "text": (lambda draw, rows, row: ["0 1" for _ in rows], NO_LISTS),
    "lists of text": (lambda draw, rows, row: [["0", "1"] for _ in rows], NO_LISTS),
    "three wide": (
        lambda draw, rows, row: [[*row, 0.0] for row in rows],
        "teacher_logits has 3 classes and the data 2",
    ),
    "one wide": (lambda draw, rows, row: [row[:1] for row in rows], "teacher_logits has 1 classes and the data 2"),
    "empty": (lambda draw, rows, row: [[] for _ in rows], NO_LISTS),
    "matrices": (lambda draw, rows, row: [[row, row] for row in rows], NO_LISTS),
    "one too wide": (
        lambda draw, rows, row: changed(rows, row, [0.0, 1.0, 2.0]),
        "of the column teacher_logits has shape",
    ),
    "one missing": (
        lambda draw, rows, row: changed(rows, row, None),
        "Row {row} of the column teacher_logits is missing",
    ),
    "all missing": (lambda draw, rows, row: [None] * len(rows), NO_LISTS),
    "one entry missing": (
        lambda draw, rows, row: changed(rows, row, [0.0, None]),
        "The teacher logits of row {row} is not finite",
    ),
    "one not finite": (
        lambda draw, rows, row: changed(rows, row, [0.0, draw(st.sampled_from([math.nan, math.inf, -math.inf]))]),
        "The teacher logits of row {row} is not finite",
    ),
}


def changed(rows: list[Any], row: int, value: Any) -> list[Any]:
    return [*rows[:row], value, *rows[row + 1 :]]


@st.composite
def our_columns(draw: DrawFn, name: str) -> Case:
    """A dataset whose columns have the names of ours."""
    truth = draw(classes())
    data = Dataset.from_dict({"text": tiny.texts(ROWS), "label": truth})
    logits = [[float(label), float(1 - label)] for label in truth]
    options: dict[str, Any] = {"num_subclasses": 1}
    if name in BAD_LOGITS:
        make, words = BAD_LOGITS[name]
        row = draw(ONE_ROW)
        data = data.add_column("teacher_logits", make(draw, logits, row))
        return Case(f"teacher_logits: {name}", data, words=words.format(row=row), options=options)
    if name == "whole numbers":
        column = [[int(value) for value in row] for row in logits]
        return Case(f"teacher_logits: {name}", data.add_column("teacher_logits", column), truth, options=options)
    if name == "embedding":
        wrong, words = draw(
            st.sampled_from(
                [
                    (["a"] * SIZE, NO_LISTS),
                    ([0.0] * 3, "teacher_embedding has shape (3,) per row"),
                    (1.0, NO_LISTS),
                    (None, NO_LISTS),
                    ([math.nan] * SIZE, "The teacher embedding of row 0 is not finite"),
                    ([[0.0]], NO_LISTS),
                ]
            )
        )
        data = data.map(teacher(), batched=True).remove_columns("teacher_embedding")
        data = data.add_column("teacher_embedding", [wrong] * ROWS)
        return Case("teacher_embedding of another type or width", data, words=words)
    if name == "projections":
        no_lists = NO_LISTS.replace("lists", "lists of lists")
        value, words = draw(
            st.sampled_from(
                [
                    *((other, no_lists) for other in (1.0, [1.0, 2.0], "a", None, [["a", "b"]] * 2)),
                    ([[0.0, math.nan]] * 2, "The teacher projections of row 0 is not finite"),
                    ([[0.0]] * 3, "teacher_projections has shape (3, 1) per row and the data 2 classes"),
                ]
            )
        )
        data = data.add_column("teacher_logits", logits).add_column("teacher_projections", [value] * ROWS)
        options = {"num_subclasses": 2, "random_rotation": False, "scale_projections": False}
        return Case("teacher_projections of another type or width", data, words=words, options=options)
    if name == "mark":
        named = draw(st.sampled_from(["teacher_fingerprint", "projections_fingerprint"]))
        mark: Any = draw(st.sampled_from(["another", "", 7, 1.5, None, ["a"]]))
        prepared = data.add_column(named, [mark] * ROWS)
        if named.startswith("projections"):
            columns = data.map(teacher(), batched=True)
            fitted = ClassProjections.fit(columns, teacher().head, 2)
            prepared = columns.map(fitted, batched=True).remove_columns(named).add_column(named, [mark] * ROWS)
            return Case("a mark that says nothing", prepared, words="fingerprint", arguments={"projections": fitted})
        return Case("a mark that says nothing", prepared, words="fingerprint")
    if name == "tokens":
        tokens, good = draw(
            st.sampled_from(
                [
                    ([[2, 5, 6, 3]] * ROWS, True),
                    (["junk"] * ROWS, False),
                    ([1] * ROWS, False),
                    ([[0.5, 1.5]] * ROWS, False),
                    ([None] * ROWS, False),
                    ([[2, 5, 3]] * (ROWS - 1) + [[2, 10**6, 3]], False),
                    ([[2, 5, 3]] * (ROWS - 1) + [[2, -1, 3]], False),
                ]
            )
        )
        return Case("a column input_ids", data.add_column("input_ids", tokens), truth if good else None, "input_ids")
    same = draw(st.booleans())
    other = truth if same else changed(truth, draw(ONE_ROW), draw(st.sampled_from([-100])))
    return Case("label and labels", data.add_column("labels", other), truth if same else None, "and they differ")


@st.composite
def odd_columns(draw: DrawFn) -> Case:
    """Columns beside ours, with any names and values: nothing comes of them."""
    truth = draw(classes())
    data = Dataset.from_dict({"text": tiny.texts(ROWS), "label": truth})
    taken = {"text", "label", "labels", "input_ids", "teacher_logits", "teacher_embedding", "teacher_projections"}
    taken |= {"teacher_fingerprint", "projections_fingerprint"}
    names = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
        [
            "Text",
            "text ",
            "attention_mask",
            "token_type_ids",
            "label_ids",
            "inputs_embeds",
            "idx",
            "return_loss",
            "LABEL",
        ]
    )
    values = st.sampled_from([1, 0.5, "a", None, [1, 2], [[1.0]], {"a": 1}, True, b"\x00", math.nan])
    for name in draw(st.sets(names.filter(lambda name: name not in taken), min_size=1, max_size=4)):
        data = data.add_column(name, [draw(values)] * ROWS)
    return Case("other columns", data, truth)
