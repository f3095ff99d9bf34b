"""Teacher and classes settled between teacher, data and student, and which column holds labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
import torch
from datasets import Dataset, IterableDataset

from hf_lelp import ClassProjections, Teacher
from hf_lelp.data.labels import Classes, UnknownClasses
from hf_lelp.teacher.class_order import load_aligned_teacher

CLASSES = Classes(2, tiny.LABEL_NAMES, [0, 1])


def stream(dataset: Dataset) -> IterableDataset:
    """The rows as a stream that does not know its columns."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from dataset

    return IterableDataset.from_generator(rows)


def saved_teacher(folder: Path) -> str:
    runs.teacher_model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_teacher_from_a_folder_has_the_settings(tmp_path: Path) -> None:
    args = runs.config(tmp_path, teacher_max_length=9, teacher_batch_size=5, teacher_dtype="bfloat16")
    raw = runs.data().rename_column("text", "review")
    teacher, classes = load_aligned_teacher(saved_teacher(tmp_path / "teacher"), None, args, raw, None)
    assert isinstance(teacher, Teacher)
    assert (teacher.input_columns, teacher.max_length, teacher.batch_size) == (["review"], 9, 5)
    assert teacher.model.dtype == torch.bfloat16
    assert classes == Classes(2, tiny.LABEL_NAMES, [0, 1])


def test_no_teacher_is_loaded_where_none_is_needed(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    teacher, classes = load_aligned_teacher(nowhere, None, runs.config(tmp_path, alpha=1.0), runs.data(), None)
    assert teacher is None and classes == Classes(2, tiny.LABEL_NAMES, None)
    assert load_aligned_teacher(nowhere, None, runs.config(tmp_path), None, runs.student())[0] is None
    with pytest.raises(OSError, match="nowhere"):
        load_aligned_teacher(nowhere, None, runs.config(tmp_path), runs.data(), None)


def test_a_teacher_object_is_taken_as_it_is(tmp_path: Path) -> None:
    guide = runs.teacher(max_length=7)
    teacher, _ = load_aligned_teacher(guide, None, runs.config(tmp_path, teacher_max_length=9), runs.data(), None)
    assert teacher is guide


def test_the_teacher_gives_its_classes_in_the_data_s_order(tmp_path: Path) -> None:
    swapped = Teacher(tiny.named(runs.teacher_model(), ["Positive", "Negative"]), tiny.tokenizer())
    teacher, classes = load_aligned_teacher(swapped, None, runs.config(tmp_path), runs.data(), None)
    assert teacher is not None and teacher.class_names == ["Negative", "Positive"]
    assert classes == Classes(2, tiny.LABEL_NAMES, [1, 0])
    # The user's word is on the teacher as given, which may itself have been reordered.
    again, _ = load_aligned_teacher(teacher, None, runs.config(tmp_path, teacher_class_order=[1, 0]), runs.data(), None)
    assert again is not None and again.fingerprint == swapped.fingerprint


def test_classes_where_neither_teacher_nor_data_tell(tmp_path: Path) -> None:
    args, bare = runs.config(tmp_path), Dataset.from_dict({"text": ["good"], "teacher_logits": [[0.0, 1.0, 2.0]]})
    assert load_aligned_teacher(None, None, args, bare, tiny.named(runs.student()))[1].names == tiny.LABEL_NAMES
    assert load_aligned_teacher(None, None, args, bare, "a/path")[1] == Classes(3, None, None)
    assert load_aligned_teacher(None, None, args, None, runs.student(num_labels=3))[1] == Classes(3, None, None)
    with pytest.raises(UnknownClasses):
        load_aligned_teacher(None, None, args, bare.select_columns("text"), "a/path")


def test_a_stream_without_the_teacher_s_columns_is_told_what_to_do(tmp_path: Path) -> None:
    args, raw = runs.config(tmp_path), runs.data(20)
    for dataset in (stream(raw), raw.to_iterable_dataset()):
        with pytest.raises(
            ValueError, match=r"stream without teacher_logits, teacher_projections \(it has text, label\)"
        ):
            runs.trainer(args, train_dataset=dataset)
        with_logits = dataset.map(runs.teacher(), batched=True)
        with pytest.raises(ValueError, match=r"without teacher_projections \([\s\S]*stream.map\(projections, batched"):
            load_aligned_teacher(None, None, args, with_logits, runs.student())
        load_aligned_teacher(None, None, runs.config(tmp_path, num_subclasses=1), with_logits, runs.student())
        load_aligned_teacher(None, None, runs.config(tmp_path, alpha=1.0), dataset, runs.student())


def test_a_stream_all_the_way_trains_the_student_of_the_dataset(tmp_path: Path) -> None:
    raw, guide = runs.data(), runs.teacher()
    rows = stream(raw).map(guide, batched=True, batch_size=20)
    projections = ClassProjections.fit(rows, guide.head, 2)
    rows = rows.map(projections, batched=True, batch_size=30)
    args = runs.config(tmp_path, max_steps=5, train_sampling_strategy="sequential")
    streamed = runs.trainer(
        args, model=runs.student(dropout=False), train_dataset=rows, teacher_model=None, projections=projections
    )
    stored = runs.trainer(args, model=runs.student(dropout=False), train_dataset=raw)
    for run in (streamed, stored):
        run.train()
    runs.assert_same(runs.weights(stored.model), runs.weights(streamed.model), tolerance=1e-5)
    assert stored.projections is not None
    torch.testing.assert_close(projections.directions, stored.projections.directions, rtol=0, atol=1e-5)


def test_columns_of_half_the_size_train_nearly_the_same_student(tmp_path: Path) -> None:
    weights = []
    for dtype in ("float32", "float16"):
        run = runs.trainer(runs.config(tmp_path, columns_dtype=dtype), model=runs.student(dropout=False))
        assert run.train_dataset.features["teacher_logits"].feature.dtype == dtype
        run.train()
        weights.append(runs.weights(run.model))
    runs.assert_same(*weights, tolerance=1e-3)
    assert any((one != weights[1][name]).any() for name, one in weights[0].items())
