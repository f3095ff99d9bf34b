"""Defines LELP students: classifiers of transformers whose final linear layer has S pseudo-subclasses per class inside.

Every published student carries a copy of this file; the auto_map in its config.json names the class to load. The file
needs only torch and transformers.
"""

from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn


class SubclassHead(nn.Linear):
    """A final linear layer with S·C rows o whose output is the C class logits, τ · logsumexp_s(o / τ) of each class.

    At temperature τ, softmax over the class logits equals the sum of the subclass probabilities. At τ = 1 this is the
    logsumexp of the paper (arXiv 2409.20449, section 3). Without τ, rows trained at τ > 1 would favour the class with
    the clearest subclass over the likeliest class. While `all_logits` is true, the layer returns the S·C logits
    themselves; only the training loss asks for them.

    Args:
        in_features: D, size of the embedding that the layer reads.
        num_labels: C.
        num_subclasses: S.
        temperature: τ of the training.
        bias: whether the layer has a bias.
    """

    def __init__(
        self, in_features: int, num_labels: int, num_subclasses: int, temperature: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__(in_features, num_labels * num_subclasses, bias=bias)
        self.num_subclasses = num_subclasses
        self.temperature = temperature
        self.all_logits = False

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., D) to (..., C), or to (..., C·S) while `all_logits` is true."""
        logits = super().forward(input)
        return logits if self.all_logits else self.split(logits)[0]

    def split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class logits, (..., C), and the subclass logits, (..., C·S), from all logits, (..., C·S)."""
        subclass_logits = logits.unflatten(-1, (-1, self.num_subclasses))
        return self.temperature * torch.logsumexp(subclass_logits / self.temperature, dim=-1), logits


@cache
def with_subclass_head(name: str) -> type[transformers.PreTrainedModel]:
    """Return the classifier of transformers called `name`, with a `SubclassHead` as its final linear layer.

    It replaces the last linear layer with one output per class. The configuration has `num_subclasses`, S, and
    `distillation_temperature`, τ, beside `num_labels`, C. The class keeps its name: pipelines know their models by
    name.

    Raises:
        AttributeError: if transformers has no such model.
    """
    base: Any = None if name.startswith("_") else getattr(transformers, name, None)
    if not (isinstance(base, type) and issubclass(base, transformers.PreTrainedModel)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __init__(self: transformers.PreTrainedModel, config: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, config, *args, **kwargs)
        linears = [(path, module) for path, module in self.named_modules() if isinstance(module, nn.Linear)]
        place, plain = [pair for pair in linears if pair[1].out_features == config.num_labels][-1]
        temperature = getattr(config, "distillation_temperature", 1.0)
        bias = plain.bias is not None
        head = SubclassHead(plain.in_features, config.num_labels, config.num_subclasses, temperature, bias)
        parent, _, child = place.rpartition(".")
        setattr(self.get_submodule(parent), child, head)

    return type(name, (base,), {"__init__": __init__, "__module__": __name__, "__doc__": base.__doc__})


# The auto_map in config.json asks for "modeling_lelp.BertForSequenceClassification", or whatever the base class is.
__getattr__ = with_subclass_head
