"""Any classifier of transformers: which Auto class loads it, what prepares its inputs, and its final linear layer.

With the layer replaced by an identity, the model's `outputs.logits` is the layer's input: the embedding, pooled by the
model's own code. No hook and no table of architectures is needed.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

# Up to 5.13 at least, `transformers` itself has it only beside torchvision, which is not needed.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from hf_lelp.data.encoding import Processor


def _flat(names: Iterable[str | Sequence[str]]) -> set[str]:
    return {name for entry in names for name in ((entry,) if isinstance(entry, str) else entry)}


# Which Auto class loads the model class of a name.
AUTO_CLASSES = {
    "AutoModelForSequenceClassification": _flat(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values()),
    "AutoModelForImageClassification": _flat(modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()),
    "AutoModelForAudioClassification": _flat(modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.values()),
    "AutoModelForVideoClassification": _flat(modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES.values()),
}


@dataclass(frozen=True)
class LinearHead:
    """The final linear layer of a teacher: z = h Wᵀ + b.

    Attributes:
        weight: W, (C, D), float32, on the CPU.
        bias: b, (C,), float32, on the CPU.
        fingerprint: of the teacher that it belongs to; goes into every artefact made from it.
    """

    weight: Tensor
    bias: Tensor
    fingerprint: str = ""


def find_heads(model: nn.Module, num_labels: int) -> dict[str, nn.Linear]:
    """The model's final linear layers by name: nearly always one, the last `nn.Linear` with one output per class.

    A few image models (DeiT, LeViT and SwiftFormer, themselves distilled from a teacher) average the outputs of two:
    those like the last one in shape that are not inside the base model. A square layer is none, but a hidden one.

    Args:
        model: a classifier.
        num_labels: C, its number of classes.

    Raises:
        ValueError: if the model has no such layer.
    """
    linears = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    heads = [(name, module) for name, module in linears if module.out_features == num_labels]
    if not heads:
        last = ", ".join(f"{name} ({module.out_features} outputs)" for name, module in linears[-3:]) or "none"
        raise ValueError(
            f"No final linear layer with {num_labels} outputs in {type(model).__name__}; its last ones: {last}."
            " LELP needs a classifier that ends in an nn.Linear with one output per class. Load the model with its"
            " classification class (AutoModelForSequenceClassification or the like) and the right num_labels."
        )
    name, final = heads.pop()
    inside = set(getattr(model, "base_model", model).modules())
    twins = [
        (other, module)
        for other, module in heads
        if module not in inside and module.in_features == final.in_features != num_labels
    ]
    return dict([*twins, (name, final)])


def joint_layer(heads: Iterable[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weight, (C, D), and bias, (C,) or `None`, of final layers as one layer on the embedding that `headless` gives."""
    heads = list(heads)
    biases: list[Tensor] = [head.bias for head in heads if head.bias is not None]
    weight = torch.cat([head.weight for head in heads], dim=1)
    return weight, torch.stack(biases).mean(0) if biases else None


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place called `name`, like "classifier" or "classifier.out_proj"."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


class _Slot(nn.Module):
    """Puts its input in a place of its own among zeros, so that averaging several keeps them apart."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.padding = (before, after)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.pad(input, self.padding)


@contextmanager
def headless(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Within the block the model's logits are the embedding, (N, D).

    With one final layer that is the layer's input. Of several, that the model averages, the inputs stand side by side,
    each multiplied as its output would be: D is then the sum of their sizes, and the layer to go with it `joint_layer`.

    Args:
        model: a classifier, changed within the block.
        names: of its final layers, as `find_heads` gives them.
    """
    heads = {name: model.get_submodule(name) for name in names}
    sizes = [head.in_features for head in heads.values() if isinstance(head, nn.Linear)]
    for position, name in enumerate(heads):
        slot = _Slot(sum(sizes[:position]), sum(sizes[position + 1 :]))
        replace_module(model, name, slot if len(heads) > 1 else nn.Identity())
    try:
        yield
    finally:
        for name, head in heads.items():
            replace_module(model, name, head)


def logits_of(outputs: Any) -> Tensor:
    """The logits among a model's outputs; a few models (PP-LCNet) return them first under another name."""
    return outputs["logits"] if isinstance(outputs, dict) and "logits" in outputs else outputs[0]


