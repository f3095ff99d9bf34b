"""Cuts a classifier by its layers: a smaller model of the same class, with the teacher's weights in all that is left.

No table of architectures is needed. The configuration is changed to have fewer layers, the model is built from it, and
the lists of modules that became shorter are the layers. So what is made here loads again by its own class.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

# What configurations call their number of layers, by `attribute_map` too.
_NAMES = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers")
_DECODERS = ("decoder_layers", "num_decoder_layers", "decoder_num_hidden_layers")


def number_of_layers(model: PreTrainedModel) -> int:
    """Return the number of a classifier's layers.

    Raises:
        ValueError: if it cannot be cut.
    """
    return _part_and_count(model)[1]


def chosen_layers(argument: str, count: int) -> list[int]:
    """Read what follows `layers:`.

    Args:
        argument: how many layers, which are then chosen evenly from the first to the last; or their numbers from 0 on,
            with commas. "2," is layer 2 alone.
        count: layers of the teacher.

    Raises:
        ValueError: if the teacher has no such layers, or they are out of order.
    """
    if re.fullmatch(r"[1-9]\d*", argument) and int(argument) <= count:
        wanted = int(argument)
        # One layer is the first: it reads what the embeddings give, as it did in the teacher.
        return [round(place * (count - 1) / max(wanted - 1, 1)) for place in range(wanted)]
    if re.fullmatch(r"\d+(,\d+)*,?", argument) and "," in argument:
        layers = [int(number) for number in argument.rstrip(",").split(",")]
        if layers == sorted({*layers}) and layers[-1] < count:
            return layers
    raise ValueError(
        f"student_model=layers:{argument}: the teacher has {count} layers, 0 to {count - 1}. Expected is how many to"
        f" keep, as in layers:{max(count // 2, 1)}, or which, in their order, as in"
        f" layers:{','.join(map(str, sorted({0, count // 2, count - 1})))}."
    )


def cut_model(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Make a model of the teacher's class with some of its layers, in float32, on the CPU.

    Embeddings, pooler and final layer are the teacher's. A decoder with as many layers as its encoder is cut alike;
    one with another number stays whole.

    Args:
        teacher: any classifier of transformers; it is not changed.
        layers: numbers of the layers to keep, ascending.

    Raises:
        ValueError: if its class cannot be cut so.
    """
    part, count = _part_and_count(teacher)
    try:
        config = _with_layers(teacher.config, part, count, layers)
        model = type(teacher)(config).float().eval()
    except Exception as error:  # of any kind: the class reads its configuration in its own way
        _refuse(teacher, str(error))
    weights = teacher.state_dict()
    lists = _layer_lists(teacher, model, count, len(layers))
    taken: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        source = weights.get(_name_in_teacher(name, lists, layers))
        if source is None or source.shape != value.shape:
            _refuse(teacher, f"{name} of {len(layers)} layers has no counterpart in the teacher")
        taken[name] = source
    model.load_state_dict(taken)
    model.config.architectures = [type(teacher).__name__]
    model.name_or_path = teacher.name_or_path
    return model


def _refuse(teacher: PreTrainedModel, reason: str) -> NoReturn:
    raise ValueError(
        f"student_model=layers: a {type(teacher).__name__} cannot be cut so ({reason}). Keep other layers, its"
        " first among them, or take a student of its own: an id or folder, or new:2x128 for texts."
    )


def _parts(config: PreTrainedConfig, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], PreTrainedConfig]]:
    """Yield a configuration and those inside it (of texts, of images), with the names that lead there."""
    yield path, config
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from _parts(value, (*path, name))


def _part_and_count(model: PreTrainedModel) -> tuple[tuple[str, ...], int]:
    """Find the part of the configuration that has the number of layers, and that number."""
    for path, config in _parts(model.config):
        # CLIP's classifier of images has a configuration of texts too, and no module of it.
        inside = [module for module in model.modules() if type(getattr(module, "config", None)) is type(config)]
        lengths = {len(layers) for _, layers in _lists(inside[0])} if inside else set()
        for name in _NAMES:
            count = getattr(config, name, None)
            if isinstance(count, int) and count > 0 and count in lengths:
                return path, count
    _refuse(model, "it has no list of as many modules as layers: they share weights, or stand in stages")


def _lists(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]


def _with_layers(given: PreTrainedConfig, path: tuple[str, ...], count: int, layers: Sequence[int]) -> Any:
    """Copy a configuration for fewer layers: its numbers of layers, and its lists with one entry a layer.

    It is read as it will be from config.json: some check then that their entries fit together.
    """
    config = copy.deepcopy(given)
    part: Any = config
    for name in path:
        part = getattr(part, name)
    for name, value in list(vars(part).items()):
        if isinstance(value, list | tuple) and len(value) == count and name not in ("architectures", "id2label"):
            setattr(part, name, [value[layer] for layer in layers])
    for name in (*_NAMES, *_DECODERS):
        if getattr(part, name, None) == count:
            setattr(part, name, len(layers))
    config.dtype = torch.float32
    entries = config.to_dict()
    of_part: Any = entries
    for name in path:
        of_part = of_part[name]
    for name in ("stage_names", "out_features", "out_indices"):  # of backbones, made anew from the number of layers
        of_part.pop(name, None)
    return type(config).from_dict(entries)


def _layer_lists(teacher: PreTrainedModel, model: PreTrainedModel, count: int, kept: int) -> list[str]:
    """Name the lists of the teacher that are shorter in the model.

    Raises:
        ValueError: if there is none, such as where all layers share their weights.
    """
    lengths = {name: len(modules) for name, modules in _lists(model)}
    lists = [name for name, modules in _lists(teacher) if len(modules) == count and lengths.get(name) == kept]
    if not lists:
        _refuse(teacher, "none of its lists of modules follows the number of layers")
    return lists


def _name_in_teacher(name: str, lists: Sequence[str], layers: Sequence[int]) -> str:
    """Return the teacher's name of a weight: layer i of the model is its layer `layers[i]`."""
    for place in lists:
        if name.startswith(f"{place}."):
            number, _, rest = name.removeprefix(f"{place}.").partition(".")
            return f"{place}.{layers[int(number)]}.{rest}"
    return name
