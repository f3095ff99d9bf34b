"""The final linear layer of any classifier: find it, and run the model without it.

With the layer replaced by an identity, the model's `outputs.logits` is the layer's input: the embedding, pooled by the
model's own code. No hook and no table of architectures is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


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


def find_head(model: nn.Module, num_labels: int) -> tuple[str, nn.Linear]:
    """Name of the model's final linear layer, and the layer: the last `nn.Linear` with one output per class.

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
    return heads[-1]


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place called `name`, like "classifier" or "classifier.out_proj"."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@contextmanager
def headless(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """Within the block `model(...).logits` is the embedding, (N, D); yields the layer taken out."""
    head = model.get_submodule(name)
    replace_module(model, name, nn.Identity())
    try:
        yield head
    finally:
        replace_module(model, name, head)


@torch.inference_mode()
def check_embedding(model: PreTrainedModel, name: str, embedding: Tensor, inputs: dict[str, Tensor]) -> None:
    """Check that the final layer applied to `embedding` gives the logits of the whole model.

    A model that averages two heads, or scales its logits after the last layer, would otherwise distil wrongly without
    a word.

    Raises:
        ValueError: if the two differ by more than rounding.
    """
    logits = model(**inputs).logits
    rebuilt = model.get_submodule(name)(embedding)
    tolerance = 1e-3 if logits.dtype == torch.float32 else 5e-2
    worst = (logits - rebuilt).abs().max().item() if logits.shape == rebuilt.shape else float("inf")
    if not worst <= tolerance * max(1.0, logits.abs().max().item()):
        raise ValueError(
            f"{type(model).__name__}: its layer {name!r} applied to the captured embedding does not give the model's"
            f" logits (shape {tuple(rebuilt.shape)} against {tuple(logits.shape)}, largest difference {worst:.3g})."
            " The model does more after its last linear layer, or has several; LELP cannot use it as a teacher."
        )
