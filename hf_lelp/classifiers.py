"""Finds the Auto class, the processor and the final linear layer of any classifier of transformers.

With that layer replaced by an identity, the model's `outputs.logits` is the layer's input. This is the embedding,
pooled by the model's own code. No hook and no table of architectures is needed.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel, ProcessorMixin
from transformers.models.auto import modeling_auto

# Up to 5.13 at least, `transformers` itself exports it only with torchvision, which is not needed.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.peft_utils import find_adapter_config_file

from hf_lelp.data.encoding import Processor


def _flat(names: Iterable[str | Sequence[str]]) -> set[str]:
    return {name for entry in names for name in ((entry,) if isinstance(entry, str) else entry)}


# Each Auto class, and the names of the model classes that it loads.
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
        fingerprint: of the teacher that the layer belongs to. Every artefact made from the layer carries it.
    """

    weight: Tensor
    bias: Tensor
    fingerprint: str = ""


def find_heads(model: nn.Module, num_labels: int) -> dict[str, nn.Linear]:
    """Find the model's final linear layers, by name.

    There is nearly always one `nn.Linear` with one output per class. Of several, the head is the one whose output is
    the logits that the model gives for an example. A few image models average the outputs of two (DeiT, LeViT and
    SwiftFormer, themselves distilled from a teacher).

    Where no example can be made (sound, inputs of the model's own), the head is the last of them. Another one counts
    too if it has the shape of the last and lies outside the base model, unless it is square: that is a hidden layer.

    Args:
        model: a classifier.
        num_labels: C, its number of classes.

    Raises:
        ValueError: if the model has no such layer.
    """
    idle = idle_copies(model)
    linears = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not f"{name}.".startswith(idle)
    ]
    heads = [(name, module) for name, module in linears if module.out_features == num_labels]
    if not heads:
        last = ", ".join(f"{name} ({module.out_features} outputs)" for name, module in linears[-3:]) or "none"
        raise ValueError(
            f"No final linear layer with {num_labels} outputs in {type(model).__name__}; its last ones: {last}."
            " LELP needs a classifier that ends in an nn.Linear with one output per class. Load the model with its"
            " classification class (AutoModelForSequenceClassification or the like) and the right num_labels."
        )
    if len(heads) > 1 and (sources := _sources_of_logits(model, heads)):
        return sources
    name, final = heads.pop()
    inside = set(getattr(model, "base_model", model).modules())
    twins = [
        (other, module)
        for other, module in heads
        if module not in inside and module.in_features == final.in_features != num_labels
    ]
    return dict([*twins, (name, final)])


def _sources_of_logits(model: nn.Module, candidates: Iterable[tuple[str, nn.Linear]]) -> dict[str, nn.Linear]:
    """Return the layer whose output is the logits of an example, or those whose average is; none if that is unknown."""
    inputs = _example(model)
    if inputs is None:
        return {}
    layers = dict(candidates)
    outputs: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _layer, _input, output, name=name: outputs.update({name: output.flatten()}))
        for name, layer in layers.items()
    ]
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()  # neither draws random numbers nor changes running statistics
        with torch.inference_mode():
            logits = logits_of(model(**inputs)).flatten()
    except Exception:  # a model of anybody's own may need other inputs
        return {}
    finally:
        for module in training:
            module.training = True
        for hook in hooks:
            hook.remove()
    same = [name for name, output in outputs.items() if torch.equal(output, logits)]
    if same:
        return {same[-1]: layers[same[-1]]}
    shaped = [name for name in layers if name in outputs and outputs[name].shape == logits.shape]
    average = torch.stack([outputs[name] for name in shaped]).mean(0) if shaped else None
    if average is None or not torch.allclose(average, logits, rtol=tolerance(logits.dtype)):
        return {}
    return {name: layers[name] for name in shaped}


def _example(model: nn.Module) -> dict[str, Tensor] | None:
    """Make an input of one token, or of one image; `None` for a model that reads something else."""
    config, main = getattr(model, "config", None), getattr(model, "main_input_name", "")
    parameter = next(model.parameters(), torch.empty(0))
    if main == "input_ids":
        end = getattr(config, "eos_token_id", None)  # BART takes the embedding of this token
        return {main: torch.tensor([[end if isinstance(end, int) else 0]], device=parameter.device)}
    size = getattr(config, "image_size", None)
    if main == "pixel_values" and size is not None:
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        shape = (1, getattr(config, "num_channels", 3), height, width)
        return {main: torch.linspace(-1, 1, math.prod(shape)).reshape(shape).to(parameter)}
    return None