@torch.inference_mode()
def check_embedding(model: PreTrainedModel, names: Iterable[str], embedding: Tensor, inputs: dict[str, Tensor]) -> None:
    """Check that the final layer applied to `embedding` gives the logits of the whole model.

    A model that scales its logits after the last layer, or adds others to them, would otherwise distil wrongly without
    a word.

    Rows whose logits are not finite are left to who reads the results, who can tell which of the data's they are.

    Raises:
        ValueError: if the two differ by more than rounding.
    """
    names = list(names)
    logits = logits_of(model(**inputs))
    layers = [layer for name in names if isinstance(layer := model.get_submodule(name), nn.Linear)]
    # Not always joint_layer: a student's own head gives class logits, which are no linear map.
    rebuilt = layers[0](embedding) if len(layers) == 1 else nn.functional.linear(embedding, *joint_layer(layers))
    tolerance = 1e-3 if logits.dtype == torch.float32 else 5e-2
    worst = float("inf")
    if logits.shape == rebuilt.shape:
        finite = logits.isfinite().all(-1)
        if not finite.any():
            return
        logits, rebuilt = logits[finite], rebuilt[finite]
        worst = (logits - rebuilt).abs().max().item()
    if not worst <= tolerance * max(1.0, logits.abs().max().item()):
        raise ValueError(
            f"{type(model).__name__}: its layer {' and '.join(map(repr, names))} applied to the captured embedding does"
            f" not give the model's logits (shape {tuple(rebuilt.shape)} against {tuple(logits.shape)}, largest"
            f" difference {worst:.3g}). The model does more after its last linear layer; LELP cannot use it as a"
            " teacher."
        )


def auto_class(config: Any) -> Any:
    """The Auto class that loads the architecture named in a classifier's configuration.

    Raises:
        ValueError: if the configuration belongs to no classification model.
    """
    classes = [getattr(transformers, name) for name in AUTO_CLASSES]
    own = [auto for auto in classes if type(config) in auto._model_mapping]
    if len(own) > 1:  # Perceiver: the configuration of several tasks
        named = [auto for auto in own if (config.architectures or [""])[0] in _names(auto._model_mapping[type(config)])]
        own = named or own
    remote = getattr(config, "auto_map", None) or {}
    found = own or [auto for auto in classes if auto.__name__ in remote]
    if found:
        return found[0]
    raise ValueError(
        f"No classification model for {type(config).__name__} ({config.model_type}). hf-lelp distils the models of"
        f" {', '.join(auto.__name__ for auto in classes)}."
    )


def _names(classes: Any) -> list[str]:
    return [model.__name__ for model in (classes if isinstance(classes, tuple) else (classes,))]


def check_weights(name_or_path: str, loading: Mapping[str, Any], advice: str = "") -> None:
    """Refuse a checkpoint that lacks weights of the model: they would be random.

    Args:
        name_or_path: of the checkpoint.
        loading: what `from_pretrained` tells of it, with `output_loading_info`.
        advice: what to do, for the message.

    Raises:
        ValueError: naming them.
    """
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(f"{name_or_path} has no weights for {', '.join(missing)}: they would be random.{advice}")


def load_processor(name_or_path: str, **hub: Any) -> Processor:
    """The tokenizer, image processor or feature extractor of a model, as its configuration asks.

    Args:
        name_or_path: folder or Hub id.
        **hub: for `from_pretrained` (revision, trust_remote_code, …).
    """
    name_or_path = os.path.expanduser(name_or_path)
    hub.setdefault("trust_remote_code", False)  # the default of transformers is to ask
    auto = auto_class(AutoConfig.from_pretrained(name_or_path, **hub))
    if auto is transformers.AutoModelForAudioClassification:
        return transformers.AutoFeatureExtractor.from_pretrained(name_or_path, **hub)
    if auto is transformers.AutoModelForSequenceClassification:
        return transformers.AutoTokenizer.from_pretrained(name_or_path, **hub)
    return AutoImageProcessor.from_pretrained(name_or_path, **hub)


def class_names(config: Any) -> list[str] | None:
    """Class names in a model's configuration, in order; `None` where they are the LABEL_0, LABEL_1, … of a default."""
    if not config.id2label:
        return None
    names = [config.id2label[index] for index in range(config.num_labels)]
    return None if names == [f"LABEL_{index}" for index in range(len(names))] else names
