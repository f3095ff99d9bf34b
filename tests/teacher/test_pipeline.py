"""A pass whose batches are made ahead, by tokens, and in halves where memory does not suffice. No device is needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from datasets import Dataset, Image, concatenate_datasets

from hf_lelp import Teacher
from hf_lelp.teacher.columns import teacher_columns
from hf_lelp.teacher.pipeline import ahead, in_parts

TEXTS = list(dict.fromkeys(tiny.texts(120, shortest=2, longest=30)))[:100]  # no two alike
RAW = Dataset.from_dict({"text": TEXTS})
NAMES = ("teacher_logits", "teacher_embedding")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_lelp.teacher.columns.SHARD_ROWS", 20)


def teacher(*, pipelined: bool = True, **settings: Any) -> Teacher:
    guide = runs.teacher(**settings)
    guide.pipelined, guide._checked = pipelined, True  # else the first pass is made twice
    return guide


def limit(guide: Teacher, rows: int) -> None:
    """Let the model's memory suffice for so many rows."""

    def check(_: Any, args: Any, inputs: dict[str, torch.Tensor]) -> None:
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    guide.model.register_forward_pre_hook(check, with_kwargs=True)


def assert_equal(one: Any, other: Any) -> None:
    for name in NAMES:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)


def test_ahead_gives_the_same_items_and_the_error_in_its_place() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number
        raise ValueError("the sixth")

    found = []
    with pytest.raises(ValueError, match="the sixth"):
        for item in ahead(items()):
            found.append(item)
    assert found == made == [0, 1, 2, 3, 4]
    made.clear()
    taken = ahead(items())
    next(taken)
    taken.close()  # as an interrupted pass does
    assert len(made) <= 4


def test_batches_by_tokens_hold_more_of_shorter_rows() -> None:
    lengths = np.array([8, 8, 7, 4, 4, 2, 2, 2, 1, 1])
    assert [len(lengths[part]) for part in in_parts(lengths, lambda: 2, by_tokens=True)] == [2, 2, 4, 2]
    assert [len(lengths[part]) for part in in_parts(lengths, lambda: 4, by_tokens=False)] == [4, 4, 2]


def test_the_columns_are_those_of_the_plain_path(tmp_path: Path) -> None:
    guide = teacher(batch_size=4)
    with runs.rows_seen(guide.model) as seen:
        columns = teacher_columns(RAW, guide, tmp_path / "pipeline")
    assert sum(seen) == len(RAW) and max(seen) > 4
    assert_equal(columns[:], teacher_columns(RAW, teacher(pipelined=False), tmp_path / "plain")[:])
    assert_equal(guide({"text": TEXTS}), columns[:])


def test_a_row_is_run_once_here_too(tmp_path: Path) -> None:
    twice = concatenate_datasets([RAW.select(range(30)), RAW.select(range(10, 60)), RAW.select([0, 0, 0])])
    guide = teacher(batch_size=4)
    teacher_columns(RAW.select(range(20, 40)), guide, tmp_path)  # a whole shard is found within
    with runs.rows_seen(guide.model) as seen:
        columns = teacher_columns(twice, guide, tmp_path)
    assert sum(seen) == 40
    assert_equal(columns[:], guide({"text": list(twice["text"])}))


def test_images_and_a_teacher_that_sees_padding(tmp_path: Path) -> None:
    seeing = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"], batch_size=3)
    pictures = Dataset.from_dict({"img": tiny_media.pictures(10)}).cast_column("img", Image())
    plain = seeing(pictures[:])
    seeing.pipelined = True
    assert_equal(teacher_columns(pictures, seeing, tmp_path)[:], plain)
    guide = teacher(batch_size=4)
    guide._unpadded = True  # found in the first batch, while others wait
    assert_equal(guide({"text": TEXTS[:20]}), teacher(pipelined=False)({"text": TEXTS[:20]}))


def test_a_text_that_cannot_be_read_is_named_by_its_own_shard(tmp_path: Path) -> None:
    faulty = Dataset.from_dict({"text": [*TEXTS[:25], None, *TEXTS[26:50]]})
    with pytest.raises(ValueError, match="Row 25 of the dataset has None in the text column"):
        teacher_columns(faulty, teacher(), tmp_path)
    assert len([*tmp_path.rglob("*.arrow")]) == 1  # the one before was kept


@pytest.mark.parametrize("pipelined", [False, True])
def test_batches_that_do_not_fit_are_halved(pipelined: bool, caplog: pytest.LogCaptureFixture) -> None:
    guide = teacher(pipelined=pipelined, batch_size=32)
    limit(guide, 9)
    with runs.rows_seen(guide.model) as seen:
        columns = guide({"text": TEXTS})
    assert_equal(columns, teacher(pipelined=False)({"text": TEXTS}))
    assert sum(seen) == len(TEXTS) and max(seen) <= 9  # hooks run in order: the limit comes first
    assert "32 rows do not fit in the device's memory; going on with 16 at a time" in caplog.text
    if not pipelined:
        assert guide.batch_size == 8 == max(seen)
        assert caplog.text.count("do not fit") == 3  # once 32, twice 16; the batches that follow are made smaller


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    guide = teacher(batch_size=4)
    limit(guide, 0)
    with pytest.raises(torch.OutOfMemoryError):
        guide({"text": TEXTS[:8]})