def idle_copies(model: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of layers that stand idle: PEFT keeps a copy of a layer for each adapter, and its own.

    Which copy a forward pass goes through depends on the adapter in use.
    """
    idle = []
    for name, module in model.named_modules():
        copies = getattr(module, "modules_to_save", None)
        if not isinstance(copies, nn.ModuleDict) or not hasattr(module, "original_module"):
            continue
        active = [] if module.disable_adapters else [key for key in module.active_adapters if key in copies]
        idle += [f"{name}.modules_to_save.{key}." for key in copies if key not in active[:1]]
        idle += [f"{name}.original_module."] if active else []
    return tuple(idle)


def joint_layer(heads: Iterable[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Join final layers into one layer on the embedding that `headless` gives.

    Returns:
        Weight, (C, D), and bias, (C,) or `None`.
    """
    heads = list(heads)
    biases: list[Tensor] = [head.bias for head in heads if head.bias is not None]
    weight = torch.cat([head.weight for head in heads], dim=1)
    return weight, torch.stack(biases).mean(0) if biases else None


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place called `name`, like "classifier" or "classifier.out_proj"."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


class _Slot(nn.Module):
    """Puts its input in its own place among zeros, so that averaging several inputs keeps them apart."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.padding = (before, after)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.pad(input, self.padding)


@contextmanager
def headless(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Make the model's logits the embedding, (N, D), within the block.

    With one final layer, the embedding is the layer's input. With several, whose outputs the model averages, their
    inputs stand side by side, each multiplied as its output would be. D is then the sum of their sizes, and
    `joint_layer` gives the layer that fits.

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
    """Take the logits from a model's outputs; a few models (PP-LCNet) return them first, under another name."""
    return outputs["logits"] if isinstance(outputs, dict) and "logits" in outputs else outputs[0]


def tolerance(dtype: torch.dtype) -> float:
    """Return what rounding may change of logits, as a share of the largest."""
    return 1e-3 if dtype == torch.float32 else 5e-2


def check_embedding(model: PreTrainedModel, names: Iterable[str], embedding: Tensor, inputs: dict[str, Tensor]) -> None:
    """Check that the final layer applied to `embedding` gives the logits of the whole model.

    A model may scale its logits after the last layer, or add others to them. It would otherwise distil wrongly, and
    silently.

    Rows whose logits are not finite are skipped here. The code that reads the results knows which rows of the data
    they are.

    Raises:
        ValueError: if the two differ by more than rounding.
    """
    names = list(names)
    gap = embedding_gap(model, names, embedding, inputs)
    if not gap <= tolerance(embedding.dtype):
        raise ValueError(
            f"{type(model).__name__}: its layer {' and '.join(map(repr, names))} applied to the captured embedding does"
            f" not give the model's logits (largest difference {gap:.3g}, as a share of the largest logit; infinite if"
            " the shapes differ). The model does more after its last linear layer; LELP cannot use it as a teacher."
        )


@torch.inference_mode()
def embedding_gap(model: PreTrainedModel, names: Iterable[str], embedding: Tensor, inputs: dict[str, Tensor]) -> float:
    """Return how far the final layer's outputs on `embedding` are from the logits that the model gives for `inputs`.

    It is a share of the largest logit, infinite where the shapes differ, NaN where the outputs are. Rows whose logits
    are not finite are skipped.
    """
    logits = logits_of(model(**inputs))
    layers = [layer for name in names if isinstance(layer := model.get_submodule(name), nn.Linear)]
    # A student's own head does not go through joint_layer: its class logits are no linear map.
    rebuilt = layers[0](embedding) if len(layers) == 1 else nn.functional.linear(embedding, *joint_layer(layers))
    if logits.shape != rebuilt.shape:
        return float("inf")
    finite = logits.isfinite().all(-1)
    if not finite.any():
        return 0.0
    logits, rebuilt = logits[finite], rebuilt[finite]
    gap = (logits - rebuilt).abs().max() / logits.abs().max().clamp(min=1.0)
    return gap.item()


def auto_class(config: Any) -> Any:
    """Find the Auto class that loads the architecture named in a classifier's configuration.

    Raises:
        ValueError: if the configuration belongs to no classification model.
    """
    classes = [getattr(transformers, name) for name in AUTO_CLASSES]
    own = [auto for auto in classes if type(config) in auto._model_mapping]
    if len(own) > 1:  # Perceiver: one configuration for several tasks
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


def model_class(config: Any) -> type[PreTrainedModel] | None:
    """Find the class named in a classifier's configuration; `None` if no Auto class loads one of this name.

    A class of one's own counts once it is registered with its Auto class.
    """
    architecture = (config.architectures or [""])[0]
    mappings = [getattr(transformers, name)._model_mapping for name in AUTO_CLASSES]
    candidates = [model for mapping in mappings if type(config) in mapping for model in _classes(mapping[type(config)])]
    return next((model for model in candidates if model.__name__ == architecture), None)


def _names(classes: Any) -> list[str]:
    return [model.__name__ for model in _classes(classes)]


def _classes(classes: Any) -> tuple[Any, ...]:
    return classes if isinstance(classes, tuple) else (classes,)


def check_weights(name_or_path: str, loading: Mapping[str, Any], advice: str = "") -> None:
    """Refuse a checkpoint that lacks weights of the model, because they would be random.

    Args:
        name_or_path: of the checkpoint.
        loading: what `from_pretrained` says of it, with `output_loading_info`.
        advice: what to do; ends the message.

    Raises:
        ValueError: if weights are missing; the message names them.
    """
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(f"{name_or_path} has no weights for {', '.join(missing)}: they would be random.{advice}")


def load_config(name_or_path: str, **hub: Any) -> Any:
    """Load the configuration of a model.

    Args:
        name_or_path: folder or Hub id.
        **hub: for `from_pretrained` (revision, trust_remote_code, …).

    Raises:
        ValueError: if there is an adapter of PEFT alone.
    """
    name_or_path = os.path.expanduser(name_or_path)
    hub.setdefault("trust_remote_code", False)  # by default transformers asks the user
    try:
        return AutoConfig.from_pretrained(name_or_path, **hub)
    except (OSError, ValueError) as error:
        if find_adapter_config_file(name_or_path, revision=hub.get("revision")) is None:
            raise
        raise ValueError(
            f"{name_or_path} holds an adapter of PEFT alone, without the model's config.json. Load the model with it,"
            " by from_pretrained of its Auto class, and pass that object with its tokenizer or processor. Or save a"
            " plain model: model.merge_and_unload().save_pretrained(...), of PEFT's model."
        ) from error


def check_model(model: Any, role: str) -> None:
    """Refuse a model that no code of transformers made, or that is compiled already.

    Args:
        model: as the user passed it.
        role: "teacher" or "student", for the message.

    Raises:
        ValueError: saying what it is, and what to pass.
    """
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            f"The {role} is compiled already, and its final layer cannot be changed: pass the model that torch.compile"
            " was given. torch_compile=True compiles the student for training."
        )
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise ValueError(
            f"The {role} is a {type(model).__name__} without a configuration: pass a classifier of transformers, or a"
            " PreTrainedModel of your own. A pipeline has its classifier in the attribute model."
        )


