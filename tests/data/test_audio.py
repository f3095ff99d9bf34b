"""Sound of every kind becomes the same samples."""

import math
from typing import Any

import numpy as np
import pytest
import tiny_media

from hf_lelp.data.audio import process_audio, to_samples

WAVE = np.linspace(-1, 1, 50)
STEREO = np.stack([WAVE + 0.1, WAVE - 0.1])


class AudioDecoder:
    """Read like the decoder of datasets, which is no dictionary."""

    def __getitem__(self, key: str) -> Any:
        return {"array": WAVE, "sampling_rate": 8000}[key]


@pytest.mark.parametrize(
    "sound",
    [
        WAVE,
        WAVE.tolist(),
        {"array": WAVE, "sampling_rate": 8000},
        {"array": WAVE.tolist(), "sampling_rate": 8000, "path": None},
        STEREO,
        STEREO.T.tolist(),
        {"array": STEREO, "sampling_rate": 8000},
        WAVE[None],
        AudioDecoder(),
    ],
)
def test_sound_in_any_form_is_one_channel_of_samples(sound: Any) -> None:
    samples = to_samples(sound, 8000)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, WAVE, atol=1e-6)


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (
            {"array": WAVE, "sampling_rate": 44100},
            "has 44100 samples a second, and the model was made for 8000. Resample",
        ),
        ({"bytes": b"RIFF", "path": "a.wav"}, "this has bytes, path. An undecoded file must be decoded first"),
        ([], "this is list without samples"),
        (None, "this is NoneType"),
        ("a.wav", "this is str"),
        (np.zeros((2, 3, 4)), "this is ndarray"),
        (np.where(WAVE > 0.9, np.nan, WAVE), "samples that are not finite"),
        ({"array": [0.1, math.inf], "sampling_rate": 8000}, "samples that are not finite"),
        ([0.1, None], "samples that are not finite"),
        (np.arange(0, 256, 5, dtype=np.uint8), "type uint8 from 0 to 255; expected are fractions from −1 to 1"),
        (list(range(0, 256, 5)), "type int64 from 0 to 255"),
        ((WAVE * 2**31).astype(np.int64), "whole numbers of 16 bits with a sign. Scale it first"),
        (WAVE * 32767, "type float64 from -32767 to 32767"),
    ],
)
def test_what_is_no_sound_is_refused(sound: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_samples(sound, 8000)


@pytest.mark.parametrize("form", [np.int16, np.int64, list])
def test_whole_numbers_are_samples_of_16_bits(form: Any) -> None:
    pcm = (WAVE * 32767).astype(np.int16)
    sound = pcm.tolist() if form is list else pcm.astype(form)
    np.testing.assert_allclose(to_samples({"array": sound, "sampling_rate": 8000}, 8000), WAVE, atol=1e-4)
    np.testing.assert_array_equal(to_samples([0] * 50, 8000), np.zeros(50))  # silence


def test_sounds_are_cut_and_not_padded() -> None:
    encoded = process_audio(tiny_media.wave_extractor(), [WAVE, np.tile(WAVE, 3)], 70)
    assert [len(values) for values in encoded["input_values"]] == [50, 70]
    assert [len(values) for values in encoded["attention_mask"]] == [50, 70]


def test_an_extractor_with_frames_of_its_own() -> None:
    encoded = process_audio(tiny_media.spectrogram_extractor(), tiny_media.sounds(2), None)
    assert [values.shape for values in encoded["input_values"]] == [(32, 16)] * 2
