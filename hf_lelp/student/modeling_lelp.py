"""Defines LELP students that transformers does not have.

These are its classifiers whose final linear layer has S pseudo-subclasses per class inside, and static ones, which read
the mean of token vectors. Every such student carries a copy of this file; the auto_map in its config.json names the
class to load. The file needs only torch and transformers.
"""

from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput


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


class StaticConfig(transformers.PreTrainedConfig):
    """Sizes of a `StaticForSequenceClassification`.

    Args:
        vocab_size: V, number of token vectors.
        embedding_size: E, of each vector.
        hidden_size: H, of the layer between the mean and the final layer.
        hidden_dropout_prob: of its output, in training.
        **kwargs: of every configuration.
    """

    model_type = "lelp_static"

    def __init__(
        self,
        vocab_size: int = 30522,
        embedding_size: int = 256,
        hidden_size: int = 512,
        hidden_dropout_prob: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.hidden_dropout_prob = hidden_dropout_prob


class StaticForSequenceClassification(transformers.PreTrainedModel):
    """A classifier of the mean of a text's token vectors: no attention, no positions, no limit of length.

    Args:
        config: with `num_subclasses`, S, and `distillation_temperature` where the final layer is a `SubclassHead`.
    """

    config_class = StaticConfig

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.vectors = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dense = nn.Linear(config.embedding_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        num_labels, num_subclasses = int(config.num_labels or 0), getattr(config, "num_subclasses", 1)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        if num_subclasses > 1:
            temperature = getattr(config, "distillation_temperature", 1.0)
            self.classifier = SubclassHead(config.hidden_size, num_labels, num_subclasses, temperature)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        pass  # each layer has drawn its own, as torch does

    def get_input_embeddings(self) -> nn.Module:
        """Return the token vectors."""
        return self.vectors

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the token vectors."""
        self.vectors = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classify texts.

        Args:
            input_ids: (N, T).
            attention_mask: (N, T), 0 for padding; `None` is all ones.
            token_type_ids: unused; tokenizers may give them.
            labels: (N,), class indices, for a loss.
            **kwargs: unused.

        Returns:
            `logits`, (N, C), and with labels the cross-entropy as `loss`.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        weight = mask.unsqueeze(-1).to(self.vectors.weight.dtype)
        mean = (self.vectors(input_ids) * weight).sum(1) / weight.sum(1).clamp(min=1)
        logits = self.classifier(self.dropout(nn.functional.gelu(self.dense(mean))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


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
