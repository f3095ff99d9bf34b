"""Converts a dataset's images into pixel values, however they were stored."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image
from transformers import BaseImageProcessor

# More than 8 bits a channel: only the data's owner knows which part of the range counts.
DEEP_MODES = ("I", "F")


def process_images(processing_class: BaseImageProcessor, images: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the processor's outputs for images of any kind: `pixel_values` and any others, one entry per image.

    Raises:
        ValueError: see `to_image`.
    """
    mode = "L" if channels_of(processing_class) == 1 else "RGB"
    encoded = processing_class([to_image(image, mode) for image in images])
    return {name: [np.asarray(value) for value in values] for name, values in encoded.items()}


def to_image(image: Any, mode: str) -> Image.Image:
    """Return an image in grey ("L") or in colour ("RGB").

    In colour, grey becomes three equal channels. An alpha channel is dropped.

    Args:
        image: a Pillow image; or whole numbers from 0 to 255 in an array or nested lists, (height, width) or
            (height, width, channels).
        mode: "L" or "RGB".

    Raises:
        ValueError: if it is no such image, or has more than 8 bits a channel.
    """
    if isinstance(image, str | PathLike) or (isinstance(image, Mapping) and {*image} == {"bytes", "path"}):
        raise ValueError(
            f"An image was expected, and this is an undecoded file ({type(image).__name__}). Let datasets decode it:"
            " dataset.cast_column(column, Image())."
        )
    if not isinstance(image, Image.Image):
        try:
            pixels = np.asarray(image)
        except ValueError:  # lists of unequal length
            pixels = np.empty(0)
        if not (pixels.ndim in (2, 3) and pixels.size and pixels.dtype.kind in "iu" and pixels.min() >= 0):
            shape = f"{pixels.dtype} of shape {pixels.shape}" if pixels.size else type(image).__name__
            raise ValueError(
                f"An image was expected, and this is {shape}. Give images of Pillow (the Image feature of"
                " datasets), or whole numbers from 0 to 255 of shape (height, width) or (height, width, channels)."
            )
        if pixels.max() > 255 or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
            raise ValueError(
                f"An image of shape {pixels.shape} with values up to {pixels.max()} was found; expected are 8 bits"
                " (0 to 255) and 1, 3 or 4 channels at the end."
            )
        image = Image.fromarray(pixels.astype(np.uint8).squeeze(2) if pixels.shape[2:] == (1,) else pixels.astype("u1"))
    if image.mode.split(";")[0] in DEEP_MODES:
        raise ValueError(
            f"An image of mode {image.mode} has more than 8 bits a channel. Scale it to 8 bits first: the library"
            " cannot know which part of its range counts."
        )
    return image.convert(mode)


def channels_of(processing_class: BaseImageProcessor) -> int:
    """Return the number of channels that the processor normalises, or 3 if it tells none."""
    mean = getattr(processing_class, "image_mean", None)
    normalises = getattr(processing_class, "do_normalize", False) and isinstance(mean, list | tuple)
    return len(mean) if normalises and mean is not None else 3
