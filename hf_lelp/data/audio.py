"""Converts a dataset's sounds into a model's inputs, however they were stored."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import SequenceFeatureExtractor


def process_audio(
    processing_class: SequenceFeatureExtractor, sounds: Sequence[Any], max_length: int | None
) -> dict[str, list[Any]]:
    """Return the extractor's outputs for sounds of any kind, one entry per sound.

    They are padded only if the extractor itself does so.

    Args:
        processing_class: has the sampling rate that the model was made for.
        sounds: see `to_samples`.
        max_length: samples after which a sound is cut.

    Raises:
        ValueError: see `to_samples`.
    """
    rate = int(processing_class.sampling_rate)
    samples = [to_samples(sound, rate)[:max_length] for sound in sounds]
    encoded = processing_class(samples, sampling_rate=rate)  # type: ignore[operator]
    return {name: [np.asarray(value) for value in values] for name, values in encoded.items()}


def to_samples(sound: Any, sampling_rate: int) -> NDArray[np.float32]:
    """Return the samples of a sound, (n,), float32; several channels are averaged.

    Args:
        sound: what the Audio feature of datasets gives; or {"array", "sampling_rate"}; or samples alone, which are
            assumed to have the right rate. Samples are (n,), (channels, n) or (n, channels): the shorter axis is the
            channels.
        sampling_rate: the expected one, in Hz.

    Raises:
        ValueError: if it is no sound, has no samples, or has another sampling rate.
    """
    if isinstance(sound, Mapping) and "array" not in sound:
        raise ValueError(
            f"A sound was expected, and this has {', '.join(sound)}. An undecoded file must be decoded first:"
            " with Audio(decode=True) of datasets, which needs torchcodec, or to samples of your own."
        )
    # The AudioDecoder of datasets is no Mapping, but is read like one.
    decoded = isinstance(sound, Mapping) or type(sound).__name__ == "AudioDecoder"
    if decoded and sound["sampling_rate"] != sampling_rate:
        raise ValueError(
            f"A sound has {sound['sampling_rate']} samples a second, and the model was made for {sampling_rate}."
            f" Resample the data first: dataset.cast_column(column, Audio(sampling_rate={sampling_rate})) does so for"
            " an Audio column (it needs torchcodec)."
        )
    try:
        samples = np.asarray(sound["array"] if decoded else sound, dtype=np.float32)
    except (TypeError, ValueError):
        samples = np.empty((0, 0, 0), dtype=np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.ndim != 1 or not len(samples):
        raise ValueError(
            f"A sound was expected, and this is {type(sound).__name__}"
            f"{' without samples' if samples.ndim == 1 else ''}. Sounds are numbers, (samples,) or (channels, samples)."
        )
    return samples
