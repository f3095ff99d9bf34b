"""The losses that LELP is compared with, against NumPy loops, and the identities that their papers state."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import softmax
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes
from scipy.stats import norm, pearsonr
from torch import Tensor

from hf_lelp.compare.baselines.losses import (
    GaussianRegressor,
    annealed_logit_regression,
    comparative_loss,
    crd_loss,
    dist_loss,
    dkd_loss,
    embedding_mse,
    logit_regression,
    pkt_loss,
    procrustes_loss,
    rkd_loss,
    sp_loss,
    srd_loss,
    vid_loss,
)
from hf_lelp.losses import distillation_loss

N, C, D = 7, 4, 5
Loss = Callable[[Tensor, Tensor], Tensor]


def random_pair(
    size: int = C, dtype: torch.dtype = torch.float64, count: int = N, scale: float = 2.0
) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's logits or embeddings, (count, size)."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = scale * torch.randn(2, count, size, generator=generator, dtype=torch.float64)
    return student.to(dtype), teacher.to(dtype)


TARGET = torch.arange(N) % C
# Every loss as a function of a student's and a teacher's values of one size.
LOSSES: dict[str, Loss] = {
    "logit regression": logit_regression,
    "annealed": lambda s, t: annealed_logit_regression(s, t, 0.5, 10),
    "dkd": lambda s, t: dkd_loss(s, t, TARGET[: len(s)]),
    "embedding": embedding_mse,
    "vid": lambda s, t: vid_loss(s, s.new_full((s.shape[-1],), 0.25), t),
    "rkd": rkd_loss,
    "crd": crd_loss,
    "comparative": comparative_loss,
    "dist": dist_loss,
    "pkt": pkt_loss,
    "sp": sp_loss,
    "procrustes": procrustes_loss,
}
PAIRWISE = ("rkd", "crd", "comparative", "dist", "pkt", "sp", "procrustes")


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))


def huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLoss:
    def test_is_per_example_and_finite_with_its_gradient(self, name: str) -> None:
        student, teacher = random_pair()
        assert LOSSES[name](student, teacher).shape == (N,)
        student.requires_grad_()
        assert torch.autograd.gradcheck(lambda values: LOSSES[name](values, teacher), (student,))

    def test_falls_where_the_student_comes_closer(self, name: str) -> None:
        student, teacher = random_pair(scale=0.5)
        aim = teacher / 2 if name == "annealed" else teacher
        losses = [LOSSES[name](aim + share * (student - aim), teacher).mean().item() for share in (1, 0.5, 0)]
        assert losses == sorted(losses, reverse=True) and losses[0] > losses[2] + 1e-3

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_gives_float32_and_loses_nothing_more(self, name: str, dtype: torch.dtype) -> None:
        student, teacher = random_pair(dtype=dtype)
        losses = LOSSES[name](student, teacher)
        assert losses.dtype == torch.float32
        torch.testing.assert_close(
            losses.double(), LOSSES[name](student.double(), teacher.double()), rtol=1e-4, atol=1e-5
        )

    @pytest.mark.parametrize("case", ["equal rows", "zero", "teacher equal", "both", "one", "two", "large"])
    def test_degenerate_batches(self, name: str, case: str) -> None:
        student, teacher = random_pair(dtype=torch.float32, count={"one": 1, "two": 2}.get(case, N))
        if case in ("equal rows", "both"):
            student = student[:1].repeat(N, 1)
        if case in ("teacher equal", "both"):
            teacher = teacher[:1].repeat(N, 1)
        student = student * {"zero": 0.0, "large": 1e4}.get(case, 1.0)
        student.requires_grad_()
        losses = LOSSES[name](student, teacher)
        losses.sum().backward()
        assert losses.isfinite().all()
        assert student.grad is not None and student.grad.isfinite().all() and student.grad.abs().max() < 1e10

    def test_only_those_that_compare_examples_depend_on_the_batch(self, name: str) -> None:
        student, teacher = random_pair()
        cut = LOSSES[name](student[:3], teacher[:3])
        assert torch.allclose(cut, LOSSES[name](student, teacher)[:3]) == (name not in PAIRWISE)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "dkd"])  # its target would have to move along
class TestSymmetry:
    def test_permuting_examples_permutes_the_losses(self, name: str) -> None:
        student, teacher = random_pair()
        order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(LOSSES[name](student[order], teacher[order]), LOSSES[name](student, teacher)[order])

    def test_permuting_dimensions_changes_nothing(self, name: str) -> None:
        student, teacher = random_pair()
        order = torch.tensor([2, 0, 3, 1])
        moved = LOSSES[name](student[:, order], teacher[:, order])
        torch.testing.assert_close(moved, LOSSES[name](student, teacher))


class TestLogitRegression:
    def test_equals_the_reference(self) -> None:
        student, teacher = random_pair()
        expected = [
            np.mean([(s - t) ** 2 for s, t in zip(*rows, strict=True)]) for rows in zip(student, teacher, strict=True)
        ]
        np.testing.assert_allclose(logit_regression(student, teacher), expected)

    def test_a_shift_of_all_logits_counts(self) -> None:
        student, _ = random_pair()
        torch.testing.assert_close(logit_regression(student + 3, student), torch.full((N,), 9.0).double())

    def test_on_centred_logits_is_plain_distillation_at_a_high_temperature(self) -> None:
        student, teacher = random_pair()
        tau, targets = 1e3, (teacher / 1e3).softmax(-1)
        divergence = distillation_loss(student, targets, temperature=tau) - distillation_loss(
            teacher, targets, temperature=tau
        )
        centred = [logits - logits.mean(-1, keepdim=True) for logits in (student, teacher)]
        torch.testing.assert_close(divergence, logit_regression(*centred) / 2, rtol=1e-2, atol=1e-3)


class TestAnnealing:
    def test_the_teachers_share_rises_in_equal_steps(self) -> None:
        student, teacher = random_pair()
        for progress, share in [(0, 0.25), (0.2, 0.25), (0.25, 0.5), (0.5, 0.75), (0.74, 0.75), (0.75, 1), (1, 1)]:
            expected = ((student - share * teacher) ** 2).mean(-1)
            torch.testing.assert_close(annealed_logit_regression(student, teacher, progress, 4), expected)

    def test_one_step_is_logit_regression(self) -> None:
        student, teacher = random_pair()
        assert torch.equal(annealed_logit_regression(student, teacher, 0.3, 1), logit_regression(student, teacher))

    @pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
    def test_progress_is_a_share(self, progress: float) -> None:
        with pytest.raises(ValueError, match="share of the stage"):
            annealed_logit_regression(*random_pair(), progress, 10)


class TestDecoupled:
    @pytest.mark.parametrize(("tau", "alpha", "beta"), [(1.0, 1.0, 8.0), (4.0, 0.5, 2.0)])
    def test_equals_the_reference(self, tau: float, alpha: float, beta: float) -> None:
        student, teacher = random_pair()
        expected = []
        for s, t, c in zip(student.numpy(), teacher.numpy(), TARGET.tolist(), strict=True):
            q, p = softmax(s / tau), softmax(t / tau)
            binary = kl(np.array([p[c], 1 - p[c]]), np.array([q[c], 1 - q[c]]))
            rest = kl(np.delete(p, c) / (1 - p[c]), np.delete(q, c) / (1 - q[c]))
            expected.append(tau**2 * (alpha * binary + beta * rest))
        np.testing.assert_allclose(dkd_loss(student, teacher, TARGET, tau, alpha, beta), expected)

    @staticmethod
    def plain(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
        kl_by_class = F.kl_div((student / tau).log_softmax(-1), (teacher / tau).softmax(-1), reduction="none")
        return kl_by_class.sum(-1) * tau**2

    def test_parts_add_up_to_plain_distillation(self) -> None:
        student, teacher = random_pair()
        others = 1 - (teacher / 2).softmax(-1)[torch.arange(N), TARGET]
        target_part, rest = (dkd_loss(student, teacher, TARGET, 2.0, *weights) for weights in [(1, 0), (0, 1)])
        torch.testing.assert_close(target_part + others * rest, self.plain(student, teacher, 2.0))

    def test_two_classes_are_alpha_times_plain_distillation(self) -> None:
        student, teacher = random_pair(2)
        losses = dkd_loss(student, teacher, TARGET % 2, 3.0, alpha=0.7, beta=100.0)
        torch.testing.assert_close(losses, 0.7 * self.plain(student, teacher, 3.0))

    def test_without_a_label_the_target_is_the_teachers_argmax(self) -> None:
        student, teacher = random_pair()
        missing = torch.arange(N) % 2 == 0
        labels = torch.where(missing, -100, TARGET)
        filled = torch.where(missing, teacher.argmax(-1), TARGET)
        assert torch.equal(dkd_loss(student, teacher, labels), dkd_loss(student, teacher, filled))
        assert not torch.equal(dkd_loss(student, teacher, labels), dkd_loss(student, teacher, TARGET))

    def test_permuting_classes_changes_nothing(self) -> None:
        student, teacher = random_pair()
        order = torch.tensor([2, 0, 3, 1])
        moved = dkd_loss(student[:, order], teacher[:, order], order.argsort()[TARGET])
        torch.testing.assert_close(moved, dkd_loss(student, teacher, TARGET))

    def test_a_certain_teacher_and_student(self) -> None:
        logits = 1e4 * F.one_hot(TARGET, C).float()
        losses = dkd_loss(logits.requires_grad_(), logits.detach(), TARGET)
        losses.sum().backward()
        assert losses.eq(0).all() and logits.grad is not None and logits.grad.isfinite().all()


class TestEmbedding:
    def test_mean_of_standardised_embeddings_has_loss_one(self) -> None:
        _, teacher = random_pair(D, count=200)
        standardised = (teacher - teacher.mean(0)) / teacher.std(0, correction=0)
        assert embedding_mse(torch.zeros_like(teacher), standardised).mean().item() == pytest.approx(1)


class TestVariational:
    def test_equals_the_likelihood_of_scipy(self) -> None:
        mean, teacher = random_pair(D)
        raw = torch.linspace(-2, 2, D).double()
        deviation = np.sqrt(np.log1p(np.exp(raw.numpy())) + 1e-5)
        likelihood = norm.logpdf(teacher.numpy(), mean.numpy(), deviation).mean(-1)
        np.testing.assert_allclose(vid_loss(mean, raw, teacher), -likelihood - 0.5 * np.log(2 * np.pi))

    def test_fixed_variance_is_scaled_mse(self) -> None:
        mean, teacher = random_pair(D)
        variance = math.log1p(math.exp(0.3)) + 1e-5
        losses = vid_loss(mean, torch.full((D,), 0.3).double(), teacher)
        torch.testing.assert_close(losses, embedding_mse(mean, teacher) / (2 * variance) + math.log(variance) / 2)

    def test_regressor_starts_at_variance_one_and_learns_the_noise(self) -> None:
        torch.manual_seed(0)
        regressor = GaussianRegressor(3, 2)
        student = torch.randn(400, 3)
        noise = torch.tensor([0.1, 2.0])
        teacher = student @ torch.randn(3, 2) + noise * torch.randn(400, 2)
        mean, raw = regressor(student), regressor.raw_variance
        assert mean.shape == (400, 2)
        torch.testing.assert_close(F.softplus(raw), torch.ones(2))
        optimizer = torch.optim.Adam(regressor.parameters(), lr=0.05)
        for _ in range(400):
            optimizer.zero_grad()
            vid_loss(regressor(student), regressor.raw_variance, teacher).mean().backward()
            optimizer.step()
        torch.testing.assert_close(F.softplus(regressor.raw_variance).sqrt().detach(), noise, rtol=0.15, atol=0)

    def test_a_variance_that_vanishes(self) -> None:
        raw = torch.full((D,), -200.0, requires_grad=True)
        losses = vid_loss(*(random_pair(D, torch.float32)[0], raw), random_pair(D, torch.float32)[1])
        losses.sum().backward()
        assert losses.isfinite().all() and raw.grad is not None and raw.grad.isfinite().all()


class TestRelational:
    @staticmethod
    def reference(student: np.ndarray, teacher: np.ndarray) -> tuple[list[float], list[float]]:
        """Mean Huber losses of each example's distances and of the angles at it, by loops."""
        distance, angle = [], []
        for h in (student, teacher):
            gaps = {(i, j): np.linalg.norm(h[i] - h[j]) for i in range(N) for j in range(N) if i != j}
            mean = np.mean(list(gaps.values()))
            distance.append({pair: gap / (mean or 1) for pair, gap in gaps.items()})
            triplets = [(i, j, k) for i in range(N) for j in range(N) for k in range(N) if len({i, j, k}) == 3]
            direction = {(i, j): (h[i] - h[j]) / (gap or 1) for (i, j), gap in gaps.items()}
            angle.append({(i, j, k): direction[i, j] @ direction[k, j] for i, j, k in triplets})
        by_pair = {pair: huber(distance[0][pair] - distance[1][pair]) for pair in distance[0]}
        by_triplet = {triplet: huber(angle[0][triplet] - angle[1][triplet]) for triplet in angle[0]}
        return (
            [np.mean([loss for pair, loss in by_pair.items() if pair[0] == n]) for n in range(N)],
            [np.mean([loss for triplet, loss in by_triplet.items() if triplet[1] == n]) for n in range(N)],
        )

    def test_equals_the_reference_and_sizes_may_differ(self) -> None:
        student, teacher = random_pair(D)[0], random_pair(3)[1]
        distance, angle = self.reference(student.numpy(), teacher.numpy())
        np.testing.assert_allclose(rkd_loss(student, teacher, 1, 0), distance)
        np.testing.assert_allclose(rkd_loss(student, teacher, 0, 1), angle)
        np.testing.assert_allclose(rkd_loss(student, teacher), 25 * np.array(distance) + 50 * np.array(angle))

    @pytest.mark.parametrize("rows", [[0, 0, 1, 2, 2, 3, 4], [0] * N], ids=["some", "all"])
    def test_equal_rows_have_no_angle(self, rows: list[int]) -> None:
        student, teacher = random_pair(D)
        distance, angle = self.reference(student[rows].numpy(), teacher.numpy())
        np.testing.assert_allclose(rkd_loss(student[rows], teacher, 1, 0), distance)
        np.testing.assert_allclose(rkd_loss(student[rows], teacher, 0, 1), angle)

    def test_scaling_shifting_and_rotating_an_embedding_changes_nothing(self) -> None:
        student, teacher = random_pair(D)
        rotation = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))[
            0
        ]
        torch.testing.assert_close(rkd_loss(100 * student @ rotation + 3, teacher / 7 - 1), rkd_loss(student, teacher))
        torch.testing.assert_close(rkd_loss(5 * teacher @ rotation, teacher), torch.zeros(N).double())

    @pytest.mark.parametrize("count", [1, 2])
    def test_one_or_two_examples_have_no_relations(self, count: int) -> None:
        student, teacher = random_pair(D, count=count)
        student.requires_grad_()
        losses = rkd_loss(student, teacher)
        losses.sum().backward()
        torch.testing.assert_close(losses, torch.zeros(count).double())
        torch.testing.assert_close(student.grad, torch.zeros(count, D).double())

    @pytest.mark.parametrize("scale", [1e-4, 300.0])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_lengths_are_exact_under_autocast(self, scale: float, dtype: torch.dtype) -> None:
        student, teacher = random_pair(D, torch.float32)
        expected = rkd_loss(student, teacher)
        student = (scale * student).requires_grad_()
        with torch.autocast("cpu", dtype):
            losses = rkd_loss(student, teacher)
        losses.sum().backward()
        torch.testing.assert_close(losses, expected, rtol=1e-2, atol=1e-2)
        assert student.grad is not None and student.grad.isfinite().all()

    def test_a_pair_of_equal_rows_disturbs_no_other_gradient(self) -> None:
        # In float32, where a difference of near-infinite terms would leave its traces.
        student, teacher = random_pair(D, torch.float32)
        student[1] = student[0]
        grads = []
        for dtype in (torch.float32, torch.float64):
            values = student.detach().to(dtype, copy=True).requires_grad_()
            rkd_loss(values, teacher.to(dtype)).sum().backward()
            grads.append(values.grad)
        torch.testing.assert_close(grads[0].double(), grads[1], rtol=1e-3, atol=1e-4)


