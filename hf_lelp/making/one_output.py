"""Turns a classifier of one output into one of two classes, and a student of two classes back into one output."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_lelp.classifiers import find_heads, replace_module, shown_names
from hf_lelp.student.heads import student_head
from hf_lelp.teacher.kinds.one_output import with_first_class

SIGMOID = "torch.nn.modules.activation.Sigmoid"  # as sentence-transformers names it in a configuration


@torch.no_grad()
def with_two_outputs(model: PreTrainedModel) -> PreTrainedModel:
    """Give a classifier of one output z the two class logits (0, z): a row of zeros before its own.

    Args:
        model: with `config.num_labels` 1, changed in place.

    Raises:
        ValueError: if it has another number of outputs, or no final linear layer.
    """
    if model.config.num_labels != 1:
        raise ValueError(f"This {type(model).__name__} has {model.config.num_labels} outputs; one is expected.")
    for name, layer in find_heads(model, 1).items():
        _replace(model, name, layer, *map(with_first_class, _parts(layer)))
    _set_classes(model, 2)
    for name in ("sentence_transformers", "sbert_ce_default_activation_function"):  # of the one output
        if hasattr(model.config, name):
            delattr(model.config, name)
    return model


@torch.no_grad()
def with_one_output(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a student of two classes with one output z, the difference of their logits: sigmoid(z) is the second class.

    Its configuration names that class, and the sigmoid as sentence-transformers does, so that a cross-encoder reads it
    so.

    Args:
        model: plain, or of the auxiliary form as it is saved.

    Raises:
        ValueError: see `check_two_classes`.
    """
    check_two_classes(model, plain=student_head(model) is None)
    model = copy.deepcopy(model)
    yes = (shown_names(model.config) or ["LABEL_0", "LABEL_1"])[1]  # a few configurations name no classes
    for name, layer in find_heads(model, 2).items():
        _replace(model, name, layer, *(part[1:] - part[:1] for part in _parts(layer)))
    _set_classes(model, 1)
    model.config.id2label, model.config.label2id = {0: yes}, {yes: 0}  # `pipeline` gives its probability as the score
    model.config.sentence_transformers = {"activation_fn": SIGMOID}
    return model


def check_two_classes(model: PreTrainedModel, *, plain: bool) -> None:
    """Check that a student can have one output.

    Args:
        model: the student.
        plain: whether its final layer is an ordinary one, or will be made so.

    Raises:
        ValueError: if it has another number of classes, or pseudo-subclasses in its final layer.
    """
    if model.config.num_labels != 2 or not plain:
        raise ValueError(
            f"This {type(model).__name__} has {model.config.num_labels} classes"
            f"{'' if plain else ' and a head of pseudo-subclasses'}: a plain student of two classes can have one"
            " output. Export it as plain first (--to plain one_output does both), or distil with"
            " student_head='auxiliary'."
        )


def _parts(layer: nn.Linear) -> list[torch.Tensor]:
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]


def _replace(
    model: nn.Module, name: str, old: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    replace_module(model, name, layer.train(old.training))


def _set_classes(model: PreTrainedModel, count: int) -> None:
    model.config.num_labels = count  # which also names them LABEL_0, …
    model.config.problem_type = None
    setattr(model, "num_labels", count)  # noqa: B010  # of every classifier, and its type does not say so
