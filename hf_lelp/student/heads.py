"""Puts either of the two LELP heads on a classifier.

`subclass` (the paper's): the final linear layer itself has S·C rows. `auxiliary`: the model keeps its own C-way layer;
a second, S·C-way layer on the same embedding exists in training only. (The methods that LELP is compared with put other
modules in that second place.)
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_lelp.classifiers import AUTO_CLASSES, class_names, find_heads, replace_module, shown_names
from hf_lelp.data.labels import match_names
from hf_lelp.student.modeling_lelp import StaticForSequenceClassification, SubclassHead, with_subclass_head


class AuxiliaryHead(nn.Linear):
    """A plain C-way final layer with another module beside it that only the training loss sees.

    The plain layer's parameters keep their names, so the saved weights are those of a plain model.

    Args:
        plain: the layer that it replaces; its parameters are kept.
        auxiliary: from the embedding that the plain layer reads, (..., D), to (..., M); for LELP an S·C-way layer.
        num_subclasses: S.
    """

    def __init__(self, plain: nn.Linear, auxiliary: nn.Module, num_subclasses: int = 1) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=plain.bias is not None)
        self.weight, self.bias = plain.weight, plain.bias
        self.auxiliary = auxiliary
        self.num_subclasses = num_subclasses
        self.all_logits = False

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., D) to the class logits, (..., C), or to (..., C + M) while `all_logits` is true."""
        logits = super().forward(input)
        return torch.cat([logits, self.auxiliary(input)], dim=-1) if self.all_logits else logits

    def split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Split all logits, (..., C + M), into class logits, (..., C), and the auxiliary's output, (..., M)."""
        return logits[..., : self.out_features], logits[..., self.out_features :]


