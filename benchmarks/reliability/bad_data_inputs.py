"""Datasets of hard and missing texts, embeddings that span little or too much, and images that are none."""

import io
import math
from functools import cache
from typing import Any

import numpy as np
import tiny
import tiny_media
from datasets import Dataset, Features, Image, List, Value
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from benchmarks.reliability.bad_data_case import ONE_ROW, ROWS, SIZE, SURE, Case, classes, teacher
from hf_lelp import Teacher

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


@cache
def image_teacher() -> Teacher:
    return Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["image"])


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
