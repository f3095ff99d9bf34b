"""Inputs of a model from rows: which columns, how, and when."""

from dataclasses import replace

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch

from hf_lelp.data.encoding import encode, longest, on_device, pad
from hf_lelp.training.student_inputs import OnTheFly

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