class TwinHead(nn.Linear):
    """Another final layer of a model that averages several, of which one is an `AuxiliaryHead`.

    In training it also applies that head's auxiliary layer, so that the model's output is an average in every part.

    Args:
        plain: the layer that it replaces; its parameters are kept.
        first: the model's `AuxiliaryHead`.
    """

    def __init__(self, plain: nn.Linear, first: AuxiliaryHead) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=plain.bias is not None)
        self.weight, self.bias = plain.weight, plain.bias
        self._first = [first]  # a list hides it from nn.Module, which would register it here too

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., D) to the class logits, (..., C), or to (..., C + M) while `first.all_logits` is true."""
        first, logits = self._first[0], super().forward(input)
        return torch.cat([logits, first.auxiliary(input)], dim=-1) if first.all_logits else logits


StudentHead = SubclassHead | AuxiliaryHead


def student_head(model: nn.Module) -> StudentHead | None:
    """Return the LELP head in the model, or `None` for a plain model."""
    # The last one: PEFT keeps the original layer before the copy that it trains.
    return next((module for module in reversed(list(model.modules())) if isinstance(module, StudentHead)), None)


def place_student_head(model: PreTrainedModel, num_subclasses: int, kind: str, temperature: float = 1.0) -> None:
    """Put a LELP head in place of the model's final linear layer.

    The new rows start as copies of their class's row, shifted by −τ·log S. So the class logits are at first those of
    the original model. The targets differ by subclass and pull the copies apart. With one subclass per class the model
    is left as it is: LELP is then plain distillation.

    Args:
        model: a classifier with `config.num_labels` classes, changed in place.
        num_subclasses: S.
        kind: "subclass" or "auxiliary".
        temperature: τ of the training.

    Raises:
        ValueError: if the model has no final linear layer, or a LELP head with another S, τ or kind. For "subclass",
            also if it is no classifier of transformers, or averages two final layers.
    """
    present = student_head(model)
    if present is not None:
        wanted = SubclassHead if kind == "subclass" else AuxiliaryHead
        same_temperature = kind == "auxiliary" or getattr(present, "temperature", temperature) == temperature
        if isinstance(present, wanted) and present.num_subclasses == num_subclasses and same_temperature:
            return
        found, asked = f"{present.num_subclasses} subclasses per class", f"{num_subclasses}"
        if not same_temperature:
            found, asked = f"{found} at temperature {present.temperature}", f"{asked} at temperature {temperature}"
        raise ValueError(
            f"The student already has a {type(present).__name__} with {found}, and {kind!r} with {asked} was asked for."
            " Start from the plain model, or keep its settings."
        )
    if num_subclasses == 1:
        return
    *twins, (name, plain) = find_heads(model, int(model.config.num_labels or 0)).items()
    if twins and kind == "subclass":
        # The logsumexp of an average is not the average of two logsumexps: training and inference would differ.
        raise ValueError(
            f"{type(model).__name__} averages its final layers {', '.join(twin for twin, _ in twins)} and {name}, and"
            " pseudo-subclasses inside them would be averaged after the logsumexp. Use student_head='auxiliary'."
        )
    bias = plain.bias is not None
    rows: nn.Linear
    if kind == "subclass":
        # From now on save_pretrained, whoever calls it, also saves modeling_lelp.py.
        model.__class__ = subclass_model(type(model))
        rows = SubclassHead(plain.in_features, plain.out_features, num_subclasses, temperature, bias)
        # Recorded in config.json: a loader must know S and τ to give C logits.
        model.config.num_subclasses = num_subclasses
        model.config.distillation_temperature = temperature
    else:
        rows = nn.Linear(plain.in_features, plain.out_features * num_subclasses, bias=bias)
    with torch.no_grad():
        rows.weight.copy_(plain.weight.repeat_interleave(num_subclasses, dim=0))
        if bias:
            shift = temperature * math.log(num_subclasses)
            rows.bias.copy_(plain.bias.repeat_interleave(num_subclasses) - shift)
    if kind == "subclass":
        rows.to(device=plain.weight.device, dtype=plain.weight.dtype).train(plain.training)
        replace_module(model, name, rows)
    else:
        place_auxiliary(model, rows, num_subclasses)


@torch.no_grad()
def take_classes(model: PreTrainedModel, num_labels: int, names: list[str] | None) -> None:
    """Name a student's classes as the data does; reorder its final layer if the order differs.

    Args:
        model: a classifier, changed in place.
        num_labels: C, of the data.
        names: of the C classes in the data's order, or `None`.

    Raises:
        ValueError: if the student's number of classes is not C.
    """
    config = model.config
    if config.num_labels != num_labels:
        raise ValueError(
            f"The student has {config.num_labels} classes and the data {num_labels}. Load it with"
            f" num_labels={num_labels}; or let a new one be made with the teacher's tokenizer:"
            f" model={recipe_like(config)!r}."
        )
    if getattr(config, "problem_type", None) is not None:
        config.problem_type = "single_label_classification"  # else `pipeline` may apply a sigmoid
    own = class_names(config)
    if names is None or own == names:
        _name_classes(config, names or shown_names(config))
        return
    try:
        order = match_names(names, own or names)
    except ValueError:  # it was a classifier for another task
        order = list(range(num_labels))
    reorder_classes(model, order)
    _name_classes(config, names)


def recipe_like(config: object) -> str:
    """Return the recipe for a student of the size that a configuration has, to be shown to a user."""
    layers, size = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    fits = isinstance(layers, int) and isinstance(size, int) and layers > 0 and size > 0 and size % 2 == 0
    return f"new:{layers}x{size}" if fits else "new:2x128"


@torch.no_grad()
def reorder_classes(model: PreTrainedModel, order: Sequence[int]) -> None:
    """Put a classifier's final layer and the names of its classes in another order, in place.

    Args:
        model: of C classes, with a LELP head or without.
        order: class i becomes what class `order[i]` was.
    """
    if list(order) == sorted(order):
        return
    num_labels, head = len(order), student_head(model)
    placed = [module for module in model.modules() if isinstance(module, StudentHead | TwinHead)]
    rows = num_labels * (head.num_subclasses if head is not None else 1)
    for layer in placed or find_heads(model, num_labels).values():
        for parameter in layer.parameters():
            if len(parameter) in (num_labels, rows):  # the others belong to another method's module
                parameter.copy_(parameter.unflatten(0, (num_labels, -1))[list(order)].flatten(0, 1))
    if (names := class_names(model.config)) is not None:
        _name_classes(model.config, [names[index] for index in order])


def _name_classes(config: Any, names: list[str]) -> None:
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}


def place_auxiliary(model: PreTrainedModel, auxiliary: nn.Module, num_subclasses: int = 1) -> None:
    """Put a module beside the model's final linear layer for the training loss only; see `AuxiliaryHead`.

    Args:
        model: a classifier with `config.num_labels` classes, changed in place.
        auxiliary: maps the embedding, (N, D), to (N, M).
        num_subclasses: S, for LELP.

    Raises:
        ValueError: if the model has no final linear layer.
    """
    *twins, (name, plain) = find_heads(model, int(model.config.num_labels or 0)).items()
    auxiliary.to(device=plain.weight.device, dtype=plain.weight.dtype)
    head = AuxiliaryHead(plain, auxiliary, num_subclasses).train(plain.training)
    # save_pretrained leaves these out: every saved student is a plain model.
    base: Any = getattr(model, "get_base_model", lambda: model)()  # PEFT wraps the model until it is merged
    own_name = name.removeprefix("base_model.model.").split(".modules_to_save.")[0]
    ignored = {f"{own_name}.auxiliary.{parameter}" for parameter in auxiliary.state_dict()}
    base._keys_to_ignore_on_save = {*(base._keys_to_ignore_on_save or ()), *ignored}
    replace_module(model, name, head)
    for twin, layer in twins:
        replace_module(model, twin, TwinHead(layer, head))


@contextmanager
def all_logits(head: StudentHead | None) -> Iterator[None]:
    """Make the model return all logits of the head within the block; `head.split` takes them apart."""
    if head is None:
        yield
        return
    head.all_logits = True
    try:
        yield
    finally:
        head.all_logits = False


def saved_parameters(model: PreTrainedModel) -> int:
    """Count the parameters of the saved student, which has no auxiliary layer."""
    head = student_head(model)
    auxiliary = head.auxiliary.parameters() if isinstance(head, AuxiliaryHead) else ()
    return int(model.num_parameters()) - sum(parameter.numel() for parameter in auxiliary)


def subclass_model(base: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return the class of a student with a `SubclassHead`: its `save_pretrained` also saves modeling_lelp.py.

    So `AutoModelFor….from_pretrained(folder, trust_remote_code=True)` loads it without hf-lelp. Without that argument
    the final layer's shape does not fit the plain architecture, and loading fails.

    Raises:
        ValueError: if `base` is no text, image, audio or video classifier of the installed transformers.
    """
    if issubclass(base, StaticForSequenceClassification):
        return base  # it has a `SubclassHead` where its configuration says so
    auto = next((auto for auto, names in AUTO_CLASSES.items() if base.__name__ in names), None)
    if auto is None or getattr(transformers, base.__name__, None) is not base:
        raise ValueError(
            f"{base.__module__}.{base.__name__} is no classifier of the installed transformers, so that nobody could"
            " load a student with pseudo-subclasses in its final layer. Use student_head='auxiliary', whose students"
            " are plain models."
        )
    model_class = with_subclass_head(base.__name__)
    model_class.register_for_auto_class(auto)
    return model_class
