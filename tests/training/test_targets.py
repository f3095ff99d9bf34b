"""The teacher's columns, made before training."""

from pathlib import Path

import numpy as np
import pytest
import runs
import tiny
from datasets import ClassLabel, Dataset

from hf_lelp import ClassProjections, LELPConfig, Teacher
from hf_lelp.data.columns import KIND_COLUMN, ORIGIN_COLUMN, PROJECTIONS_MARK, TEACHER_MARK
from hf_lelp.data.labels import Classes
from hf_lelp.training.targets import Targets, make_targets
from hf_lelp.transfer.origins import KINDS, ROW, VIEW

CLASSES = Classes(2, tiny.LABEL_NAMES, [0, 1])


# ---- make_targets ----


def add(
    dataset: Dataset,
    args: LELPConfig,
    teacher: Teacher | None = None,
    projections: ClassProjections | None = None,
) -> Targets:
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


def test_a_teacher_is_judged_by_the_data_s_own_rows(tmp_path: Path) -> None:
    own = {"label": [0, 1] * 8, "teacher_logits": [[1.0, 0.0], [0.0, 1.0]] * 8}
    wrong = {"label": [1, 0] * 16, "teacher_logits": [[1.0, 0.0], [0.0, 1.0]] * 16}
    args = runs.config(tmp_path, num_subclasses=1)

    def beside(kind: int) -> Dataset:
        marks = {KIND_COLUMN: [ROW] * 16 + [kind] * 32, ORIGIN_COLUMN: [*range(16)] * 3}
        rows = Dataset.from_dict({**{name: own[name] + wrong[name] for name in own}, **marks})
        return rows.cast_column(KIND_COLUMN, ClassLabel(names=[*KINDS]))

    assert len(add(beside(VIEW), args).dataset) == 48
    with pytest.raises(ValueError, match=r"accuracy on the 48 labelled examples is 0\.333, below the 0\.500"):
        add(beside(ROW), args)
