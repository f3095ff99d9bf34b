"""The teacher's columns: right, in the rows' order, and never made twice."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import killed_pass
import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from datasets import Dataset, Image, concatenate_datasets, load_from_disk

from hf_lelp import ClassProjections, Teacher
from hf_lelp.projections.cache import fit_projections, projection_columns
from hf_lelp.storage.shards import default_cache_dir
from hf_lelp.teacher.columns import shard_names, shard_rows, teacher_columns


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr("hf_lelp.teacher.columns.SHARD_ROWS", 20)
    yield 20


def rows_run(dataset: Dataset, guide: Teacher, folder: Path) -> tuple[Dataset, int]:
    """The columns, and how many rows went through the model for them."""
    guide._checked = True  # else the first pass is made twice
    with runs.rows_seen(guide.model) as seen:
        columns = teacher_columns(dataset, guide, folder)
    return columns, sum(seen)


def content(dataset: Dataset) -> bytes:
    table = dataset.with_format("arrow")[:]
    return b"".join(
        np.array(table[name].to_pylist(), dtype=np.float32).tobytes() for name in sorted(table.column_names)
    )


def expected(dataset: Dataset) -> dict[str, Any]:
    return runs.teacher()({"text": list(dataset["text"])})


def test_columns_are_the_teacher_s_in_the_rows_order(small_shards: int, tmp_path: Path) -> None:
    raw = runs.data()
    columns, seen = rows_run(raw, runs.teacher(batch_size=7), tmp_path)
    assert seen == len(raw) and columns.column_names == ["teacher_logits", "teacher_embedding"]
    for name in columns.column_names:
        np.testing.assert_allclose(columns[:][name], expected(raw)[name], atol=1e-5)
    assert len(list(tmp_path.rglob("*.arrow"))) == 5
    assert [path for path in (tmp_path / "teacher").iterdir() for path in path.iterdir() if path.is_dir()] == []


def test_a_second_run_makes_no_pass_and_gives_the_same_bytes(small_shards: int, tmp_path: Path) -> None:
    raw = runs.data()
    first, _ = rows_run(raw, runs.teacher(), tmp_path)
    before = content(first)
    second, seen = rows_run(runs.data(), runs.teacher(), tmp_path)
    assert seen == 0 and content(second) == before
    # Labels and further columns are nothing to the teacher.
    relabelled = raw.remove_columns("label").add_column("label", [0] * len(raw)).add_column("id", list(range(len(raw))))
    third, seen = rows_run(relabelled, runs.teacher(), tmp_path)
    assert seen == 0 and content(third) == before


def test_the_trainer_too_makes_no_second_pass(tmp_path: Path) -> None:
    def construct(**settings: Any) -> tuple[Any, int]:
        model = runs.teacher_model()
        with runs.rows_seen(model) as seen:
            run = runs.trainer(runs.config(tmp_path, **settings), teacher_model=model)
        return run, sum(seen)

    first, seen = construct()
    assert seen >= runs.ROWS
    columns = ["teacher_logits", "teacher_projections"]
    for settings in (
        {},
        {"temperature": 3.0},
        {"alpha": 0.5},
        {"student_head": "auxiliary"},
        {"teacher_batch_size": 5},
    ):
        again, seen = construct(**settings)
        assert seen == 0
        assert content(again.train_dataset.select_columns(columns)) == content(
            first.train_dataset.select_columns(columns)
        )
    assert construct(num_subclasses=4)[1] == 0
    assert construct(teacher_max_length=6)[1] > 0


def test_another_teacher_runs_anew(tmp_path: Path) -> None:
    raw = runs.data(40)
    base, _ = rows_run(raw, runs.teacher(), tmp_path)
    weights = runs.teacher_model()
    with torch.no_grad():
        weights.classifier.weight[0, 0] += 1
    words = tiny.tokenizer()
    words.add_tokens(["splendid"])
    for guide in (
        Teacher(weights, tiny.tokenizer()),
        Teacher(runs.teacher_model(), words),
        runs.teacher(max_length=5),
        runs.teacher(class_order=[1, 0]),
    ):
        columns, seen = rows_run(raw, guide, tmp_path)
        assert seen == len(raw)
        if guide.processing_class is not words:
            assert content(columns) != content(base)
        assert rows_run(raw, guide, tmp_path)[1] == 0


def test_only_missing_shards_are_run(small_shards: int, tmp_path: Path) -> None:
    raw = runs.data(90)
    before = content(rows_run(raw, runs.teacher(), tmp_path)[0])
    files = sorted(tmp_path.rglob("*.arrow"))
    assert len(files) == 5
    files[2].unlink()
    columns, seen = rows_run(raw, runs.teacher(), tmp_path)
    assert seen in (20, 10) and content(columns) == before
    shutil.rmtree(tmp_path)
    again, seen = rows_run(raw, runs.teacher(), tmp_path)
    assert seen == 90 and content(again) == before


def test_a_killed_pass_goes_on_where_it_stopped(small_shards: int, tmp_path: Path) -> None:
    raw, guide = runs.data(90), runs.teacher()
    passes: list[int] = []

    def kill(_: Any, args: Any, inputs: dict[str, torch.Tensor]) -> None:
        passes.append(len(inputs["input_ids"]))
        if len(passes) == 3:
            raise KeyboardInterrupt

    guide._checked = True
    hook = guide.model.register_forward_pre_hook(kill, with_kwargs=True)
    with pytest.raises(KeyboardInterrupt):
        teacher_columns(raw, guide, tmp_path)
    hook.remove()
    columns, seen = rows_run(raw, runs.teacher(), tmp_path)
    assert passes == [20, 20, 20] and seen == 50
    np.testing.assert_allclose(columns[:]["teacher_logits"], expected(raw)["teacher_logits"], atol=1e-5)
    assert guide.model.classifier.out_features == 2  # the final layer is back


def test_shuffled_selected_repeated_and_formatted_rows(small_shards: int, tmp_path: Path) -> None:
    raw = runs.data()
    raw.save_to_disk(tmp_path / "disk")
    for dataset in (
        raw.shuffle(seed=3),
        raw.select([5, 3, 3, 80]),
        raw.select(range(30, 70)).shuffle(seed=1),
        concatenate_datasets([raw.select(range(20))] * 2),  # two shards of the same content
        load_from_disk(str(tmp_path / "disk")).shuffle(seed=4),
        raw.with_format("torch"),
        raw.with_format("numpy", columns=["label"]),
        raw.flatten_indices(),
    ):
        columns, _ = rows_run(dataset, runs.teacher(), tmp_path / "columns")
        texts = dataset.with_format(None)
        np.testing.assert_allclose(columns[:]["teacher_logits"], expected(texts)["teacher_logits"], atol=1e-5)
        assert rows_run(dataset, runs.teacher(), tmp_path / "columns")[1] == 0


def test_the_same_rows_are_found_however_they_are_stored(tmp_path: Path) -> None:
    raw = runs.data()
    rows_run(raw, runs.teacher(), tmp_path / "columns")
    raw.save_to_disk(tmp_path / "disk")
    raw.to_parquet(str(tmp_path / "rows.parquet"))
    reversed_twice = raw.select(range(len(raw) - 1, -1, -1)).select(range(len(raw) - 1, -1, -1))
    for dataset in (
        load_from_disk(str(tmp_path / "disk")),
        Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache")),
        reversed_twice,
        raw.with_format("numpy"),
    ):
        assert rows_run(dataset, runs.teacher(), tmp_path / "columns")[1] == 0


def test_images_are_found_by_their_bytes_and_how_they_are_decoded(tmp_path: Path) -> None:
    guide = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for row, picture in enumerate(tiny_media.pictures(5)):
            picture.save(tmp_path / folder / f"{folder}{row}.png")
    paths = {folder: [str(tmp_path / folder / f"{folder}{row}.png") for row in range(5)] for folder in ("one", "two")}
    first = Dataset.from_dict({"img": paths["one"]}).cast_column("img", Image())
    columns = teacher_columns(first, guide, tmp_path)
    np.testing.assert_allclose(
        columns[:]["teacher_logits"], guide({"img": tiny_media.pictures(5)})["teacher_logits"], atol=1e-5
    )
    second = Dataset.from_dict({"img": paths["two"]}).cast_column("img", Image())
    inside = Dataset.from_list([{"img": {"bytes": Path(path).read_bytes(), "path": None}} for path in paths["one"]])
    for same in (second, inside.cast_column("img", Image()), first.with_transform(lambda batch: batch)):
        again, seen = rows_run(same, guide, tmp_path)
        assert seen == 0 and content(again) == content(columns)
    grey, seen = rows_run(first.cast_column("img", Image(mode="L")), guide, tmp_path)
    assert seen == 5 and content(grey) != content(columns)
    some, seen = rows_run(first.select([3, 1]), guide, tmp_path)
    assert seen == 0 and content(some) == content(columns.select([3, 1]))


def test_images_are_decoded_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_lelp.teacher.columns.DECODED_ROWS", 4)
    guide = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])
    data, widths = tiny_media.image_data(guide, 10), []
    hook = guide.model.register_forward_pre_hook(
        lambda _, args, inputs: widths.append(len(inputs["pixel_values"])), with_kwargs=True
    )
    columns = teacher_columns(data, guide, tmp_path)
    hook.remove()
    assert widths == [4, 4, 2]
    whole = guide({"img": data[:]["img"]})
    np.testing.assert_allclose(columns[:]["teacher_embedding"], whole["teacher_embedding"], atol=1e-5)


def test_with_the_caching_of_datasets_turned_off(tmp_path: Path) -> None:
    raw = runs.data(40)
    datasets.disable_caching()
    try:
        rows_run(raw, runs.teacher(), tmp_path)
        assert rows_run(raw, runs.teacher(), tmp_path)[1] == 0
    finally:
        datasets.enable_caching()


def test_default_folder() -> None:
    assert default_cache_dir() == Path(datasets.config.HF_DATASETS_CACHE) / "hf_lelp"
    guide = runs.teacher()
    teacher_columns(runs.data(40, seed=77), guide)
    assert list((default_cache_dir() / "teacher" / guide.fingerprint).glob("*.arrow"))


def test_missing_columns_or_rows(tmp_path: Path) -> None:
    raw = runs.data(40)
    with pytest.raises(
        ValueError, match=r"teacher reads text; the dataset has 40 rows of body, label\. Set input_columns"
    ):
        teacher_columns(raw.rename_column("text", "body"), runs.teacher(), tmp_path)
    with pytest.raises(ValueError, match="the dataset has 0 rows of text, label"):
        teacher_columns(raw.select([]), runs.teacher(), tmp_path)


def test_a_bad_text_is_named_by_its_row(small_shards: int, tmp_path: Path) -> None:
    texts: list[str | None] = [*tiny.texts(60)]
    texts[47] = None
    with pytest.raises(ValueError, match=r"Row 47 of the dataset has None"):
        teacher_columns(Dataset.from_dict({"text": texts}), runs.teacher(), tmp_path)


def test_the_fit_is_that_of_class_projections_and_kept(tmp_path: Path) -> None:
    raw, guide = runs.data(), runs.teacher()
    columns, labels = teacher_columns(raw, guide, tmp_path), np.array(raw["label"])
    fitted = fit_projections(columns, labels, guide.head, 3, cache_dir=tmp_path)
    direct = ClassProjections.fit(columns.add_column("labels", labels), guide.head, 3)
    assert fitted.fingerprint == direct.fingerprint and fitted.teacher == guide.head.fingerprint

    folder = next((tmp_path / "projections").iterdir())
    written = (folder / "class_projections.safetensors").stat().st_mtime_ns
    again = fit_projections(
        teacher_columns(runs.data(), runs.teacher(), tmp_path), labels, guide.head, 3, cache_dir=tmp_path
    )
    assert again.fingerprint == fitted.fingerprint
    assert (folder / "class_projections.safetensors").stat().st_mtime_ns == written
    assert [*(tmp_path / "projections").iterdir()] == [folder]


def test_another_fit_for_other_labels_settings_and_rows(tmp_path: Path) -> None:
    raw, guide = runs.data(), runs.teacher()
    columns, labels = teacher_columns(raw, guide, tmp_path), np.array(raw["label"])
    in_memory = raw.map(guide, batched=True)
    half = len(raw) // 2
    fits = [
        fit_projections(columns, labels, guide.head, 3, cache_dir=tmp_path),
        fit_projections(columns, None, guide.head, 3, cache_dir=tmp_path),
        fit_projections(columns, labels, guide.head, 2, cache_dir=tmp_path),
        fit_projections(columns, labels, guide.head, 3, null_space=False, cache_dir=tmp_path),
        # Parts of the same file, and rows that are in no file at all.
        fit_projections(columns.select(range(half)), None, guide.head, 3, cache_dir=tmp_path),
        fit_projections(columns.select(range(half, len(raw))), None, guide.head, 3, cache_dir=tmp_path),
        fit_projections(in_memory.select(range(half - 1)), None, guide.head, 3, cache_dir=tmp_path),
        fit_projections(in_memory.select(range(half + 1, len(raw))), None, guide.head, 3, cache_dir=tmp_path),
    ]
    assert len({fit.fingerprint for fit in fits}) == len(fits)
    assert [int(fit.count.sum()) for fit in fits[4:]] == [half, half, half - 1, half - 1]


def test_projection_columns(tmp_path: Path) -> None:
    raw, guide = runs.data(), runs.teacher()
    columns = teacher_columns(raw, guide, tmp_path)
    projections = fit_projections(columns, np.array(raw["label"]), guide.head, 3, cache_dir=tmp_path)
    projected = projection_columns(columns, projections, tmp_path)
    assert projected.column_names == ["teacher_projections"]
    embedding = np.array(columns[:]["teacher_embedding"], dtype=np.float64)
    by_hand = np.einsum(
        "ncd,ckd->nck", embedding[:, None] - projections.mean.double().numpy(), projections.directions.double().numpy()
    )
    np.testing.assert_allclose(projected[:]["teacher_projections"], by_hand, atol=1e-5)

    other = fit_projections(columns, np.array(raw["label"]), guide.head, 3, null_space=False, cache_dir=tmp_path)
    assert content(projection_columns(columns, other, tmp_path)) != content(projected)
    assert content(projection_columns(columns, projections, tmp_path)) == content(projected)
    part = columns.select(range(10, 20))
    np.testing.assert_allclose(
        projection_columns(part, projections, tmp_path)[:]["teacher_projections"], by_hand[10:20], atol=1e-5
    )


def arrow_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in finished(folder)}


def finished(folder: Path) -> list[Path]:
    """The shards, without the temporary files of those that are being written."""
    return [path for path in folder.rglob("*.arrow") if not path.name.startswith(".")]


def test_a_pass_that_was_killed_ends_with_the_bytes_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [sys.executable, killed_pass.__file__]
    folder = tmp_path / "killed"
    with subprocess.Popen([*script, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(finished(folder)) < 3 and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    monkeypatch.setattr("hf_lelp.teacher.columns.SHARD_ROWS", killed_pass.SHARD_ROWS)
    raw, names = killed_pass.data(), {path.name for path in finished(folder)}
    assert 3 <= len(names) <= killed_pass.SHARDS
    kept = [name in names for name in shard_names(raw, runs.teacher())]
    kept_texts = {text for row, text in enumerate(raw["text"]) if kept[row // killed_pass.SHARD_ROWS]}
    resumed, seen = rows_run(raw, runs.teacher(), folder)
    assert seen == len({*raw["text"]} - kept_texts)
    whole, seen = rows_run(raw, runs.teacher(), tmp_path / "whole")
    assert seen == len({*raw["text"]}) and content(resumed) == content(whole)
    whole_files = arrow_files(tmp_path / "whole")
    assert {name: arrow_files(folder)[name] for name in whole_files} == whole_files


def test_a_damaged_shard_is_run_again(small_shards: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = runs.data(90)
    before = content(rows_run(raw, runs.teacher(), tmp_path)[0])
    columns, labels = teacher_columns(raw, runs.teacher(), tmp_path), np.array(raw["label"])
    fitted = fit_projections(columns, labels, runs.teacher().head, 2, cache_dir=tmp_path)
    projected = content(projection_columns(columns, fitted, tmp_path))
    shard = sorted(tmp_path.glob("teacher/*/*.arrow"))[1]
    shard.write_bytes(shard.read_bytes()[:-300])
    projected_shard = next(tmp_path.glob("projected/*/*.arrow"))
    changed = bytearray(projected_shard.read_bytes())
    changed[len(changed) // 2] ^= 4
    projected_shard.write_bytes(changed)
    columns, seen = rows_run(raw, runs.teacher(), tmp_path)
    assert seen in (20, 10) and content(columns) == before
    assert content(projection_columns(columns, fitted, tmp_path)) == projected
    assert f"{shard} is made again" in caplog.text and f"{projected_shard} is made again" in caplog.text


def test_columns_of_half_the_size(tmp_path: Path) -> None:
    raw, guide = runs.data(), runs.teacher()
    wide = teacher_columns(raw, guide, tmp_path)
    narrow, seen = rows_run(raw, guide, tmp_path)
    assert seen == 0
    narrow = teacher_columns(raw, guide, tmp_path, dtype="float16")
    for name in ("teacher_logits", "teacher_embedding"):
        assert narrow.features[name].feature.dtype == "float16" and wide.features[name].feature.dtype == "float32"
        expected = np.array(wide[:][name], dtype=np.float32).astype(np.float16)
        np.testing.assert_array_equal(np.array(narrow[:][name], dtype=np.float16), expected)
    assert content(teacher_columns(raw, guide, tmp_path)) == content(wide)

    labels = np.array(raw["label"])
    fits = [fit_projections(columns, labels, guide.head, 2, cache_dir=tmp_path) for columns in (wide, narrow)]
    assert fits[0].fingerprint != fits[1].fingerprint
    torch.testing.assert_close(fits[0].directions, fits[1].directions, rtol=0, atol=2e-3)
    of_wide = projection_columns(wide, fits[0], tmp_path)
    of_narrow = projection_columns(narrow, fits[1], tmp_path, dtype="float16")
    assert of_narrow.features["teacher_projections"].feature.feature.dtype == "float16"
    np.testing.assert_allclose(of_narrow[:]["teacher_projections"], of_wide[:]["teacher_projections"], atol=2e-2)


def test_what_float16_cannot_hold_is_refused(small_shards: int, tmp_path: Path) -> None:
    model = runs.teacher_model()
    with torch.no_grad():
        model.classifier.weight *= 1e6
    loud = Teacher(model, tiny.tokenizer())
    message = r"Rows 0 to 19 of the dataset: teacher_logits holds .*, and float16 ends at 65504\. Use columns_dtype"
    with pytest.raises(ValueError, match=message):
        teacher_columns(runs.data(40), loud, tmp_path, dtype="float16")
    assert list(tmp_path.rglob("*.arrow")) == []
    teacher_columns(runs.data(40), loud, tmp_path)


def test_a_teacher_of_another_kind_that_gives_another_shape_is_refused(tmp_path: Path) -> None:
    guide = runs.teacher()

    class Wrong(SimpleNamespace):
        def __call__(self, batch: dict[str, list[Any]]) -> dict[str, Any]:
            return {name: np.asarray(values)[:, :1] for name, values in guide(batch).items() if "finger" not in name}

    names = ("input_columns", "class_names", "head", "fingerprint")
    wrong = Wrong(**{name: getattr(guide, name) for name in names})
    with pytest.raises(ValueError, match=r"gave teacher_logits of shape \(40, 1\) for 40 rows, and its final layer"):
        teacher_columns(runs.data(40), wrong, tmp_path)


def test_the_fit_is_found_again_wherever_the_rows_came_from(tmp_path: Path) -> None:
    raw, guide = runs.data(), runs.teacher()
    labels = np.array(raw["label"])
    for dataset in (raw, raw.select(range(len(raw))), Dataset.from_dict(raw[:])):
        columns = teacher_columns(dataset, guide, tmp_path)
        projection_columns(columns, fit_projections(columns, labels, guide.head, 2, cache_dir=tmp_path), tmp_path)
    assert len(list((tmp_path / "projections").iterdir())) == len(list((tmp_path / "projected").iterdir())) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(300)]
    for path, picture in zip(paths, tiny_media.pictures(300), strict=True):
        picture.save(path)
    data = Dataset.from_dict({"image": [str(path) for path in paths]}).cast_column("image", Image())
    guide = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["image"])
    whole = paths[290].read_bytes()
    paths[290].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"Row 290 of the dataset: it cannot be read \(\w+: .*\). Repair or drop it"):
        teacher_columns(data, guide, tmp_path / "columns")
    assert not list((tmp_path / "columns").rglob("*.arrow"))
    paths[290].unlink()
    with pytest.raises(ValueError, match=r"A file that the dataset names is not there: .*290\.png"):
        teacher_columns(data, guide, tmp_path / "columns")
    paths[290].write_bytes(whole)
    assert len(teacher_columns(data, guide, tmp_path / "columns")) == 300


def test_of_many_rows_shards_are_larger_rather_than_many() -> None:
    assert [shard_rows(rows) for rows in (1, 2048, 2049, 256 * 2048)] == [2048] * 4
    assert [shard_rows(rows) for rows in (256 * 2048 + 1, 1_600_000, 10**8)] == [4096, 8192, 16384]
