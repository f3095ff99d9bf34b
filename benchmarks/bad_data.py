"""Bad data through the whole of LELPTrainer: a correct run, or an error of the library's own before any training step.

    python -m benchmarks.bad_data                  # all; writes benchmarks/results/bad_data.json
    python -m benchmarks.bad_data --only images --examples 5

Hypothesis draws datasets of many kinds (labels, columns, texts, embeddings, images), and with each what must come of
it. A run is *correct* if no row is lost, the student learns on the labels that were meant, the teacher's columns are
finite, and so are loss and predictions after a step. It is *refused* if constructing the trainer ends in one of the
library's own `raise` statements, with the words that the case asks for. Anything else ends the campaign, and hypothesis
says the smallest dataset for it.
"""

import argparse
import io
import json
import logging
import math
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import transformers
from datasets import ClassLabel, Dataset, Features, Image, List, Value, disable_progress_bars
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for their tiny models
import runs
import tiny
import tiny_media

import hf_lelp
from benchmarks.coverage import quiet
from hf_lelp import ClassProjections, LELPTrainer, Teacher
from hf_lelp.files import write_atomically
from hf_lelp.labels import NO_LABEL

RESULTS = Path(__file__).parent / "results" / "bad_data.json"
ROWS = 32
SIZE = 16  # of the teacher's embedding
SURE = 8  # first rows that no strategy touches: four of each class
CORRECT, REFUSED = "correct", "refused"


@dataclass(frozen=True)
class Case:
    """A dataset and what must come of it.

    Attributes:
        name: of the kind of data, for the counts.
        dataset: to train on.
        labels: encoded, that a correct run learns on (−100 is none); `None` where the run must be refused.
        words: that the message of a refusal has.
        either: a refusal with these words would be right too.
        options: of `LELPConfig`.
        arguments: of `LELPTrainer`.
    """

    name: str
    dataset: Dataset
    labels: list[int] | None = None
    words: str = ""
    either: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)


def outcome(case: Case) -> str:
    """Run the case; "correct" or "refused".

    Raises:
        AssertionError: if it is neither, or not what the case says.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {"max_steps": 1, "check_teacher": False, "logging_strategy": "no"} | case.options
        defaults: dict[str, Any] = {"teacher_model": teacher(), "teacher_processing_class": None}
        arguments = defaults | {"train_dataset": case.dataset} | case.arguments
        try:
            run = runs.trainer(runs.config(Path(folder), **options), **arguments)
        except Exception as error:
            assert is_our_own(error), f"{case.name}: {type(error).__name__}: {error}"
            assert case.labels is None or case.either, f"{case.name}: refused good data: {error}"
            assert case.words in str(error), f"{case.name}: {case.words!r} is missing in: {error}"
            return REFUSED
        assert case.labels is not None, f"{case.name}: bad data was taken"
        check(run, case)
        return CORRECT


def is_our_own(error: BaseException) -> bool:
    """Whether it is a ValueError or FileNotFoundError of a `raise` in hf_lelp, and says something."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    # Not where it passed through: numpy and open() have no frame of their own.
    raised = Path(where.filename).parent == Path(hf_lelp.__file__).parent and str(where.line).startswith("raise ")
    return isinstance(error, ValueError | FileNotFoundError) and raised and bool(str(error))


def check(run: LELPTrainer, case: Case) -> None:
    data, labels = run.train_dataset, case.labels
    assert len(data) == len(case.dataset), "rows were lost"
    if labels is not None and any(label != -100 for label in labels):
        found = list(data.with_format(None)["labels"])  # a row's inputs, made when it is read, need its other columns
        assert found == labels, f"{case.name}: other labels: {found}"
    columns = data.with_format("numpy")
    for name in ("teacher_logits", "teacher_projections"):
        if name in data.column_names:
            assert np.isfinite(columns[:][name]).all(), f"{case.name}: {name} is not finite"
    result = run.train()
    assert result.global_step == 1 and math.isfinite(result.training_loss), f"{case.name}: {result.training_loss}"
    predictions = run.predict(case.dataset).predictions
    assert predictions.shape == (len(case.dataset), 2) and np.isfinite(predictions).all(), case.name


