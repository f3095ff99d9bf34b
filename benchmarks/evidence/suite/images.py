"""Image data of the benchmark: Fashion-MNIST, and pairs of its images.

Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747; MIT licence) comes from the Debian package
`dataset-fashion-mnist`, of which each file's sha256 is checked.
"""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence.suite.debian import debian_files

FILES = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
MEAN, DEVIATION = 0.2860, 0.3530  # of the training images' pixels, from 0 to 1


class Images(NamedTuple):
    """Grey images, (N, H, W), uint8, and their classes, (N,), int64."""

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]


def fashion_mnist(folder: Path) -> tuple[Images, Images]:
    """The 60,000 training and 10,000 test images, fetched unless they lie in `folder`."""
    debian_files("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist", FILES, folder)
    return _read(folder, "train"), _read(folder, "t10k")


def pairs(images: Images, classes: int, rows: int, seed: int) -> Images:
    """Pairs of images side by side, drawn with replacement; equally many of each pair of classes, in expectation.

    Args:
        images: to draw from.
        classes: K; only images of the classes 0 to K − 1 are drawn.
        rows: N.
        seed: of the draws.

    Returns:
        Images twice as wide, of the classes K · left + right.
    """
    rng = np.random.default_rng(seed)
    of_class = [np.flatnonzero(images.classes == index) for index in range(classes)]
    drawn = rng.integers(classes, size=(rows, 2))
    places = np.array([[rng.choice(of_class[side]) for side in pair] for pair in drawn])
    sides = [images.pixels[places[:, side]] for side in (0, 1)]
    return Images(np.concatenate(sides, axis=2), drawn @ np.array([classes, 1]))


def balanced_labels(classes: int, seed: int, num_labels: int = 2) -> NDArray[np.int64]:
    """A random label for each of `classes` fine classes; each label is that of as many, or of one more."""
    return np.random.default_rng(seed).permutation(np.arange(classes) % num_labels)


def normalised(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images, (N, H, W), as a model's `pixel_values`, (N, 1, H, W)."""
    return ((pixels[:, None].astype(np.float32) / 255 - MEAN) / DEVIATION).astype(np.float32)


def _read(folder: Path, part: str) -> Images:
    pixels, classes = (_read_idx(folder / f"{part}-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    return Images(pixels, classes.astype(np.int64))


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An array from a file of MNIST's format: two zero bytes, type 8, number of axes, sizes, values."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
