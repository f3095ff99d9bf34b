"""Inputs of a model from rows: which columns, how, and when."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from datasets import Audio, Dataset, Features, Image, IterableDataset

from hf_lelp.data.columns import resolve_input_columns
from hf_lelp.data.encoding import encode, longest, on_device, pad
from hf_lelp.data.rows import column_names, transform_of
from hf_lelp.training.student_inputs import OnTheFly


def stream(dataset: Dataset) -> IterableDataset:
    """The rows as a stream that does not know its columns."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from dataset

    return IterableDataset.from_generator(rows)


# ---- Rows to inputs ----


def test_encoded_and_padded_is_what_the_processors_give() -> None:
    texts = tiny.texts(5)
    encoded = encode(tiny.tokenizer(), {"a": texts, "b": texts}, ["a", "b"], None)
    expected = tiny.tokenizer()(texts, texts, padding=True, return_tensors="pt")
    torch.testing.assert_close(pad(tiny.tokenizer(), encoded), dict(expected))

    pictures = tiny_media.pictures(4)
    processor = tiny_media.image_processor()
    inputs = pad(processor, encode(processor, {"a": pictures}, ["a"], None))
    torch.testing.assert_close(inputs, dict(processor(pictures, return_tensors="pt")))

    sounds, extractor = tiny_media.sounds(4), tiny_media.wave_extractor()
    inputs = pad(extractor, encode(extractor, {"a": sounds}, ["a"], None))
    arrays = [sound["array"] for sound in sounds]
    expected = extractor(arrays, sampling_rate=tiny_media.RATE, padding=True, return_tensors="pt")
    torch.testing.assert_close(inputs, dict(expected))


def test_errors_name_the_column() -> None:
    with pytest.raises(ValueError, match="Column 'a': An image was expected"):
        encode(tiny_media.image_processor(), {"a": ["good"]}, ["a"], None)
    with pytest.raises(ValueError, match="Column 'a': A sound was expected"):
        encode(tiny_media.wave_extractor(), {"a": ["good"]}, ["a"], None)
    with pytest.raises(KeyError, match="b"):
        encode(tiny_media.wave_extractor(), {"a": ["good"]}, ["b"], None)


def test_images_that_stay_of_different_sizes_are_refused() -> None:
    processor = tiny_media.image_processor()
    processor.do_resize = False
    pictures = [*tiny_media.pictures(1), *tiny_media.pictures(1, size=10)]
    with pytest.raises(
        ValueError, match=r"leaves images of different sizes: \(3, 10, 10\), \(3, 20, 20\). Give it a size"
    ):
        pad(processor, encode(processor, {"a": pictures}, ["a"], None))


def test_longest() -> None:
    assert longest(tiny.tokenizer(), tiny.classifier(), None) == 64
    assert longest(tiny_media.wave_extractor(), tiny_media.wav2vec2(), 500) == 500
    assert longest(tiny_media.image_processor(), tiny_media.cnn(), None) is None


def test_on_device_leaves_token_ids_alone() -> None:
    model = runs.teacher_model().bfloat16()
    assert on_device(torch.tensor([1]), model).dtype == torch.int64
    assert on_device(torch.tensor([1.0]), model).dtype == torch.bfloat16


# ---- Inputs when rows are read ----


def test_on_the_fly() -> None:
    processor, pictures = tiny_media.image_processor(), tiny_media.pictures(3)
    batch = {"img": pictures, "labels": [0, 1, 0], "id": [5, 6, 7]}
    rows = OnTheFly(processor, ["img"], None, ["labels"])(batch)
    assert {*rows} == {"pixel_values", "labels", "id"} and rows["labels"] == [0, 1, 0]

    flip = OnTheFly(processor, ["img"], None, ["labels"], lambda b: {"img": [i.transpose(0) for i in b["img"]]})(batch)
    np.testing.assert_allclose(flip["pixel_values"], np.array(rows["pixel_values"])[..., ::-1], atol=1e-5)

    whole = OnTheFly(processor, ["img"], None, ["labels"], lambda b: {**b, "pixel_values": [1, 2, 3], "bonus": b["id"]})
    assert whole(batch) == {"pixel_values": [1, 2, 3], "bonus": [5, 6, 7], "id": [5, 6, 7], "labels": [0, 1, 0]}
    assert replace(whole, wanted={"pixel_values"})(batch) == {"pixel_values": [1, 2, 3], "labels": [0, 1, 0]}
    assert batch["id"] == [5, 6, 7] and "pixel_values" not in batch


def test_transform_of() -> None:
    dataset = Dataset.from_dict({"text": ["good"]})
    assert transform_of(dataset) is transform_of(dataset.with_format("torch")) is transform_of([1]) is None
    assert transform_of(dataset.to_iterable_dataset()) is None
    assert transform_of(dataset.with_transform(runs.losses)) is runs.losses


# ---- Which column is which ----


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


def test_column_names() -> None:
    raw = runs.data(4)
    assert column_names(stream(raw)) == column_names(raw) == ["text", "label"]
