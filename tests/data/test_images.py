"""Images of every kind become the same picture."""

from typing import Any

import numpy as np
import pytest
import tiny_media
from PIL import Image

from hf_lelp.data.images import process_images, to_image

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 10


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        GREY,
        GREY.tolist(),
        GREY[..., None],
        np.repeat(GREY[..., None], 3, axis=2).astype(np.int64),
        Image.fromarray(GREY).convert("RGB"),
        Image.fromarray(GREY).convert("LA"),
        Image.fromarray(GREY).convert("RGBA"),
        Image.fromarray(GREY).convert("P"),
    ],
)
def test_grey_in_any_form_is_three_equal_channels_or_one(image: Any) -> None:
    colour = np.asarray(to_image(image, "RGB"))
    assert colour.shape == (4, 5, 3)
    np.testing.assert_array_equal(colour, np.repeat(GREY[..., None], 3, axis=2))
    np.testing.assert_array_equal(np.asarray(to_image(image, "L")), GREY)


def test_the_alpha_channel_is_left_out() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 4)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(to_image(pixels, "RGB")), pixels[..., :3])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "this is object of shape"),
        ("a.png", "this is an undecoded file .str.. Let datasets decode it: dataset.cast_column"),
        ({"bytes": b"PNG", "path": None}, "this is an undecoded file .dict."),
        ([[1, 2], [3]], "this is list"),
        (GREY / 255, "this is float64 of shape .4, 5."),
        (GREY.astype(int) - 50, "whole numbers from 0 to 255"),
        (GREY.astype(int) * 300, "values up to 57000 was found; expected are 8 bits"),
        (GREY.reshape(2, 5, 2), "1, 3 or 4 channels at the end"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"shape \(3, 8, 8\)"),
        (Image.fromarray(GREY.astype(np.uint16)), "mode I;16 has more than 8 bits a channel. Scale it"),
        (Image.fromarray(GREY.astype(np.float32)), "mode F has more"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_image(image, "RGB")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_all_modes_go_through_one_processor(channels: int) -> None:
    processor = tiny_media.image_processor(12, channels=channels)
    pictures = tiny_media.pictures(7, modes=("L", "RGB", "RGBA", "P", "1", "LA", "CMYK"))
    encoded = process_images(processor, pictures)
    assert [*encoded] == ["pixel_values"]
    assert {value.shape for value in encoded["pixel_values"]} == {(channels, 12, 12)}
    assert all(value.dtype == np.float32 and value.std() > 0 for value in encoded["pixel_values"])


def test_without_normalisation_images_are_in_colour() -> None:
    processor = tiny_media.image_processor(12)
    processor.do_normalize = False
    assert process_images(processor, [GREY])["pixel_values"][0].shape == (3, 12, 12)