class TestContrastive:
    @pytest.mark.parametrize("temperature", [0.07, 1.0])
    def test_equals_the_reference(self, temperature: float) -> None:
        student, teacher = random_pair(D)
        s, t = ((h / h.norm(dim=-1, keepdim=True)).numpy() for h in (student, teacher))
        expected = [
            -np.log(softmax(t @ s[n] / temperature)[n]) - np.log(softmax(s @ t[n] / temperature)[n]) for n in range(N)
        ]
        np.testing.assert_allclose(crd_loss(student, teacher, temperature), expected)

    def test_lengths_do_not_count(self) -> None:
        student, teacher = random_pair(D)
        torch.testing.assert_close(crd_loss(5 * student, teacher / 3), crd_loss(student, teacher))

    def test_equal_embeddings_tell_nothing(self) -> None:
        student, teacher = random_pair(D)
        losses = crd_loss(student[:1].repeat(N, 1), teacher)
        assert losses.mean().item() > 2 * math.log(N) - 1e-6


class TestComparative:
    @pytest.mark.parametrize("tau", [1.0, 4.0])
    def test_equals_the_reference(self, tau: float) -> None:
        student, teacher = (values.numpy() for values in random_pair())
        expected = [
            np.mean(
                [
                    tau**2 * kl(softmax((teacher[i] - teacher[j]) / tau), softmax((student[i] - student[j]) / tau))
                    for j in range(N)
                    if j != i
                ]
            )
            for i in range(N)
        ]
        np.testing.assert_allclose(comparative_loss(*random_pair(), tau), expected)

    def test_what_all_examples_share_does_not_count(self) -> None:
        student, teacher = random_pair()
        torch.testing.assert_close(comparative_loss(teacher + student[:1], teacher), torch.zeros(N).double())


