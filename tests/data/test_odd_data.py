"""Rows that real data has somewhere: nothing crashes, and no row is dropped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
from datasets import ClassLabel, Dataset, Features, Image

from hf_lelp import LELPTrainer, Teacher

ODD_TEXTS = ["", " ", "good", "good " * 500, "\n\t", "unknownword " * 3, "é漢字🙂", "\u0000", "bad."]
SIDES = ["bert", "gpt2", "llama"]


def odd_texts() -> Dataset:
    """Every odd text among plain ones."""
    plain = runs.data(48)
    odd = Dataset.from_dict({"text": ODD_TEXTS, "label": [row % 2 for row in range(len(ODD_TEXTS))]})
    rows = [*plain.select(range(24)), *odd, *plain.select(range(24, 48))]
    return Dataset.from_list(rows).cast_column("label", ClassLabel(names=tiny.LABEL_NAMES))


@pytest.mark.parametrize("student", SIDES)
@pytest.mark.parametrize("guide", SIDES)
def test_empty_one_token_and_overlong_texts(guide: str, student: str, tmp_path: Path) -> None:
    data = odd_texts()
    run = runs.trainer(
        runs.config(tmp_path, check_teacher=False),
        student,
        train_dataset=data,
        eval_dataset=data,
        teacher_model=runs.teacher_model(guide),
        teacher_processing_class=tiny.tokenizer(guide),
    )
    assert len(run.train_dataset) == len(data)
    assert max(map(len, run.train_dataset["input_ids"])) == 64
    for column in ("teacher_logits", "teacher_projections"):
        assert np.isfinite(run.train_dataset[:][column]).all()
    run.train()
    prediction = run.predict(data)
    assert prediction.predictions.shape == (len(data), 2) and np.isfinite(prediction.predictions).all()
    assert prediction.label_ids.tolist() == list(data["label"])


@pytest.mark.parametrize("kind", SIDES)
def test_an_odd_text_is_not_changed_by_its_neighbours(kind: str) -> None:
    guide = runs.teacher(kind)
    together = guide({"text": [*ODD_TEXTS, *tiny.texts(9)]})["teacher_logits"][: len(ODD_TEXTS)]
    alone = np.concatenate([guide({"text": [text]})["teacher_logits"] for text in ODD_TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_images_of_all_modes_and_sizes(tmp_path: Path) -> None:
    modes = ("RGB", "L", "RGBA", "P", "1", "LA", "CMYK")
    guide = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])
    pictures = tiny_media.pictures(42, modes=modes)
    pictures += [*tiny_media.pictures(3, size=1), *tiny_media.pictures(3, size=300), pictures[0].resize((200, 3))]
    labels = guide({"img": pictures})["teacher_logits"].argmax(-1).tolist()
    features = Features({"img": Image(), "label": ClassLabel(names=tiny.LABEL_NAMES)})
    # CMYK has no PNG, as which datasets stores images.
    stored = [picture.convert("RGB") if picture.mode == "CMYK" else picture for picture in pictures]
    data = Dataset.from_dict({"img": stored, "label": labels}, features=features)
    assert len({image.mode for image in data["img"]}) >= 5
    run = LELPTrainer(
        tiny_media.vit(),
        runs.config(tmp_path),
        train_dataset=data,
        eval_dataset=data,
        processing_class=tiny_media.image_processor(16),
        teacher_model=guide,
    )
    run.train()
    predictions = run.predict(data).predictions
    assert predictions.shape == (len(data), 2) and np.isfinite(predictions).all()


def test_stereo_and_short_sounds(tmp_path: Path) -> None:
    guide = Teacher(tiny_media.wav2vec2(), tiny_media.wave_extractor(), input_columns=["audio"])
    mono = [sound["array"] for sound in tiny_media.sounds(24)]
    stereo = [np.stack([sound + 0.2, sound - 0.2]) for sound in mono]
    columns = guide({"audio": stereo})
    np.testing.assert_allclose(columns["teacher_logits"], guide({"audio": mono})["teacher_logits"], atol=1e-3)

    content: list[Any] = [*(sound.tolist() for sound in stereo), [[0.0] * 400, [0.1] * 400]]
    labels = guide({"audio": content})["teacher_logits"].argmax(-1).tolist()
    data = Dataset.from_dict({"audio": content, "label": labels})
    run = LELPTrainer(
        tiny_media.ast(),
        runs.config(tmp_path, input_columns=["audio"], learning_rate=1e-3),
        train_dataset=data,
        eval_dataset=data,
        processing_class=tiny_media.spectrogram_extractor(),
        teacher_model=guide,
    )
    run.train()
    predictions = run.predict(data).predictions
    assert predictions.shape == (len(data), 2) and np.isfinite(predictions).all()
