"""Images and sounds that cannot be read are refused with their row, by the teacher and by the student."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
from datasets import ClassLabel, Dataset, Image

from hf_lelp import LELPTrainer, Teacher

BAD = 40


def image_teacher() -> Teacher:
    return Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])


def jpegs() -> Dataset:
    """Files, of which one is cut short."""
    good = tiny_media.image_data(image_teacher())
    files = []
    for row, picture in enumerate(good["img"]):
        content = io.BytesIO()
        picture.save(content, "JPEG")
        files.append({"bytes": content.getvalue()[: 200 if row == BAD else None], "path": None})
    return Dataset.from_dict({"img": files, "label": good["label"]}, features=good.features)


def image_run(folder: Path, train: Dataset, resize: bool = True, **settings: Any) -> LELPTrainer:
    processor = tiny_media.image_processor(16)
    processor.do_resize = resize
    return LELPTrainer(
        model=tiny_media.vit(),
        args=runs.config(folder, check_teacher=False, **settings),
        train_dataset=train,
        processing_class=processor,
        teacher_model=image_teacher(),
    )


def sounds(change: Any, rows: int = 48) -> Dataset:
    """Sounds of which one is changed, with a text beside each."""
    content = tiny_media.sounds(rows)
    content[BAD]["array"] = change(content[BAD]["array"])
    texts = runs.data(rows)
    data = Dataset.from_dict({"audio": content, "text": texts["text"][:], "label": texts["label"][:]})
    return data.cast_column("label", ClassLabel(names=tiny.LABEL_NAMES))


def with_nan(samples: Any) -> Any:
    return np.where(np.arange(len(samples)) == 100, np.nan, samples).astype(np.float32)


@pytest.mark.parametrize("settings", [{}, {"remove_unused_columns": False}])
def test_an_image_that_is_cut_short(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"Row {BAD} of the dataset: it cannot be read"):
        image_run(tmp_path, jpegs(), **settings)
    with pytest.raises(ValueError, match=f"Row {BAD} of the dataset cannot be read: "):
        image_run(tmp_path, jpegs(), alpha=1.0, **settings).train()
    run = image_run(tmp_path, tiny_media.image_data(image_teacher()), **settings)
    for ask in (run.evaluate, run.predict):
        with pytest.raises(ValueError, match=f"Row {BAD} of the dataset cannot be read: "):
            ask(jpegs())


def test_images_that_the_student_s_processor_leaves_of_different_sizes(tmp_path: Path) -> None:
    pictures = [picture.resize((16, 16 + (row == BAD))) for row, picture in enumerate(tiny_media.pictures(64))]
    good = tiny_media.image_data(image_teacher())
    data = Dataset.from_dict({"img": pictures, "label": good["label"]}, features=good.features)
    with pytest.raises(
        ValueError, match=r"of the dataset has inputs of the shapes .*, and row .*Give the student's processor a size"
    ):
        image_run(tmp_path, data, resize=False, max_steps=8).train()
    even = data.select([row for row in range(64) if row != BAD])
    image_run(tmp_path, even, resize=False).train()


def test_undecoded_images(tmp_path: Path) -> None:
    data = tiny_media.image_data(image_teacher()).cast_column("img", Image(decode=False))
    with pytest.raises(ValueError, match=r"Row 0 of the dataset: Column 'img': .* undecoded file .dict."):
        image_run(tmp_path, data, input_columns=["img"])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (with_nan, "samples that are not finite"),
        (lambda samples: samples[:0], "without samples"),
        (lambda samples: samples * 32767, "expected are fractions from −1 to 1"),
    ],
)
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_a_sound_that_is_none(change: Any, found: str, side: str, tmp_path: Path) -> None:
    if side == "teacher":
        guide = Teacher(tiny_media.wav2vec2(), tiny_media.wave_extractor(), input_columns=["audio"])
        with pytest.raises(ValueError, match=f"Row {BAD} of the dataset: Column 'audio': .*{found}"):
            sound_run(tmp_path, sounds(change), guide)
        return
    run = sound_run(tmp_path, sounds(change), runs.teacher(), max_steps=3)
    with pytest.raises(ValueError, match=f"Row {BAD} of the dataset cannot be read: Column 'audio': .*{found}"):
        run.train()


@pytest.mark.parametrize("kind", ["waves", "spectrograms"])
def test_a_sound_shorter_than_the_teacher_s_window(kind: str, tmp_path: Path) -> None:
    model, extractor = (
        (tiny_media.wav2vec2(), tiny_media.wave_extractor())
        if kind == "waves"
        else (tiny_media.ast(), tiny_media.spectrogram_extractor())
    )
    guide = Teacher(model, extractor, input_columns=["audio"], batch_size=1)
    with pytest.raises(ValueError, match=f"Row {BAD} of the dataset: .*"):
        sound_run(tmp_path, sounds(lambda samples: samples[:5]), guide)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_sound_shorter_than_the_student_s_window(streamed: bool, tmp_path: Path) -> None:
    data = sounds(lambda samples: samples[:25]).select_columns(["audio", "label"])
    run = LELPTrainer(
        model=tiny_media.wav2vec2(),
        args=runs.config(tmp_path, alpha=1, input_columns=["audio"], max_steps=12),
        train_dataset=data.to_iterable_dataset() if streamed else data,
        eval_dataset=data,
        processing_class=tiny_media.wave_extractor(),
    )
    named = "Rows 0 to .* of the dataset" if streamed else f"Row {BAD} of the dataset cannot be read"
    for go in (run.train, *(() if streamed else (run.evaluate,))):
        with pytest.raises(
            ValueError, match=f"{named}: Row .* of a batch has 25 samples, and the student's model needs 45"
        ):
            go()


def sound_run(folder: Path, data: Dataset, guide: Teacher, **settings: Any) -> LELPTrainer:
    return LELPTrainer(
        model=tiny_media.ast(),
        args=runs.config(folder, check_teacher=False, input_columns=["audio"], **settings),
        train_dataset=data,
        processing_class=tiny_media.spectrogram_extractor(),
        teacher_model=guide,
    )