def processor_kind(config: Any) -> str:
    """Say what makes a classifier's inputs: "tokenizer", "feature_extractor" or "image_processor".

    Raises:
        ValueError: if the configuration belongs to no classification model.
    """
    kinds = {
        transformers.AutoModelForSequenceClassification: "tokenizer",
        transformers.AutoModelForAudioClassification: "feature_extractor",
    }
    return kinds.get(auto_class(config), "image_processor")


def processor_part(processing_class: Any, config: Any) -> Any:
    """Take the part of a whole processor, such as CLIP's, that makes a classifier's inputs.

    Args:
        processing_class: anything else comes back as it is.
        config: of the classifier.

    Raises:
        ValueError: if the processor has no such part.
    """
    if not isinstance(processing_class, ProcessorMixin):
        return processing_class
    kind = processor_kind(config)
    part = getattr(processing_class, kind, None)
    if part is None:
        raise ValueError(
            f"A {type(processing_class).__name__} has no {kind}, which makes the inputs of a {config.model_type}. Pass"
            " the one that belongs to the model."
        )
    return part


def load_processor(name_or_path: str, **hub: Any) -> Processor:
    """Load the tokenizer, image processor or feature extractor of a model, as its configuration asks.

    Args:
        name_or_path: folder or Hub id.
        **hub: for `from_pretrained` (revision, trust_remote_code, …).

    Raises:
        ValueError: see `load_config` and `auto_class`.
    """
    name_or_path = os.path.expanduser(name_or_path)
    hub.setdefault("trust_remote_code", False)  # by default transformers asks the user
    loaders = {"tokenizer": transformers.AutoTokenizer, "feature_extractor": transformers.AutoFeatureExtractor}
    auto: Any = loaders.get(processor_kind(load_config(name_or_path, **hub)), AutoImageProcessor)
    return auto.from_pretrained(name_or_path, **hub)


def class_names(config: Any) -> list[str] | None:
    """Read a model's class names from its configuration, in order; `None` where they are only 0, 1, … or LABEL_0, ….

    Raises:
        ValueError: see `shown_names`.
    """
    if not config.id2label:
        return None
    names = shown_names(config)
    defaults = ([f"LABEL_{index}" for index in range(len(names))], [str(index) for index in range(len(names))])
    return None if names in defaults else names


def shown_names(config: Any) -> list[str]:
    """Return the name of each class of a model, in order, as text.

    `id2label` may be a list, and have text for its keys, or numbers or truth values for its names. Where it has only
    LABEL_0, LABEL_1, …, the names are those of `label2id`.

    Raises:
        ValueError: if its keys are not 0 to C − 1.
    """
    given = config.id2label or {}
    named = dict(enumerate(given)) if isinstance(given, list | tuple) else {str(key): given[key] for key in given}
    by_index = {str(index): str(name) for index, name in named.items()}
    order = [str(index) for index in range(len(by_index))]
    if {*by_index} != {*order}:
        raise ValueError(
            f"The configuration's id2label has the keys {', '.join(by_index)}, and {len(by_index)} classes are numbered"
            f" 0 to {len(by_index) - 1}. Set model.config.id2label to the name of each output of the final layer."
        )
    names = [by_index[index] for index in order]
    if all(name == f"LABEL_{index}" for index, name in enumerate(names)):
        other = {str(index): str(name) for name, index in (config.label2id or {}).items()}
        names = [other[index] for index in order] if {*other} == {*order} else names
    return names
