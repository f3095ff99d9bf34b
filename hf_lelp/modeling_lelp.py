"""The classification layer of a LELP student: S pseudo-subclasses per class inside, one logit per class outside.

This file needs torch alone, so that a copy of it can travel with a published student.
"""

import torch
from torch import Tensor, nn


class SubclassHead(nn.Linear):
    """A final linear layer with S·C rows whose output is the C class logits, logsumexp over each class's S rows.

    Softmax over the class logits equals the sum of the subclass probabilities (arXiv 2409.20449, section 3). While
    `all_logits` is true the S·C logits themselves come out; only the training loss asks for that.

    Args:
        in_features: D, size of the embedding that the layer reads.
        num_labels: C.
        num_subclasses: S.
        bias: whether the layer has a bias.
    """

    def __init__(self, in_features: int, num_labels: int, num_subclasses: int, bias: bool = True) -> None:
        super().__init__(in_features, num_labels * num_subclasses, bias=bias)
        self.num_subclasses = num_subclasses
        self.all_logits = False

    def forward(self, input: Tensor) -> Tensor:
        """(..., D) to (..., C), or to (..., C·S) while `all_logits` is true."""
        logits = super().forward(input)
        return logits if self.all_logits else self.split(logits)[0]

    def split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """From all logits, (..., C·S), the class logits, (..., C), and the subclass logits, (..., C·S)."""
        return torch.logsumexp(logits.unflatten(-1, (-1, self.num_subclasses)), dim=-1), logits
