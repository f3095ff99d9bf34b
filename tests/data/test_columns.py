"""Which columns a model reads."""

from pathlib import Path

import pytest
import runs
import tiny
import tiny_media
from datasets import Audio, Dataset, Features, Image
from streams import stream

from hf_lelp.data.columns import RunColumns, find_label_column, resolve_input_columns


def test_the_text_column() -> None:
    one = Dataset.from_dict({"body": ["good"], "label": ["positive"], "id": [3]})
    assert resolve_input_columns(one, None, "label") == ["body"]
    assert resolve_input_columns(one.add_column("text", ["bad"]), None, "label") == ["text"]
    two = one.add_column("title", ["bad"])
    assert resolve_input_columns(two, ["title", "body"], "label") == ["title", "body"]
    for dataset in (two, stream(two), two.with_format("numpy", columns=["id"])):
        with pytest.raises(ValueError, match=r"of them text: body, title\. Set input_columns to one or two"):
            resolve_input_columns(dataset, None, "label")
    assert resolve_input_columns(stream(one), None, "label") == ["body"]
    assert resolve_input_columns(one.with_format("torch", columns=["id"]), None, "label") == ["body"]
    with pytest.raises(ValueError, match="input_columns names nothing; the dataset has body, label, id"):
        resolve_input_columns(one, ["body", "nothing"], "label")


def test_the_image_column() -> None:
    processor = tiny_media.image_processor()
    features = Features({"img": Image(), "mask": Image()})
    two = Dataset.from_dict({name: tiny_media.pictures(1) for name in features}, features=features)
    one = two.remove_columns("mask").add_column("text", ["good"])
    for dataset in (one, stream(one)):
        assert resolve_input_columns(dataset, None, "label", processor) == ["img"]
    assert resolve_input_columns(one, None, "label", tiny.tokenizer()) == ["text"]
    with pytest.raises(
        ValueError, match=r"Which column is the image\? .* of them image: img, mask\. Set input_columns to one"
    ):
        resolve_input_columns(two, None, "label", processor)
    assert resolve_input_columns(two.rename_column("mask", "image"), None, "label", processor) == ["image"]
    with pytest.raises(ValueError, match=r"input_columns=\['img', 'mask'\]: a model of image reads one column"):
        resolve_input_columns(two, ["img", "mask"], "label", processor)


def test_the_audio_column() -> None:
    extractor = tiny_media.wave_extractor()
    arrays = Dataset.from_dict({"sound": tiny_media.sounds(1), "text": ["good"]})
    assert resolve_input_columns(arrays, None, "label", extractor) == ["sound"]
    # A feature is enough: nothing is decoded, which might need torchcodec.
    files = Dataset.from_dict({"sound": [{"bytes": b"", "path": "a.wav"}]}).cast_column("sound", Audio())
    assert resolve_input_columns(files, None, "label", extractor) == ["sound"]


def test_a_first_row_without_a_text_changes_nothing() -> None:
    texts = {"title": [None, "bad"], "body": ["good", "bad"]}
    both = Dataset.from_dict({**texts, "label": [0, 1]})
    for dataset in (both, stream(both)):
        with pytest.raises(ValueError, match="of them text: title, body"):
            resolve_input_columns(dataset, None, "label")
    alone = both.remove_columns("body")
    assert (
        resolve_input_columns(alone, None, "label") == resolve_input_columns(stream(alone), None, "label") == ["title"]
    )


def test_all_data_of_a_run_is_read_by_the_columns_of_its_training_data() -> None:
    train = Dataset.from_dict({"sentence": ["good", "bad"], "label": [0, 1]})
    evaluation = Dataset.from_dict({"id": ["row 0", "row 1"], "sentence": [None, "bad"], "label": [0, 1]})
    columns = RunColumns.of((train, evaluation), None, "label", tiny.tokenizer())
    assert columns.inputs == columns.inputs_of(evaluation, tiny.tokenizer()) == ["sentence"]
    for dataset in (evaluation.remove_columns("sentence"), stream(evaluation.remove_columns("sentence"))):
        with pytest.raises(ValueError, match="This run reads sentence, and this dataset has id, label"):
            columns.inputs_of(dataset, tiny.tokenizer())


def test_prepared_data_leaves_the_columns_to_the_first_raw_rows() -> None:
    tokens = Dataset.from_dict({"input_ids": [[2, 3]], "labels": [0]})
    raw = Dataset.from_dict({"body": ["good"], "label": [0]})
    assert RunColumns.of((tokens, None, raw), None, "label", tiny.tokenizer()).inputs == ["body"]
    for datasets, processor in (((tokens,), tiny.tokenizer()), ((raw,), None), (([1],), tiny.tokenizer())):
        found = RunColumns.of(datasets, None, "label", processor)
        assert found.inputs is None and found.inputs_of(raw, tiny.tokenizer()) == ["body"]


def test_an_evaluation_without_the_column_is_refused(tmp_path: Path) -> None:
    raw = runs.data(32).rename_column("text", "sentence")
    run = runs.trainer(runs.config(tmp_path), train_dataset=raw)
    other = raw.rename_column("sentence", "id")
    with pytest.raises(ValueError, match="This run reads sentence"):
        run.evaluate(other)
    with pytest.raises(ValueError, match="This run reads sentence"):
        runs.trainer(runs.config(tmp_path), train_dataset=raw, eval_dataset=other)


def test_find_label_column() -> None:
    raw = runs.data(4)
    assert find_label_column(raw, "label") == "label"
    for dataset in (raw.rename_column("label", "labels"), stream(raw.rename_column("label", "labels"))):
        assert find_label_column(dataset, "label") == "labels"
    assert find_label_column(raw.add_column("labels", [0] * 4), "label") == "label"
    assert find_label_column(raw.select_columns(["text"]), "label") is None
    assert find_label_column(raw, "text") == "text"
    assert find_label_column(None, "label") is None and find_label_column([{"label": 1}], "label") is None
