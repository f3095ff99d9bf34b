"""A row's answer does not depend on the rows beside it, whichever side is padded and whatever model sees padding."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import tiny_media
import torch
from transformers import FNetConfig, FNetForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from hf_lelp import LELPTrainer, Teacher
from hf_lelp.padding import padding_effect, warn_once, with_fitting_side

KINDS = ("bert", "gpt2", "llama")


@pytest.fixture(autouse=True)
def warnings_anew() -> None:
    warn_once.cache_clear()


def padded_on(side: str, kind: str) -> PreTrainedTokenizerFast:
    words = tiny.tokenizer(kind)
    words.padding_side = side
    return words


def fnet() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model without an attention mask: it mixes in all tokens, padding too."""
    torch.manual_seed(0)
    config = FNetConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, intermediate_size=32, pad_token_id=1)
    config.initializer_range, config.tpu_short_seq_length = 0.5, 64
    words = tiny.tokenizer()
    words.model_input_names = ["input_ids", "token_type_ids"]
    return tiny.named(FNetForSequenceClassification(config).eval()), words


def group_normed() -> PreTrainedModel:
    """A speech model whose norm goes over a whole sound, padding too."""
    config = tiny_media.wav2vec2().config
    config.feat_extract_norm = "group"
    torch.manual_seed(0)
    return type(tiny_media.wav2vec2())(config).eval()


def together_and_alone(guide: Teacher, content: list[Any]) -> tuple[Any, Any]:
    (column,) = guide.input_columns
    alone = [guide({column: [value]})["teacher_embedding"] for value in content]
    return guide({column: content})["teacher_embedding"], np.concatenate(alone)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_change_no_text(kind: str, side: str) -> None:
    words = padded_on(side, kind)
    guide = Teacher(tiny.classifier(kind, seed=3), words)
    np.testing.assert_allclose(*together_and_alone(guide, tiny.texts(24, seed=1)), atol=1e-5)
    assert words.padding_side == side
    # The columns of a mended side are those of the right side, and not those that were made with the wrong one.
    right = Teacher(tiny.classifier(kind, seed=3), padded_on("right", kind))
    assert (guide.fingerprint == right.fingerprint) == (side == "right" or kind != "llama")


@pytest.mark.parametrize("first", [1, 24])
def test_a_text_model_that_sees_padding_reads_texts_of_one_length(first: int, caplog: pytest.LogCaptureFixture) -> None:
    model, words = fnet()
    assert padding_effect(words, model) > 0.01
    guide, content = Teacher(model, words, batch_size=8), tiny.texts(24, seed=1)
    with caplog.at_level(logging.WARNING):
        guide({"text": content[:first]})
    assert "FNetForSequenceClassification sees padding: it changes the logits by up to" in caplog.text
    np.testing.assert_allclose(*together_and_alone(guide, content), atol=1e-5)


def test_a_sound_model_that_sees_padding_reads_sounds_of_one_length(caplog: pytest.LogCaptureFixture) -> None:
    extractor = tiny_media.wave_extractor()
    guide = Teacher(group_normed(), extractor, input_columns=["audio"])
    content = [sound["array"][:1000] for sound in tiny_media.sounds(4)]
    guide({"audio": content})  # of one length: nothing is padded
    assert not caplog.text
    content = [sound["array"] for sound in tiny_media.sounds(6)]
    np.testing.assert_allclose(*together_and_alone(guide, content), atol=1e-5)
    assert "Wav2Vec2ForSequenceClassification sees padding" in caplog.text
    assert padding_effect(extractor, guide.model) > 0.01 > 0.001 > padding_effect(extractor, tiny_media.wav2vec2())


def test_images_are_not_padded() -> None:
    assert padding_effect(tiny_media.image_processor(16), tiny_media.vit()) == 0
    processor = tiny_media.image_processor()
    assert with_fitting_side(processor, tiny_media.cnn()) is processor


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_student_is_trained_and_saved_with_the_side_that_it_can_take(kind: str, tmp_path: Path) -> None:
    found = {}
    for side in ("left", "right"):
        words = padded_on(side, kind)
        args = runs.config(tmp_path / side)
        run = runs.trainer(args, kind, model=runs.student(kind, dropout=False), processing_class=words)
        run.train()
        found[side] = runs.losses(run)
        assert words.padding_side == side and run.processing_class.padding_side == "right"
        assert (run.processing_class is words) == (side == "right")
        run.save_model()
        saved = PreTrainedTokenizerFast.from_pretrained(args.output_dir)
        assert saved.padding_side == "right"
    assert found["left"] == found["right"]


def test_a_student_that_sees_padding_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, words = fnet()
    LELPTrainer(
        model,
        runs.config(tmp_path),
        train_dataset=runs.data(),
        processing_class=words,
        teacher_model=runs.teacher(),
    ).train()
    assert "FNetForSequenceClassification, the student, sees padding" in caplog.text


def test_a_model_whose_weights_are_elsewhere_is_not_asked() -> None:
    with torch.device("meta"):
        model = tiny.classifier("gpt2")
    assert padding_effect(padded_on("left", "bert"), model) == 0
