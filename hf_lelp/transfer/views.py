"""Makes altered copies of rows, for teacher and student alike: the teacher says what it thinks of each."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xxhash
from PIL import Image

from hf_lelp.data.images import DEEP_MODES

RATE = 0.2  # of the words that are deleted or masked
SHARE = (0.5, 0.9)  # of the words, or of each side of an image, that a crop keeps
TEXT_KINDS, IMAGE_KINDS = ("delete", "crop", "mask"), ("crop", "flip", "mix")

View = Callable[[Any, np.random.Generator], Any]


def views_of_text(text: str, kinds: Sequence[str], count: int, seed: int, mask_token: str | None) -> list[str]:
    """Make altered copies of a text. The text and the seed determine them, whatever dataset the text stands in.

    Args:
        text: of any length; its copies are cut by the tokenizer as it is.
        kinds: of `TEXT_KINDS`, in turn. "delete" drops each word with a probability of 0.2, "mask" puts the mask token
            in its place, and "crop" keeps half to nine tenths of the words, one after the other.
        count: of the copies.
        seed: of all choices.
        mask_token: that teacher and student know; needed for "mask" alone.

    Returns:
        At most `count` copies: those that are equal to the text, empty or alike are left out.
    """
    makers: dict[str, View] = {
        "delete": lambda words, rng: [
            word for word, dropped in zip(words, _chosen(words, rng), strict=True) if not dropped
        ],
        "mask": lambda words, rng: [
            mask_token if masked else word for word, masked in zip(words, _chosen(words, rng), strict=True)
        ],
        "crop": _span,
    }
    words, views = text.split(), []
    for place in range(count):
        rng = _generator(text.encode("utf-8", "replace"), seed, place)
        views.append(" ".join(makers[kinds[place % len(kinds)]](words, rng)))
    return [view for view in dict.fromkeys(views) if view and view != " ".join(words)]


def views_of_image(
    image: Image.Image, others: Sequence[Image.Image], kinds: Sequence[str], count: int, seed: int
) -> list[Image.Image]:
    """Make altered copies of an image, of its size and mode.

    Args:
        image: the row's.
        others: images to mix it with; without any "mix" gives nothing.
        kinds: of `IMAGE_KINDS`, in turn. "crop" enlarges a part of half to nine tenths of each side, "flip" mirrors
            left and right, and "mix" lays another image over it with a weight below a half.
        count: of the copies.
        seed: of all choices.

    Returns:
        At most `count` copies: those that are equal to the image or alike are left out.
    """
    image = image.convert("RGB") if image.mode in ("P", "1") else image  # of colours that can be mixed
    makers: dict[str, View] = {
        "crop": _part,
        "flip": lambda whole, rng: whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "mix": lambda whole, rng: _mixed(whole, others, rng),
    }
    seen, views = {image.tobytes()}, []
    for place in range(count):
        rng = _generator(image.tobytes(), seed, place)
        view = makers[kinds[place % len(kinds)]](image, rng)
        if view.tobytes() not in seen:
            seen.add(view.tobytes())
            views.append(view)
    return views


def can_be_altered(image: Image.Image | None) -> bool:
    """Tell whether an image is there, of a mode that views can be made of: no more than 8 bits a channel."""
    return image is not None and image.mode.split(";")[0] not in DEEP_MODES


def _generator(content: bytes, seed: int, place: int) -> np.random.Generator:
    return np.random.default_rng([seed, place, xxhash.xxh3_64_intdigest(content)])


def _chosen(words: Sequence[str], rng: np.random.Generator) -> Any:
    return rng.random(len(words)) < RATE


def _span(words: Sequence[str], rng: np.random.Generator) -> Sequence[str]:
    kept = round(rng.uniform(*SHARE) * len(words))
    start = int(rng.integers(len(words) - kept + 1))
    return words[start : start + kept]


def _part(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(*SHARE)
    width, height = (max(round(share * side), 1) for side in image.size)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height)).resize(image.size)


def _mixed(image: Image.Image, others: Sequence[Image.Image], rng: np.random.Generator) -> Image.Image:
    if not others:
        return image
    other = others[int(rng.integers(len(others)))]
    return Image.blend(image, other.convert(image.mode).resize(image.size), rng.uniform(0.1, 0.5))
