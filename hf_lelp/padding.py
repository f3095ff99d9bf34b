"""Measures whether a model sees padding, and finds the side of it that the model can take.

A row's answer must not depend on the rows beside it. It does where padding moves the positions of a text's tokens
(GPT-2 or BERT, padded on the left), and in models that read padding by design (FNet, Wav2Vec2 with group norm).
"""

import copy
import inspect
import logging
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, SequenceFeatureExtractor

from hf_lelp.classifiers import logits_of, tolerance
from hf_lelp.data.encoding import Processor, encode, lengths_of, on_device, pad

WORDS = " ".join(["a", "good", "film", "and", "the", "best", "of", "all"])

warn_once = cache(logging.getLogger(__name__).warning)


def with_fitting_side(processing_class: Processor, model: Any) -> Processor:
    """Return the processor; or, where a model cannot take padding on the left, a copy that pads on the right.

    Args:
        processing_class: only a tokenizer has a side; any other processor comes back as it is.
        model: the classifier.
    """
    if not isinstance(processing_class, PreTrainedTokenizerBase) or processing_class.padding_side != "left":
        return processing_class
    other = copy.copy(processing_class)
    other.padding_side = "right"
    if not sees_padding(processing_class, model) or sees_padding(other, model):
        return processing_class
    warn_once(
        f"{type(model).__name__} counts the positions of padding, and its tokenizer pads on the left. Its texts are"
        " padded on the right here; the tokenizer given stays as it is."
    )
    return other


def tell_of_padding(processing_class: Processor, model: Any) -> None:
    """Warn, once, of a student whose answers depend on the rows beside a row."""
    if effect := sees_padding(processing_class, model):
        warn_once(
            f"{type(model).__name__}, the student, sees padding: it changes the logits by up to {effect:.1%} of the"
            " largest, so that a row's answer depends on the rows beside it. Batches of rows of like length"
            ' (train_sampling_strategy="group_by_length") lessen that.'
        )


def sees_padding(processing_class: Processor, model: Any) -> float:
    """Return `padding_effect`, or 0 where it is mere rounding."""
    effect = padding_effect(processing_class, model)
    return effect if effect > tolerance(model.dtype) else 0.0


def padding_effect(processing_class: Processor, model: Any) -> float:
    """Return how much a row's logits change by padding, as a share of the largest; 0 where nothing is padded.

    Args:
        processing_class: of the model. A text or noise is made for it.
        model: the classifier; unchanged. One whose weights are elsewhere (meta device, ZeRO) counts as 0.
    """
    if any(weight.is_meta or not weight.numel() for weight in model.parameters()):
        return 0.0
    rows: list[Any] = [WORDS, f"{WORDS} {WORDS}"]
    if isinstance(processing_class, SequenceFeatureExtractor):
        rate = int(processing_class.sampling_rate)
        noise = np.random.default_rng(0).normal(size=rate, scale=0.1)
        rows = [noise[: rate // 2], noise]
    elif not isinstance(processing_class, PreTrainedTokenizerBase):
        return 0.0
    encoded = encode(processing_class, {"x": rows}, ["x"], None)
    if len({*lengths_of(encoded)}) == 1:
        return 0.0
    parameters = inspect.signature(model.forward).parameters.values()
    takes_all = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    taken = encoded.keys() & (encoded.keys() if takes_all else {parameter.name for parameter in parameters})
    training = model.training
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            alone, together = (
                logits_of(model.eval()(**{name: on_device(inputs[name], model) for name in taken}))[0].float()
                for inputs in (
                    pad(processing_class, {name: values[:1] for name, values in encoded.items()}),
                    pad(processing_class, encoded),
                )
            )
    finally:
        model.train(training)
    return ((alone - together).abs().max() / alone.abs().max().clamp(min=1.0)).item()