@cache
def teacher() -> Teacher:
    return runs.teacher()


@cache
def image_teacher() -> Teacher:
    return Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["image"])


# ---- Labels ----

MISSING = {"integer": [None, -1, -100], "float": [None, -1.0, -100.0, math.nan], "boolean": [None], "text": [None]}


@st.composite
def classes(draw: DrawFn) -> list[int]:
    """A class per row, both often enough for two subclasses."""
    rest = draw(st.lists(st.integers(0, 1), min_size=ROWS - SURE, max_size=ROWS - SURE))
    return [row % 2 for row in range(SURE)] + rest


@st.composite
def good_labels(draw: DrawFn, kind: str) -> Case:
    """Every type of label that says a class, some of them missing."""
    truth = draw(classes())
    type_, names = None, {0: 0, 1: 1}
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
        words = "with 1 classes they must be 0 to 0" if label else "classes (negative, positive) and the data 1"
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

ONE_ROW = st.integers(0, ROWS - 1)
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
        wrong, words = draw(
            st.sampled_from(
                [
                    *((value, no_lists) for value in (1.0, [1.0, 2.0], "a", None, [["a", "b"]] * 2)),
                    ([[0.0, math.nan]] * 2, "The teacher projections of row 0 is not finite"),
                    ([[0.0]] * 3, "teacher_projections has shape (3, 1) per row and the data 2 classes"),
                ]
            )
        )
        data = data.add_column("teacher_logits", logits).add_column("teacher_projections", [wrong] * ROWS)
        options = {"num_subclasses": 2, "random_rotation": False, "scale_projections": False}
        return Case("teacher_projections of another type or width", data, words=words, options=options)
    if name == "mark":
        column = draw(st.sampled_from(["teacher_fingerprint", "projections_fingerprint"]))
        mark = draw(st.sampled_from(["another", "", 7, 1.5, None, ["a"]]))
        prepared = data.add_column(column, [mark] * ROWS)
        if column.startswith("projections"):
            columns = data.map(teacher(), batched=True)
            fitted = ClassProjections.fit(columns, teacher().head, 2)
            prepared = columns.map(fitted, batched=True).remove_columns(column).add_column(column, [mark] * ROWS)
            return Case("a mark that says nothing", prepared, words="fingerprint", arguments={"projections": fitted})
        return Case("a mark that says nothing", prepared, words="fingerprint")
    if name == "tokens":
        column, good = draw(
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
        return Case("a column input_ids", data.add_column("input_ids", column), truth if good else None, "input_ids")
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


# ---- Texts ----

HARD_TEXTS = [
    *(
        "",
        " ",
        "\x00",
        "\ufeff",
        "\u202eevil\u202c",
        "e\u0301" * 99,
        "👩‍👩‍👧‍👦" * 50,
        "\U000e0001",
        "\ufffe",
        "\x1b[31m",
    ),
    *(
        "good " * 20_000,
        "x" * 100_000,
        "ﷺ" * 999,
        "שלום עולם",
        "\u0300" * 500,
        "\r\n\u2028\u2029",
        "<script>",
        "\U0001d573\U0001d58a",
    ),
]


@st.composite
def good_texts(draw: DrawFn) -> Case:
    """Texts of every kind of character and length."""
    truth = draw(classes())
    texts = tiny.texts(ROWS)
    some = st.text(st.characters(codec="utf-8"), max_size=50) | st.sampled_from(HARD_TEXTS)
    for row in draw(st.sets(st.integers(SURE, ROWS - 1), max_size=8)):
        texts[row] = draw(some)
    return Case("texts: Unicode, empty, long", Dataset.from_dict({"text": texts, "label": truth}), truth)


@st.composite
def bad_texts(draw: DrawFn, kind: str) -> Case:
    """A text that is missing, or a column that holds no texts."""
    truth = draw(classes())
    row = draw(ONE_ROW)
    texts: list[Any] = tiny.texts(ROWS)
    if kind == "one missing":
        texts[row] = None
    else:
        texts = [{"all missing": None, "number": 7, "list": ["a"], "bytes": b"a"}[kind]] * ROWS
        row = 0
    data = Dataset.from_dict({"text": texts, "label": truth})
    options = draw(st.sampled_from([{}, {"alpha": 1.0}]))
    return Case(f"texts: {kind}", data, words=f"Row {row} of", options=options)


# ---- Embeddings ----


@st.composite
def embeddings(draw: DrawFn, kind: str) -> Case:
    """Columns of a teacher whose embeddings span little, vary little or much, or are not finite in a row."""
    truth = np.array(draw(classes()))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    head = teacher().head
    rows = generator.standard_normal((ROWS, SIZE))
    words, either, correct = "span", False, True
    if kind == "few directions":
        rank = draw(st.integers(0, 6))
        rows = rows[:, :rank] @ generator.standard_normal((rank, SIZE))
        # Two of them at most are read by the final layer and left out.
        either, correct = 2 <= rank < 4, rank >= 2
    elif kind == "no variance":
        rows[truth == 1] = rows[0]
        correct = False
    elif kind == "few examples":
        count = draw(st.integers(1, 5))
        truth = np.where(np.arange(ROWS) < count, 1, 0)
        correct = count > 2
    elif kind == "scale":
        power = draw(st.integers(-44, 38))
        rows = rows * 10.0**power
        correct, either = abs(power) < 20, abs(power) == 19  # float32 holds no more of the squares
        words = "The variance of class"
    elif kind == "mean":
        power = draw(st.integers(0, 9))
        rows = rows + 10.0**power
        either = power >= 6  # from there on float32 rounds them to steps as wide as they spread
    else:
        row = draw(ONE_ROW)
        rows[row, draw(st.integers(0, SIZE - 1))] = draw(st.sampled_from([math.nan, math.inf, -math.inf]))
        correct, words = False, f"The teacher embedding of row {row} is not finite"
    with np.errstate(over="ignore"):
        stored = rows.astype(np.float32)
    if kind == "scale" and not np.isfinite(stored).all():
        words = f"The teacher embedding of row {np.isfinite(stored).all(-1).argmin()} is not finite"
    logits = np.where(np.isfinite(stored).all(-1, keepdims=True), 0, 0) + np.eye(2, dtype=np.float32)[truth]
    wide = Features(
        {
            "text": Value("string"),
            "label": Value("int64"),
            "teacher_logits": List(Value("float32"), length=2),
            "teacher_embedding": List(Value("float32"), length=len(head.weight[0])),
        }
    )
    data = Dataset.from_dict(
        {"text": tiny.texts(ROWS), "label": truth, "teacher_logits": logits, "teacher_embedding": stored}, features=wide
    )
    labels = truth.tolist() if correct else None
    return Case(f"embeddings: {kind}", data, labels, words, either)


@st.composite
def imbalance(draw: DrawFn) -> Case:
    """Ten thousand examples of a class for one to four of the other."""
    rare = draw(st.integers(1, 4))
    truth = [0] * 10_000 + [1] * rare
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    embedding = generator.standard_normal((len(truth), SIZE)).astype(np.float32)
    logits = generator.standard_normal((len(truth), 2)).astype(np.float32)
    columns = {"teacher_logits": logits, "teacher_embedding": embedding}
    data = Dataset.from_dict({"text": ["good"] * len(truth), "label": truth} | columns)
    correct = rare > 2
    words = f"Class 1 has {rare} examples whose embeddings span {rare - 1} directions"
    options = {"alpha": draw(st.sampled_from([0.0, 0.5]))}
    return Case("embeddings: 10,000 to 1", data, truth if correct else None, words, options=options)


# ---- Images ----


def file_of(picture: Any, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


@st.composite
def images(draw: DrawFn, kind: str) -> Case:
    """One image file that is cut short, changed, empty, missing, no image, or of more than 8 bits a channel."""
    truth = draw(classes())
    pictures: list[dict[str, Any] | None] = [
        {"bytes": file_of(picture), "path": None} for picture in tiny_media.pictures(ROWS)
    ]
    row = draw(ONE_ROW)
    whole = file_of(tiny_media.pictures(ROWS)[row], draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP"])))
    bad: dict[str, Any] | None = {"bytes": b"", "path": None}
    if kind == "cut":
        bad = {"bytes": whole[: draw(st.integers(1, len(whole) - 1))], "path": None}
    elif kind == "changed":
        place = draw(st.integers(0, len(whole) - 1))
        bad = {"bytes": whole[:place] + bytes([draw(st.integers(0, 255))]) + whole[place + 1 :], "path": None}
    elif kind == "text":
        bad = {"bytes": draw(st.binary(min_size=1)), "path": None}
    elif kind == "missing":
        bad = None
    elif kind == "no file":
        bad = {"bytes": None, "path": "nowhere.png"}
    elif kind == "deep":
        bad = {"bytes": file_of(tiny_media.pictures(1, modes=("L",))[0].convert("I;16")), "path": None}
    pictures[row] = bad
    data = Dataset.from_dict(
        {"image": pictures, "label": truth}, features=Features({"image": Image(), "label": Value("int64")})
    )
    either = kind in ("cut", "changed")
    arguments = {
        "model": tiny_media.vit(),
        "processing_class": tiny_media.image_processor(16),
        "teacher_model": image_teacher(),
    }
    words = "nowhere.png" if kind == "no file" else f"Row {row} of"
    return Case(f"images: {kind}", data, truth if either else None, words, either, arguments=arguments)


def of_each(strategy: Callable[[str], st.SearchStrategy[Case]], names: Iterable[str]) -> dict[str, Any]:
    return {name: strategy(name) for name in names}


KINDS: dict[str, dict[str, st.SearchStrategy[Case]]] = {
    "labels": of_each(good_labels, ["integer", "float", "boolean", "text", "ClassLabel"])
    | of_each(bad_labels, [*(name for name in BAD_LABELS if name != "text"), "one class", "one class of two names"])
    | {"unknown text": bad_labels("text")},
    "columns": of_each(
        our_columns,
        [*BAD_LOGITS, "whole numbers", "embedding", "projections", "mark", "tokens", "labels"],
    )
    | {"others": odd_columns()},
    "texts": {"any": good_texts()} | of_each(bad_texts, ["one missing", "all missing", "number", "list", "bytes"]),
    "embeddings": of_each(embeddings, ["few directions", "no variance", "few examples", "scale", "mean", "not finite"])
    | {"imbalance": imbalance()},
    "images": of_each(images, ["cut", "changed", "empty", "text", "missing", "no file", "deep"]),
}


def campaign(strategy: st.SearchStrategy[Case], examples: int) -> Counter[tuple[str, str]]:
    """Run so many cases; how many came to what, by name and outcome."""
    counts: Counter[tuple[str, str]] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def run(case: Case) -> None:
        counts[case.name, outcome(case)] += 1

    run()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=25, help="datasets of each kind, at most")
    parser.add_argument("--only", choices=KINDS, help="this group alone; writes nothing")
    arguments = parser.parse_args()
    silence()
    results: dict[str, dict[str, dict[str, int]]] = {}
    for group in [arguments.only] if arguments.only else KINDS:
        for kind, strategy in KINDS[group].items():
            start = time.monotonic()
            counts = campaign(strategy, arguments.examples)
            for (name, result), count in sorted(counts.items()):
                results.setdefault(group, {}).setdefault(name, {})[result] = count
            print(f"{group}, {kind}: {sum(counts.values())} datasets, {time.monotonic() - start:.0f} s", flush=True)
    total = {
        result: sum(n.get(result, 0) for k in results.values() for n in k.values()) for result in (CORRECT, REFUSED)
    }
    print(json.dumps(total))
    if not arguments.only:
        content = json.dumps({"total": total, "datasets": results}, indent=1) + "\n"
        write_atomically(RESULTS, lambda path: path.write_text(content))


def silence() -> None:
    os.environ["TQDM_DISABLE"] = "1"
    quiet()
    disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    logging.disable(logging.WARNING)


if __name__ == "__main__":
    main()
