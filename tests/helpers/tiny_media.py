"""Tiny real classifiers of images and of sound, what prepares their inputs, and data that they know."""

from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from tiny import LABEL_NAMES, named
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    BaseImageProcessor,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    SequenceFeatureExtractor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from hf_lelp.classifiers import find_heads
from hf_lelp.data.encoding import Processor, encode, pad

RATE = 8000


def image_processor(size: int = 24, mean: float = 0.5, channels: int = 3) -> BaseImageProcessor:
    """A square of `size` pixels, normalised by `mean` and 0.25."""
    return ViTImageProcessor(
        size={"height": size, "width": size}, image_mean=[mean] * channels, image_std=[0.25] * channels
    )


def cnn(channels: int = 3, seed: int = 0) -> PreTrainedModel:
    """A ResNet of two stages."""
    torch.manual_seed(seed)
    config = ResNetConfig(
        num_channels=channels, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2
    )
    return balanced(ResNetForImageClassification(config), image_processor(channels=channels), pictures(32, seed=9))


def vit(size: int = 16, seed: int = 3) -> PreTrainedModel:
    """A vision transformer of one layer for images of `size` pixels."""
    torch.manual_seed(seed)
    return ViTForImageClassification(
        ViTConfig(
            image_size=size,
            patch_size=8,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=2,
            initializer_range=0.3,
        )
    )


def pictures(rows: int, *, seed: int = 0, modes: tuple[str, ...] = ("RGB",), size: int = 20) -> list[Pillow.Image]:
    """Blurred noise in colour, grey or with an alpha channel, by turns."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (rows, 4, 4, 4)).astype(np.uint8)
    large = [Pillow.fromarray(pixels, "RGBA").resize((size, size), Pillow.Resampling.BILINEAR) for pixels in noise]
    return [picture.convert(modes[row % len(modes)]) for row, picture in enumerate(large)]


def wav2vec2(seed: int = 0) -> PreTrainedModel:
    """A speech model of one layer that reads samples."""
    torch.manual_seed(seed)
    model = Wav2Vec2ForSequenceClassification(
        Wav2Vec2Config(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(8, 8),
            conv_stride=(5, 4),
            conv_kernel=(10, 8),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
            feat_extract_norm="layer",
            initializer_range=0.3,
            num_labels=2,
        )
    )
    return balanced(model, wave_extractor(), sounds(32, seed=9))


def ast(seed: int = 3) -> PreTrainedModel:
    """A spectrogram model of one layer."""
    torch.manual_seed(seed)
    model = ASTForAudioClassification(
        ASTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            patch_size=8,
            frequency_stride=8,
            time_stride=8,
            max_length=32,
            num_mel_bins=16,
            num_labels=2,
        )
    )
    return balanced(model, spectrogram_extractor(), sounds(32, seed=9))


def wave_extractor(rate: int = RATE) -> SequenceFeatureExtractor:
    return Wav2Vec2FeatureExtractor(sampling_rate=rate, return_attention_mask=True)


def spectrogram_extractor(rate: int = RATE) -> SequenceFeatureExtractor:
    return ASTFeatureExtractor(sampling_rate=rate, num_mel_bins=16, max_length=32)


def sounds(rows: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Tones of other pitches and lengths, with noise."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        time = np.arange(generator.integers(1000, 2500)) / RATE
        tone = np.sin(2 * np.pi * generator.uniform(100, 2000) * time) + 0.1 * generator.normal(size=len(time))
        made.append({"array": tone.astype(np.float32), "sampling_rate": RATE})
    return made


@torch.inference_mode()
def balanced(model: PreTrainedModel, processing_class: Processor, content: list[Any]) -> PreTrainedModel:
    """The model with names for its classes and a final layer that gives each to half of the content."""
    ((_, head),) = find_heads(model.eval(), 2).items()
    torch.nn.init.normal_(head.weight, std=1.0)
    inputs = pad(processing_class, encode(processing_class, {"x": content}, ["x"], None))
    head.bias[0] += (model(**inputs).logits[:, 1] - model(**inputs).logits[:, 0]).median()
    return named(model)


def image_data(teacher: Any, rows: int = 64, *, seed: int = 0, **kinds: Any) -> Dataset:
    """Pictures with the class that the teacher gives them."""
    content = pictures(rows, seed=seed, **kinds)
    features = Features({"img": Image(), "label": ClassLabel(names=LABEL_NAMES)})
    return Dataset.from_dict({"img": content, "label": _classes(teacher, content)}, features=features)


def audio_data(teacher: Any, rows: int = 48, *, seed: int = 0) -> Dataset:
    """Sounds, as arrays with their rate, with the class that the teacher gives them."""
    content = sounds(rows, seed=seed)
    data = Dataset.from_dict({"audio": content, "label": _classes(teacher, content)})
    return data.cast_column("label", ClassLabel(names=LABEL_NAMES)).add_column("id", list(range(rows)))


def _classes(teacher: Any, content: list[Any]) -> list[int]:
    classes: list[int] = teacher({teacher.input_columns[0]: content})["teacher_logits"].argmax(-1).tolist()
    return classes