def rotated(embedding: Tensor) -> Tensor:
    """The embedding in another orthonormal basis."""
    square = torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return embedding @ torch.linalg.qr(square)[0]


class TestBatchRelationOfClasses:
    def test_equals_the_correlations_of_scipy(self) -> None:
        student, teacher = random_pair()
        p, q = ((logits / 3).softmax(-1).numpy() for logits in (student, teacher))
        expected = np.mean([9 * (1 - pearsonr(p[:, c], q[:, c])[0]) for c in range(C)])
        assert dist_loss(student, teacher, 3.0).mean().item() == pytest.approx(expected)

    def test_two_classes_have_one_relation_over_the_batch_and_none_within_an_example(self) -> None:
        student, teacher = random_pair(2)
        p, q = (logits.softmax(-1).numpy() for logits in (student, teacher))
        for own, other in zip(p, q, strict=True):  # what DIST calls the inter-class relation
            assert abs(pearsonr(own, other)[0]) == pytest.approx(1)
        expected = 1 - pearsonr(p[:, 0], q[:, 0])[0]
        assert dist_loss(student, teacher, 1.0).mean().item() == pytest.approx(expected) and expected > 0.1

    def test_standardised_logits_of_two_classes_are_the_same_for_every_example(self) -> None:
        """Which is why no method here standardises them."""
        logits, _ = random_pair(2)
        standard = (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, keepdim=True, correction=0)
        torch.testing.assert_close(standard.abs(), torch.ones(N, 2).double())

    def test_a_student_without_spread_is_half_way_to_no_correlation(self) -> None:
        _, teacher = random_pair()
        losses = dist_loss(teacher[:1].repeat(N, 1), teacher, 1.0)
        assert losses.mean().item() == pytest.approx(0.5, abs=1e-3)


