"""Losses and targets at the ends of their ranges, in every precision, and their gradients against finite differences.

tests/test_losses.py has the equations; here are the limits: logits up to 10⁴, τ and β from 10⁻³ to 10³.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_lelp.compare.baselines import losses as baselines
from hf_lelp.losses import distillation_loss, label_loss, subclass_loss, subclass_targets
from hf_lelp.student.modeling_lelp import SubclassHead

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
TEMPERATURES = st.floats(-3, 3).map(lambda power: 10.0**power)
LOGITS = st.floats(-1e4, 1e4) | st.sampled_from([0.0, -0.0, 1e4, -1e4, 1e-30])
N, C, S = 4, 2, 3


def values(draw: Any, *shape: int) -> Tensor:
    count = int(torch.tensor(shape).prod())
    return torch.tensor(draw(st.lists(LOGITS, min_size=count, max_size=count)), dtype=torch.float64).view(shape)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float, float]:
    """Teacher logits (N, C), scores (N, C, S), student outputs (N, C·S), τ, β."""
    dtype = draw(st.sampled_from(DTYPES))
    tensors = (values(draw, N, C), values(draw, N, C, S), values(draw, N, C * S))
    z, u, o = (tensor.to(dtype) for tensor in tensors)
    return z, u, o, draw(TEMPERATURES), draw(TEMPERATURES)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(inputs(), st.sampled_from(["paper", "in two parts", "auxiliary"]))
def test_targets_losses_and_gradients_are_finite(drawn: tuple[Tensor, Tensor, Tensor, float, float], form: str) -> None:
    z, u, o, tau, beta = drawn
    targets = subclass_targets(z, u, temperature=tau, subclass_temperature=beta)
    assert targets.isfinite().all() and (targets >= 0).all()
    torch.testing.assert_close(targets.sum((-1, -2)), torch.ones(N, dtype=targets.dtype), rtol=0, atol=1e-6)

    o.requires_grad_()
    if form == "paper":
        losses = distillation_loss(o, targets.flatten(1), temperature=tau)
    elif form == "in two parts":
        class_logits, subclass_logits = SubclassHead(1, C, S, tau).split(o.float())
        losses = distillation_loss(class_logits, targets.sum(-1), temperature=tau)
        losses = losses + subclass_loss(subclass_logits, targets, temperature=tau)
    else:
        losses = distillation_loss(o[:, :C], targets.sum(-1), temperature=tau) + tau * subclass_loss(o, targets)
    losses = losses + label_loss(o[:, :C], torch.tensor([0, 1, -100, 1]))
    losses.sum().backward()
    assert losses.isfinite().all() and (losses >= 0).all()
    assert o.grad is not None and o.grad.isfinite().all()


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(inputs())
def test_float32_keeps_to_float64(drawn: tuple[Tensor, Tensor, Tensor, float, float]) -> None:
    z, u, o, tau, beta = (value.float() if isinstance(value, Tensor) else value for value in drawn)
    exact = subclass_targets(z.double(), u.double(), temperature=tau, subclass_temperature=beta)
    losses = distillation_loss(o, exact.flatten(1).float(), temperature=tau).double()
    expected = distillation_loss(o.double(), exact.flatten(1), temperature=tau)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5 * tau**2 * max(1.0, float(o.abs().max()) / tau))
    targets = subclass_targets(z, u, temperature=tau, subclass_temperature=beta)
    # A rounding of z / τ in float32 moves a probability by as much, relative to its size.
    error = torch.finfo(torch.float32).eps * max(1.0, float(z.abs().max()) / tau + float(u.abs().max()) / beta)
    assume(error < 0.05)  # beyond, any target would do
    torch.testing.assert_close(targets.double(), exact, rtol=0, atol=4 * error)


# Of each loss that LELP is compared with: a function of what the student gives, (N, 3), and the teacher's, (N, 3).
BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logit regression": baselines.logit_regression,
    "annealed": lambda o, z: baselines.annealed_logit_regression(o, z, 0.3, 10),
    "dkd": lambda o, z: baselines.dkd_loss(o, z, torch.tensor([0, 2, -100, 1])),
    "dkd, cold": lambda o, z: baselines.dkd_loss(o, z, torch.tensor([0, 2, -100, 1]), temperature=1e-3),
    "dkd, two classes": lambda o, z: baselines.dkd_loss(o[:, :2], z[:, :2], torch.tensor([0, 1, -100, 1])),
    "embedding": baselines.embedding_mse,
    "vid": lambda o, z: baselines.vid_loss(o, torch.zeros(3, dtype=torch.float64), z),
    "rkd": baselines.rkd_loss,
    "crd": baselines.crd_loss,
    "comparative": baselines.comparative_loss,
}


@pytest.mark.parametrize("name", BASELINES)
@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_losses_of_other_methods_are_finite(name: str, data: Any) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    student, teacher = (values(data.draw, N, 3).to(dtype) for _ in range(2))
    student.requires_grad_()
    losses = BASELINES[name](student, teacher)
    # What half precision cannot hold is the gradient, not the loss: 2 · 10⁴ · 10⁴ is no float16.
    assert losses.shape == (N,) and losses.isfinite().all()
    if dtype is not torch.float16:
        losses.sum().backward()
        assert student.grad is not None and student.grad.isfinite().all()


@pytest.mark.parametrize("name", BASELINES)
def test_gradients_of_other_methods_are_those_of_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(N, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    scale = 1e-2 if name == "dkd, cold" else 1.0  # colder than that a softmax is a step
    student = (student * scale).requires_grad_()
    assert torch.autograd.gradcheck(lambda outputs: BASELINES[name](outputs, teacher * scale), (student,))


@pytest.mark.parametrize(("tau", "beta"), [(1e-1, 1e3), (1.0, 1.0), (30.0, 1e-1), (1e3, 10.0)])
def test_gradients_over_the_temperatures_are_those_of_finite_differences(tau: float, beta: float) -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = ((N, C), (N, C, S), (N, C * S))
    z, u, o = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    targets = subclass_targets(z, u, temperature=tau, subclass_temperature=beta)

    def two_parts(outputs: Tensor) -> Tensor:
        class_logits, subclass_logits = SubclassHead(1, C, S, tau).split(outputs)
        classes = distillation_loss(class_logits, targets.sum(-1), temperature=tau)
        return classes + subclass_loss(subclass_logits, targets, temperature=tau)

    o.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distillation_loss(x, targets.flatten(1), temperature=tau), (o,))
    assert torch.autograd.gradcheck(two_parts, (o,))
    # Targets are data, but nothing stops a gradient through them.
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: subclass_targets(x, u, temperature=tau), (z,))
