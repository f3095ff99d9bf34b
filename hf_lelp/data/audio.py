"""Converts a dataset's sounds into a model's inputs, however they were stored."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import SequenceFeatureExtractor

PCM_RANGE = 2**15  # of samples of 16 bits
LONGEST_WINDOW = 2**16  # in samples
LOUDEST = 100.0  # standardised samples may go far beyond 1, but not so far


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


def fewest_samples(model: Any) -> int | None:
    """Return how many samples a model needs; `None` where it reads none, or does not tell.

    Below that number its convolutions give no frame. A batch then fails; or, beside longer sounds, the row is NaN.
    """
    frames = getattr(model, "_get_feat_extract_output_lengths", None)
    if frames is None or getattr(model, "main_input_name", None) != "input_values":
        return None
    return int((frames(torch.arange(LONGEST_WINDOW)) >= 1).int().argmax())


def check_samples(sounds: Sequence[NDArray[Any]], fewest: int | None) -> None:
    """Refuse sounds that are too short for a model.

    Args:
        sounds: input of each row of a batch, (n,).
        fewest: see `fewest_samples`.

    Raises:
        ValueError: naming the first row with too few samples.
    """
    short = [row for row, sound in enumerate(sounds) if fewest is not None and len(sound) < fewest]
    if short:
        raise ValueError(
            f"Row {short[0]} of a batch has {len(sounds[short[0]])} samples, and the student's model needs {fewest} or"
            " more for an answer. Drop the row, or pad its sound with silence."
        )


def to_samples(sound: Any, sampling_rate: int) -> NDArray[np.float32]:
    """Return the samples of a sound, (n,), float32; several channels are averaged.

    Args:
        sound: what the Audio feature of datasets gives; or {"array", "sampling_rate"}; or samples alone, which are
            assumed to have the right rate. Samples are (n,), (channels, n) or (n, channels): the shorter axis is the
            channels.
        sampling_rate: the expected one, in Hz.

    Whole numbers are samples of 16 bits (PCM), and become fractions from −1 to 1.

    Raises:
        ValueError: if it is no sound, has no samples, or has another sampling rate; or if its samples are not finite,
            or of a unit that is unknown.
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
        given = np.asarray(sound["array"] if decoded else sound)
        samples = given.astype(np.float32)
    except (TypeError, ValueError):
        given = samples = np.empty((0, 0, 0), dtype=np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.ndim != 1 or not len(samples):
        raise ValueError(
            f"A sound was expected, and this is {type(sound).__name__}"
            f"{' without samples' if samples.ndim == 1 else ''}. Sounds are numbers, (samples,) or (channels, samples)."
        )
    return samples * _unit(given)


def _unit(samples: NDArray[Any]) -> np.float32:
    """Return what samples are multiplied by to go from −1 to 1: 1 for fractions, 2⁻¹⁵ for whole numbers of 16 bits."""
    loudest = float(np.abs(samples.astype(np.float64)).max())
    if not np.isfinite(loudest):
        raise ValueError("A sound has samples that are not finite (NaN or infinite). Repair or drop it.")
    whole = samples.dtype.kind in "iu"
    unsigned = samples.dtype.kind == "u" or (loudest > 1 and samples.min() >= 0)
    if (unsigned or loudest > PCM_RANGE) if whole else loudest > LOUDEST:
        raise ValueError(
            f"A sound has samples of type {samples.dtype} from {samples.min():g} to {samples.max():g}; expected are"
            " fractions from −1 to 1, or whole numbers of 16 bits with a sign. Scale it first: divide by the largest"
            " value that the format can hold."
        )
    return np.float32(1 / PCM_RANGE if whole else 1)
