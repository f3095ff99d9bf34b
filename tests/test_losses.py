"""The equations against a NumPy reference, and the properties that they promise."""

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_lelp.losses import distillation_loss, label_loss, subclass_loss, subclass_targets
from hf_lelp.student.modeling_lelp import SubclassHead

N, C, S = 12, 3, 4
TEMPERATURES = [(1.0, 1.0), (2.0, 0.5), (0.5, 3.0)]


def random_tensors(dtype: torch.dtype = torch.float64, size: float = 2.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Teacher logits (N, C), projections (N, C, S), student outputs (N, C·S), labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((N, C), (N, C, S), (N, C * S))
    z, u, o = (size * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    labels = torch.randint(C, (N,), generator=generator)
    labels[::4] = -100
    return z.to(dtype), u.to(dtype), o.to(dtype), labels


def whole_loss(z: Tensor, u: Tensor, o: Tensor, labels: Tensor, tau: float, beta: float, alpha: float) -> Tensor:
    """L of the method from the library's pieces, per example."""
    targets = subclass_targets(z, u, temperature=tau, subclass_temperature=beta)
    hard = label_loss(o.view(len(o), C, S).logsumexp(-1), labels)
    return alpha * hard + (1 - alpha) * distillation_loss(o, targets.flatten(1), temperature=tau)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize(("tau", "beta"), TEMPERATURES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_equals_the_reference(dtype: torch.dtype, tolerance: float, tau: float, beta: float, alpha: float) -> None:
    z, u, o, labels = random_tensors(dtype)
    targets = subclass_targets(z, u, temperature=tau, subclass_temperature=beta)
    expected_targets = reference.subclass_targets(z.numpy(), u.numpy(), tau, beta)
    np.testing.assert_allclose(targets, expected_targets, rtol=0, atol=tolerance)
    expected = reference.loss(o.numpy(), expected_targets, labels.numpy(), tau, alpha)
    np.testing.assert_allclose(whole_loss(z, u, o, labels, tau, beta, alpha), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("tau", "beta"), TEMPERATURES)
def test_targets_sum_to_the_teachers_tempered_class_probabilities(tau: float, beta: float) -> None:
    z, u, _, _ = random_tensors()
    targets = subclass_targets(z, u, temperature=tau, subclass_temperature=beta)
    torch.testing.assert_close(targets.sum(-1), (z / tau).softmax(-1), rtol=0, atol=1e-15)


def test_subclasses_of_a_class_follow_its_own_projections_alone() -> None:
    z, u, _, _ = random_tensors()
    within = subclass_targets(z, u, subclass_temperature=0.7)
    torch.testing.assert_close(within / within.sum(-1, keepdim=True), (u / 0.7).softmax(-1))


def plain_distillation(z: Tensor, o: Tensor, tau: float) -> Tensor:
    """Hinton's loss by torch's own cross-entropy with soft targets."""
    return F.cross_entropy(o / tau, (z / tau).softmax(-1), reduction="none") * tau**2


@pytest.mark.parametrize("tau", [1.0, 2.0, 3.7])
@pytest.mark.parametrize("with_projections", [False, True], ids=["no projections", "one projection"])
def test_one_subclass_is_plain_distillation_to_the_last_digit(tau: float, with_projections: bool) -> None:
    z, u, o, _ = random_tensors(torch.float32)
    o = o[:, :C]
    targets = subclass_targets(z, u[..., :1] if with_projections else None, temperature=tau, subclass_temperature=0.3)
    assert torch.equal(distillation_loss(o, targets.flatten(1), temperature=tau), plain_distillation(z, o, tau))
    assert torch.equal(SubclassHead(1, C, 1).split(o)[0], o)


def test_permuting_classes_permutes_the_results() -> None:
    z, u, o, labels = random_tensors()
    order = torch.tensor([2, 0, 1])
    targets = subclass_targets(z, u, temperature=2.0)
    permuted = subclass_targets(z[:, order], u[:, order], temperature=2.0)
    assert not torch.allclose(permuted, targets)
    torch.testing.assert_close(permuted, targets[:, order], rtol=0, atol=1e-15)
    moved = torch.where(labels == -100, labels, order.argsort()[labels.clamp(min=0)])
    o_moved = o.view(N, C, S)[:, order].flatten(1)
    losses = whole_loss(z, u, o, labels, 2.0, 0.5, 0.4)
    torch.testing.assert_close(whole_loss(z[:, order], u[:, order], o_moved, moved, 2.0, 0.5, 0.4), losses)


def test_softmax_of_class_logits_is_the_sum_of_subclass_probabilities() -> None:
    _, _, o, _ = random_tensors()
    probabilities = o.softmax(-1).view(N, C, S).sum(-1)
    torch.testing.assert_close(SubclassHead(1, C, S).split(o)[0].softmax(-1), probabilities, rtol=0, atol=1e-14)


def test_labels() -> None:
    _, _, o, labels = random_tensors()
    losses = label_loss(o[:, :C], labels)
    assert torch.equal(losses == 0, labels == -100)
    assert torch.equal(losses, F.cross_entropy(o[:, :C], labels, reduction="none"))


def test_label_smoothing_is_torchs() -> None:
    _, _, o, labels = random_tensors()
    losses = label_loss(o[:, :C], labels, label_smoothing=0.2)
    expected = F.cross_entropy(o[:, :C], labels, label_smoothing=0.2, reduction="none")
    assert torch.equal(losses, expected)
    assert not torch.equal(losses, label_loss(o[:, :C], labels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32_and_loses_nothing_more(dtype: torch.dtype) -> None:
    z, u, o, labels = random_tensors(dtype)
    targets = subclass_targets(z, u, temperature=2.0, subclass_temperature=0.5)
    soft, hard = distillation_loss(o, targets.flatten(1), temperature=2.0), label_loss(o[:, :C], labels)
    assert {targets.dtype, soft.dtype, hard.dtype} == {torch.float32}
    exact = subclass_targets(z.double(), u.double(), temperature=2.0, subclass_temperature=0.5)
    torch.testing.assert_close(targets.double(), exact, rtol=0, atol=1e-6)
    expected = distillation_loss(o.double(), exact.flatten(1), temperature=2.0)
    torch.testing.assert_close(soft.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(hard.double(), label_loss(o[:, :C].double(), labels), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("tau", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_finite_at_the_extremes(tau: float, beta: float, size: float) -> None:
    z, u, o, labels = random_tensors(torch.float32)
    z, u, o = (values / values.abs().max() * size for values in (z, u, o))
    o.requires_grad_()
    losses = whole_loss(z, u, o, labels, tau, beta, 0.5)
    losses.sum().backward()
    assert losses.isfinite().all() and (losses >= 0).all()
    assert o.grad is not None and o.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_gradients_are_those_of_finite_differences(alpha: float) -> None:
    z, u, o, labels = random_tensors()
    o.requires_grad_()
    assert torch.autograd.gradcheck(lambda outputs: whole_loss(z, u, outputs, labels, 2.0, 0.5, alpha), (o,))


def test_hintons_factor_keeps_the_gradients_size() -> None:
    z, _, o, _ = random_tensors()
    norms = []
    for tau in (10.0, 100.0):
        outputs = o[:, :C].clone().requires_grad_()
        distillation_loss(outputs, subclass_targets(z, temperature=tau).flatten(1), temperature=tau).sum().backward()
        assert outputs.grad is not None
        norms.append(outputs.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def subclass_loss_by_loops(o: np.ndarray, p: np.ndarray, tau: float) -> np.ndarray:
    """τ² · Σ_c p_c · CE(p(s | c), softmax_s(o_c / τ)), as it reads."""
    result = np.zeros(len(o))
    for n, outputs in enumerate(o.reshape(p.shape)):
        for c, of_class in enumerate(outputs):
            share, q = p[n, c].sum(), reference.softmax(of_class / tau)
            given = p[n, c] / share
            result[n] -= tau * tau * share * sum(g * np.log(q_s) for g, q_s in zip(given, q, strict=True))
    return result


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize(("tau", "beta"), TEMPERATURES)
def test_the_subclasses_part_equals_the_reference(
    dtype: torch.dtype, tolerance: float, tau: float, beta: float
) -> None:
    z, u, o, _ = random_tensors(dtype)
    targets = subclass_targets(z, u, temperature=tau, subclass_temperature=beta)
    exact = reference.subclass_targets(z.double().numpy(), u.double().numpy(), tau, beta)
    expected = subclass_loss_by_loops(o.double().numpy(), exact, tau)
    losses = subclass_loss(o, targets, temperature=tau)
    assert losses.dtype == dtype and losses.shape == (N,)
    np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("tau", "beta"), TEMPERATURES)
def test_the_classes_part_and_the_subclasses_part_make_up_the_papers_loss(tau: float, beta: float) -> None:
    z, u, o, _ = random_tensors()
    targets = subclass_targets(z, u, temperature=tau, subclass_temperature=beta)
    class_logits, subclass_logits = SubclassHead(1, C, S, tau).split(o)
    classes = distillation_loss(class_logits, targets.sum(-1), temperature=tau)
    subclasses = subclass_loss(subclass_logits, targets, temperature=tau)
    whole = distillation_loss(o, targets.flatten(1), temperature=tau)
    torch.testing.assert_close(classes + subclasses, whole, rtol=1e-14, atol=1e-14)
    # Neither part is the whole of it.
    assert (classes > 0.01).all() and (subclasses > 0.01).all()


@pytest.mark.parametrize("tau", [1.0, 2.0, 3.7])
def test_one_subclass_adds_nothing_to_the_last_digit(tau: float) -> None:
    z, u, o, _ = random_tensors(torch.float32)
    o = o[:, :C]
    targets = subclass_targets(z, u[..., :1], temperature=tau, subclass_temperature=0.3)
    subclasses = subclass_loss(o, targets, temperature=tau)
    assert torch.equal(subclasses, torch.zeros(N))
    classes = distillation_loss(o, targets.sum(-1), temperature=tau)
    assert torch.equal(classes + subclasses, plain_distillation(z, o, tau))


def test_the_subclasses_part_says_nothing_of_the_classes() -> None:
    z, u, o, _ = random_tensors()
    targets = subclass_targets(z, u, temperature=2.0)
    losses = subclass_loss(o, targets, temperature=2.0)
    # Whatever is added to all of a class's outputs is the other part's business.
    shift = torch.arange(N * C, dtype=o.dtype).view(N, C, 1).expand(N, C, S).flatten(1)
    torch.testing.assert_close(subclass_loss(o + shift, targets, temperature=2.0), losses)
    # It is least where the student's subclasses are the teacher's, whatever its classes are.
    right = 2.0 * targets.log().flatten(1)
    least = subclass_loss(right, targets, temperature=2.0)
    torch.testing.assert_close(subclass_loss(right + shift, targets, temperature=2.0), least)
    assert (least < losses - 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_subclasses_part_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, u, o, _ = random_tensors(dtype)
    targets = subclass_targets(z, u)
    losses = subclass_loss(o, targets, temperature=2.0)
    assert losses.dtype == torch.float32
    exact = subclass_loss(o.double(), targets.double(), temperature=2.0)
    torch.testing.assert_close(losses.double(), exact, rtol=1e-6, atol=0)


def test_gradients_of_the_subclasses_part_are_those_of_finite_differences() -> None:
    z, u, o, _ = random_tensors()
    targets = subclass_targets(z, u, temperature=2.0)
    o.requires_grad_()
    assert torch.autograd.gradcheck(lambda outputs: subclass_loss(outputs, targets, temperature=2.0), (o,))
