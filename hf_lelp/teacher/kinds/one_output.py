"""Tells whether a model of one output is a classifier of two classes: transformers takes one output for regression."""

from typing import Any

import torch
from torch import Tensor


def has_one_output(config: Any, activation: str | None) -> bool:
    """Whether a classifier gives one logit z, of two classes with the logits (0, z).

    Args:
        config: of the model. sentence-transformers writes the activation of a cross-encoder there.
        activation: "sigmoid" where the user says so.

    Raises:
        ValueError: if it gives one output and nothing says that it is such a logit; if the user says so of a model of
            several; or if it is no classifier of one class per row.
    """
    outputs = int(config.num_labels or 0)
    kind = getattr(config, "problem_type", None) or "single_label_classification"
    found = activation_of(config)
    if outputs == 1 and (activation == "sigmoid" or found == "sigmoid"):
        return True
    if outputs == 1:
        raise ValueError(
            f"The teacher's configuration says problem_type={kind!r} and 1 label, and its activation is"
            f" {found or 'not named'}. If its one output is the logit of a yes, as with cross-encoders and many binary"
            " classifiers, set teacher_activation=sigmoid: it then counts as two classes. LELP does not distil"
            " regression."
        )
    if activation == "sigmoid":
        raise ValueError(
            f"teacher_activation=sigmoid is of a teacher with one output, and this one has {outputs}. Leave it out; of"
            " several labels a row each sigmoid would be a problem of its own."
        )
    if outputs < 2 or kind != "single_label_classification":
        raise ValueError(
            f"The teacher's configuration says problem_type={kind!r} and {outputs} labels. LELP distils models"
            " that choose one of two or more classes; if this one does, set problem_type and num_labels so."
        )
    return False


def with_first_class(part: Tensor) -> Tensor:
    """Put a row of zeros, of the class whose logit is 0, before the weight, (1, D), or bias, (1,), of one output."""
    return torch.cat([torch.zeros_like(part), part])


def activation_of(config: Any) -> str | None:
    """Return the activation that a configuration names for its output, in lower case: "sigmoid", "identity", …."""
    newer = getattr(config, "sentence_transformers", None)
    named = newer.get("activation_fn") if isinstance(newer, dict) else None
    named = named or getattr(config, "sbert_ce_default_activation_function", None)  # before sentence-transformers 4
    if getattr(config, "problem_type", None) == "multi_label_classification" and named is None:
        return "sigmoid"  # trained as yes or no, and so shown by pipelines
    return str(named).rpartition(".")[2].lower() if named else None
