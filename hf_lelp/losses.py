"""Computes the equations of LELP as pure functions of tensors (Loo et al., arXiv 2409.20449, section 3).

Symbols: N examples, C classes, S pseudo-subclasses per class; z teacher logits, u subclass projections, o student
outputs, τ `temperature`, β `subclass_temperature`, α `alpha`. Output c·S + s belongs to subclass s of class c.
All losses are per example, in float32 or better whatever the inputs' dtype. Their mean is therefore the same however a
batch is cut into pieces.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def subclass_targets(
    teacher_logits: Tensor,
    projections: Tensor | None = None,
    *,
    temperature: float = 1.0,
    subclass_temperature: float = 1.0,
) -> Tensor:
    """p(c, s | x) = softmax_c(z / τ)_c · softmax_s(u_c / β)_s: the student's targets.

    Summed over s they are exactly the teacher's tempered class probabilities.

    Args:
        teacher_logits: z, (N, C).
        projections: u, (N, C, S); `None` is S = 1, which is plain knowledge distillation.
        temperature: τ > 0.
        subclass_temperature: β > 0.

    Returns:
        (N, C, S), at least float32, each row summing to 1.
    """
    class_probabilities = widen(teacher_logits).div(temperature).softmax(-1).unsqueeze(-1)
    if projections is None:
        return class_probabilities
    return class_probabilities * widen(projections).div(subclass_temperature).softmax(-1)


def distillation_loss(student_logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """τ² · CE(p, softmax(o / τ)). Hinton's τ² keeps the size of the gradients when τ changes.

    Args:
        student_logits: o, (N, K) for K outputs.
        targets: p, (N, K), rows summing to 1.
        temperature: τ > 0.

    Returns:
        Loss per example, (N,).
    """
    log_q = widen(student_logits).div(temperature).log_softmax(-1)
    return -(targets * log_q).sum(-1) * temperature**2


def subclass_loss(subclass_logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """τ² · Σ_c p_c · CE(p(s | c), softmax_s(o_c / τ)): what the subclasses add to the classes' loss.

    The cross-entropy over all S·C outputs is the sum of two parts: `distillation_loss` of the class logits
    τ · logsumexp_s(o / τ), and this loss. With S = 1 it is 0.

    Args:
        subclass_logits: o, (N, C·S).
        targets: p(c, s), (N, C, S), rows summing to 1.
        temperature: τ > 0.

    Returns:
        Loss per example, (N,).
    """
    log_q = widen(subclass_logits).unflatten(-1, targets.shape[1:]).div(temperature).log_softmax(-1)
    return -(targets * log_q).sum((-1, -2)) * temperature**2


def label_loss(student_class_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """CE(y, class logits); an unlabelled example (label −100) has loss 0.

    Args:
        student_class_logits: (N, C).
        labels: (N,), int64.
        label_smoothing: share of the target spread evenly over the classes.

    Returns:
        Loss per example, (N,).
    """
    return F.cross_entropy(
        widen(student_class_logits), labels, ignore_index=-100, reduction="none", label_smoothing=label_smoothing
    )


def example_weights(probabilities: Tensor, class_weights: Tensor) -> Tensor:
    """Σ_c p_c w_c / Σ_c p̄_c w_c, the weight of each example; p̄ is the classes' mean over the training rows.

    `class_weights` holds w already divided by Σ_c p̄_c w_c, so that the weights have mean 1 over the training rows
    however these are cut into batches. With labels, p is their one-hot form, and the weight of an example w_y.

    Args:
        probabilities: p, (N, C).
        class_weights: (C,).

    Returns:
        (N,).
    """
    return widen(probabilities) @ class_weights.to(probabilities.device)


def widen(values: Tensor) -> Tensor:
    """Cast half precision to float32: a softmax over few classes cannot spare the bits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
