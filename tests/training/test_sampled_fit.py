"""A fit on a sample of the rows, and columns without embeddings."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
from datasets import Dataset, concatenate_datasets

from hf_lelp import ClassProjections, LELPConfig
from hf_lelp.data.labels import Classes
from hf_lelp.teacher.columns import run_teacher
from hf_lelp.training.sampled_fit import fitted_rows
from hf_lelp.training.targets import Targets, make_targets
from hf_lelp.training.trials import NEWER, key_of

ROWS, SAMPLE = 120, 50
CLASSES = Classes(2, tiny.LABEL_NAMES, [0, 1])
RAW = Dataset.from_dict({"text": list(dict.fromkeys(tiny.texts(140, shortest=3)))[:ROWS]})  # no two alike
DATA = RAW.add_column("label", tiny.labelled_by(runs.teacher_model(), list(RAW["text"])))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_lelp.teacher.columns.SHARD_ROWS", 20)


def made(
    folder: Path, data: Dataset = DATA, projections: ClassProjections | None = None, **settings: Any
) -> tuple[Targets, int]:
    """The targets, and over how many rows the teacher was run for them."""
    guide = runs.teacher()
    guide._checked = True  # else the first pass is made twice
    args = runs.config(folder, **{"fit_rows": SAMPLE, "num_directions": 3, **settings})
    with runs.rows_seen(guide.model) as seen:
        targets = make_targets(data, guide, args, CLASSES, projections)
    return targets, sum(seen)


def by_hand() -> tuple[Dataset, ClassProjections]:
    guide, sample = runs.teacher(), fitted_rows(ROWS, SAMPLE)
    assert sample is not None
    columns = DATA.map(guide, batched=True)
    fitted = ClassProjections.fit(columns.select(sample), guide.head, 3)
    return columns.map(fitted, batched=True), fitted


def test_the_sample_is_random_and_always_the_same() -> None:
    sample = fitted_rows(1000, 100)
    assert sample is not None and len({*sample}) == 100 and (np.diff(sample) > 0).all() and sample.max() > 900
    np.testing.assert_array_equal(sample, fitted_rows(1000, 100))
    assert fitted_rows(100, 100) is None and fitted_rows(100, None) is None


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
def test_columns_are_those_of_a_fit_on_the_sample_by_hand(tmp_path: Path, dtype: str, tolerance: float) -> None:
    targets, seen = made(tmp_path, columns_dtype=dtype)
    expected, fitted = by_hand()
    assert seen == ROWS and targets.embeddings is None and targets.projections is not None
    np.testing.assert_allclose(targets.projections.variance, fitted.variance, rtol=max(tolerance, 1e-4))
    assert targets.projections.count.sum() == SAMPLE
    for name in ("teacher_logits", "teacher_projections"):
        np.testing.assert_allclose(targets.dataset[:][name], expected[:][name], atol=tolerance)
    kept = [*tmp_path.glob("columns/teacher/*/*.arrow")]
    assert len(kept) == 3  # the sample's, by 20 rows: of no other row there are embeddings


def test_a_second_run_finds_all_that_it_needs(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    assert first.projections is not None
    for settings in ({}, {"seed": 7}, {"num_subclasses": 1}, {"num_directions": 2}, {"num_directions": None}):
        again, seen = made(tmp_path, **settings)
        assert seen == 0 and again.projections is not None
        assert again.projections.fingerprint == first.projections.fingerprint
        assert again.dataset[:]["teacher_projections"] == first.dataset[:]["teacher_projections"]
    # Another machine, with all but the embeddings.
    shutil.copytree(tmp_path / "columns" / "projected_rows", tmp_path / "other" / "columns" / "projected_rows")
    again, seen = made(tmp_path / "other")
    assert seen == 0 and again.projections is not None
    assert again.projections.fingerprint == first.projections.fingerprint


def test_an_interrupted_pass_goes_on_and_damaged_projections_are_fitted_again(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    shards = sorted(tmp_path.glob("columns/projected_rows/*/*/*.arrow"))
    assert len(shards) == 6
    for shard in shards[:4]:
        shard.unlink()
        shard.with_suffix(".rows").unlink()
    (shards[0].parent / "class_projections.safetensors").write_bytes(b"")
    again, seen = made(tmp_path)
    assert 0 < seen < 80  # of 80 rows some are in the sample
    np.testing.assert_allclose(
        again.dataset[:]["teacher_projections"], first.dataset[:]["teacher_projections"], atol=1e-5
    )


def test_rows_that_were_run_before_are_projected_from_their_embeddings(tmp_path: Path) -> None:
    run_teacher(DATA.select(range(60)), runs.teacher(), tmp_path / "columns")
    _, seen = made(tmp_path)
    assert seen == 60


def test_a_trainer_trains_resumes_and_chooses(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"fit_rows": SAMPLE, "num_subclasses": "auto", "save_strategy": "steps", "save_steps": 2}
    args = runs.config(tmp_path, **settings)
    run = runs.trainer(args, train_dataset=DATA)
    run.train()
    again = runs.trainer(args, train_dataset=DATA)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert again.projections is not None and run.projections is not None
    assert again.projections.fingerprint == run.projections.fingerprint
    runs.assert_same(runs.weights(again.model), runs.weights(run.model), 1e-6)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_directions": 4}, "num_directions=4 needs embeddings"),
        ({"null_space": False}, "null_space=False needs embeddings"),
        ({"fit_rows": 60, "num_directions": 5}, "fit_rows=60, num_directions=5 needs embeddings"),
        ({"num_subclasses": "auto", "num_directions": None}, "num_directions=32 needs embeddings"),
    ],
)
def test_what_needs_embeddings_is_refused_by_name(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    made(tmp_path)
    with pytest.raises(ValueError, match=f"{named}, and fit_rows kept none of these rows.*3 directions a class"):
        made(tmp_path, **settings)


def test_other_labels_and_other_projections_are_refused_and_kept_ones_taken(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    assert first.projections is not None
    swapped = DATA.remove_columns("label").add_column("label", [1 - label for label in DATA["label"]])
    with pytest.raises(ValueError, match="a fit with other labels or rows needs embeddings"):
        made(tmp_path, swapped, check_teacher=False)
    _, seen = made(tmp_path, swapped, first.projections, check_teacher=False)
    assert seen == 0
    _, other = by_hand()
    flipped = {name: getattr(other, name) for name in ("mean", "variance", "count", "null_space", "teacher")}
    other = ClassProjections(directions=-other.directions, **flipped)
    with pytest.raises(ValueError, match="other projections needs embeddings, and fit_rows kept none of these rows"):
        made(tmp_path, projections=other)
    _, seen = made(tmp_path, concatenate_datasets([DATA, DATA.select(range(9))]), other)
    assert seen == ROWS - SAMPLE  # other rows; those that come twice are run once
    # With every embedding there is nothing to refuse.
    assert made(tmp_path, fit_rows=None)[1] == ROWS - SAMPLE
    assert made(tmp_path, null_space=False)[1] == 0


def test_too_few_rows_of_a_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fit_rows=4: \d of these rows are of class \d, and 3 directions need at"):
        made(tmp_path, fit_rows=4)
    assert not [*tmp_path.glob("columns/teacher/*/*.arrow")]  # labels tell before the teacher is run
    with pytest.raises(ValueError, match=r"fit_rows=4: \d of these rows are of class \d, and 3 directions need at"):
        made(tmp_path, RAW, fit_rows=4)


def test_prepared_columns_are_fitted_on_the_sample_too(tmp_path: Path) -> None:
    columns, fitted = by_hand()
    prepared = columns.remove_columns(["teacher_projections", "projections_fingerprint"])
    targets, seen = made(tmp_path, prepared)
    assert seen == 0 and targets.projections is not None and targets.embeddings is not None
    np.testing.assert_allclose(targets.projections.variance, fitted.variance, rtol=1e-5)


def test_trials_of_versions_without_the_setting_are_found(tmp_path: Path) -> None:
    class Earlier(LELPConfig):
        def to_dict(self) -> dict[str, Any]:
            return {name: value for name, value in super().to_dict().items() if name != "fit_rows"}

    args = runs.config(tmp_path)
    earlier = Earlier(output_dir="x")
    vars(earlier).update(vars(args))
    assert (
        key_of(args, 0, "", "", "")
        == key_of(earlier, 0, "", "", "")
        != key_of(runs.config(tmp_path, fit_rows=9), 0, "", "", "")
    )


def test_trials_are_found_that_know_none_of_the_newer_settings(tmp_path: Path) -> None:
    class Older(LELPConfig):
        def to_dict(self) -> dict[str, Any]:
            return {name: value for name, value in super().to_dict().items() if name not in NEWER}

    args, older = runs.config(tmp_path), Older(output_dir="x")
    vars(older).update(vars(args))
    assert key_of(args, 0, "", "", "") == key_of(older, 0, "", "", "")
