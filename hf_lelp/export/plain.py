"""Makes a plain model from a student whose final layer has pseudo-subclasses, and measures how far the two differ."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from torch import nn
from transformers import PreTrainedModel

from hf_lelp.classifiers import check_embedding, headless, logits_of, replace_module
from hf_lelp.export.fidelity import Batches, _on_device, class_logits, fidelity
from hf_lelp.student.modeling_lelp import StaticForSequenceClassification, SubclassHead
from hf_lelp.teacher.kinds.linear_probe import fit_linear


def plain_student(
    student: PreTrainedModel,
    train: Batches,
    held_out: Batches,
    labels: ArrayLike | None = None,
    *,
    min_agreement: float = 0.98,
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Make the plain model that answers most like a student with a `SubclassHead`.

    A C-way linear layer is fitted to the student's own class probabilities, on its own embeddings. The logsumexp over
    subclasses is not linear, so the two differ. They differ little where the subclasses only shaped the embedding, and
    much where no linear boundary holds a class's subclasses together. Students of the auxiliary form already are plain
    models.

    Args:
        student: from `load_student`; it is not changed.
        train: inputs to fit on, without labels.
        held_out: other inputs, to compare on.
        labels: (N,) of `held_out`, in the student's order; −100 is no label.
        min_agreement: share of the held-out rows on which both must have the same top class; 0 takes any.

    Returns:
        A model of the student's plain architecture, and its `fidelity`, with the student's own accuracy as
        `accuracy_before`.

    Raises:
        ValueError: if the student has no `SubclassHead`, there are no rows, or the agreement is below `min_agreement`.
    """
    name = next((name for name, module in student.named_modules() if isinstance(module, SubclassHead)), None)
    if name is None:
        raise ValueError(
            f"This {type(student).__name__} has no pseudo-subclasses in its final layer: it is a plain model already"
            " (as every student of student_head='auxiliary' is), and can be used as it is. If it is a student that"
            " was loaded with trust_remote_code, load it with hf_lelp.load_student."
        )
    head = student.get_submodule(name)
    assert isinstance(head, SubclassHead)
    embedding, logits = _embeddings(student, name, train)
    weight, bias = fit_linear(embedding, softmax(logits, axis=1), with_bias=head.bias is not None)

    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=head.bias is not None)
    parameters = {"weight": torch.from_numpy(weight), **({} if head.bias is None else {"bias": torch.from_numpy(bias)})}
    linear.load_state_dict(parameters)
    plain = copy.deepcopy(student)
    replace_module(plain, name, linear.to(device=head.weight.device, dtype=head.weight.dtype))
    if not isinstance(student, StaticForSequenceClassification):  # whose class is the same in either form
        plain.__class__ = type(student).__mro__[1]
    plain_config(plain.config)

    held_out = list(held_out)
    before, after = class_logits(student, held_out), class_logits(plain, held_out)
    report = fidelity(before, after, labels)
    if "accuracy" in report:
        report["accuracy_before"] = fidelity(before, before, labels)["accuracy"]
    if report["agreement"] < min_agreement:
        raise ValueError(
            f"The plain model agrees with the student on {report['agreement']:.1%} of {len(before)} held-out rows;"
            f" {min_agreement:.1%} was asked for. No linear boundary holds the subclasses of a class together. Publish"
            " the student as it is (trust_remote_code=True loads it), distil with student_head='auxiliary', fit on more"
            " rows, or ask for less with min_agreement."
        )
    return plain, report


def plain_config(config: Any) -> Any:
    """Take the entries of pseudo-subclasses out of a student's configuration, and return it."""
    for name in ("num_subclasses", "distillation_temperature", "auto_map"):
        if hasattr(config, name):
            delattr(config, name)
    return config


@torch.inference_mode()
def _embeddings(
    student: PreTrainedModel, name: str, batches: Batches
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the input, (N, D), and output, (N, C), of the student's final layer."""
    student.eval()
    head = student.get_submodule(name)
    embedding: list[NDArray[np.float32]] = []
    logits: list[NDArray[np.float32]] = []
    for batch in batches:
        inputs = _on_device(batch, student)
        with headless(student, [name]):
            hidden = logits_of(student(**inputs))
        if not embedding:
            check_embedding(student, [name], hidden, inputs)
        embedding.append(hidden.float().cpu().numpy())
        logits.append(head(hidden).float().cpu().numpy())
    if not embedding:
        raise ValueError("There are no rows to fit the final layer on.")
    return np.concatenate(embedding), np.concatenate(logits)