class TestProbabilisticTransfer:
    def test_equals_the_reference_and_sizes_may_differ(self) -> None:
        student, teacher = random_pair(D)[0].numpy(), random_pair(3)[1].numpy()
        expected = []
        for i in range(N):
            rows = []
            for h in (teacher, student):
                cosines = [h[i] @ h[j] / np.linalg.norm(h[i]) / np.linalg.norm(h[j]) for j in range(N) if j != i]
                kernel = (np.array(cosines) + 1) / 2
                rows.append(kernel / kernel.sum())
            expected.append(kl(*rows) / (N - 1))
        losses = pkt_loss(torch.from_numpy(student), torch.from_numpy(teacher))
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-8)

    def test_lengths_and_rotations_do_not_count_and_places_do(self) -> None:
        student, teacher = random_pair(D)
        torch.testing.assert_close(pkt_loss(rotated(5 * student), teacher / 3), pkt_loss(student, teacher))
        assert not torch.allclose(pkt_loss(student + 3, teacher), pkt_loss(student, teacher), rtol=0.1)

    def test_opposite_examples_are_finite(self) -> None:
        line = torch.tensor([[1.0], [-1.0], [2.0]], requires_grad=True)
        losses = pkt_loss(line, torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
        losses.sum().backward()
        assert losses.isfinite().all() and line.grad is not None and line.grad.isfinite().all()


class TestSimilarityPreserving:
    def test_equals_the_reference_and_sizes_may_differ(self) -> None:
        student, teacher = random_pair(D)[0].numpy(), random_pair(3)[1].numpy()
        rows = [[h @ h[i] / np.linalg.norm(h @ h[i]) for i in range(N)] for h in (student, teacher)]
        expected = [np.mean((s - t) ** 2) for s, t in zip(*rows, strict=True)]
        np.testing.assert_allclose(sp_loss(torch.from_numpy(student), torch.from_numpy(teacher)), expected)

    def test_scale_and_rotations_do_not_count(self) -> None:
        student, teacher = random_pair(D)
        torch.testing.assert_close(sp_loss(rotated(5 * student), teacher / 3), sp_loss(student, teacher))


class TestProcrustes:
    def test_is_the_distance_of_scipy_before_it_scales(self) -> None:
        student, teacher = (values.numpy() for values in random_pair(D))
        x, y = ((h - h.mean(0)) / np.linalg.norm(h - h.mean(0)) for h in (student, teacher))
        rotation, _ = orthogonal_procrustes(x, y)
        losses = procrustes_loss(torch.from_numpy(student), torch.from_numpy(teacher))
        np.testing.assert_allclose(losses, np.full(N, np.square(x @ rotation - y).sum()))
        # SciPy's own disparity also chooses the best scale: 1 − s² where this is 2 − 2 s.
        assert procrustes(student, teacher)[2] == pytest.approx(1 - (1 - losses[0].item() / 2) ** 2)

    def test_scale_place_rotation_and_idle_dimensions_do_not_count(self) -> None:
        _, teacher = random_pair(D)
        wider = torch.cat([rotated(7 * teacher) - 2, torch.ones(N, 3)], dim=1)
        torch.testing.assert_close(procrustes_loss(wider, teacher), torch.zeros(N).double())

    @pytest.mark.parametrize("loss", [procrustes_loss, pkt_loss, sp_loss])
    def test_products_are_exact_under_autocast(self, loss: Loss) -> None:
        student, teacher = random_pair(D, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            inside = loss(student, teacher)
        torch.testing.assert_close(inside, loss(student, teacher))


class TestSemantic:
    def test_equals_the_reference(self) -> None:
        predicted, _ = random_pair(D)
        _, logits = random_pair()
        weight, bias = torch.randn(C, D, dtype=torch.float64), torch.randn(C, dtype=torch.float64)
        expected = [
            np.mean((weight.numpy() @ h.numpy() + bias.numpy() - z.numpy()) ** 2)
            for h, z in zip(predicted, logits, strict=True)
        ]
        np.testing.assert_allclose(srd_loss(predicted, logits, weight, bias), expected)

    def test_is_blind_to_what_the_teacher_s_layer_does_not_read(self) -> None:
        predicted, _ = random_pair(D)
        _, logits = random_pair(2)
        weight, bias = torch.eye(2, D).double(), torch.zeros(2).double()
        moved = predicted + torch.tensor([0, 0, 1, 2, 3]).double()
        torch.testing.assert_close(srd_loss(moved, logits, weight, bias), srd_loss(predicted, logits, weight, bias))
