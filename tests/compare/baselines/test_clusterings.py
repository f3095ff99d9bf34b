"""Other pseudo-subclasses than LELP's: what they find, what they promise, and what they refuse."""

from typing import Protocol

import numpy as np
import pytest
import torch
from reference import null_projector, softmax
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

import hf_lelp.compare.baselines.clusterings as makers
from hf_lelp.compare.baselines.clusterings import (
    ABSENT,
    agglomerative,
    kmeans,
    oracle,
    random_partition,
    subclass_auxiliary_loss,
    teacher_subclasses,
    tsne_kmeans,
)
from hf_lelp.compare.baselines.directions import random_directions, shared_directions
from hf_lelp.losses import subclass_targets
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.principal_directions import Moments, principal_directions, row_space

C, S, D, PER_BLOB = 2, 3, 6, 25
N = C * S * PER_BLOB
WEIGHT = torch.randn(C, D, generator=torch.Generator().manual_seed(0))


class Maker(Protocol):
    def __call__(
        self,
        embedding: np.ndarray,
        teacher_logits: np.ndarray,
        classes: np.ndarray,
        *,
        num_subclasses: int,
        seed: int,
        weight: Tensor | None = None,
    ) -> np.ndarray: ...


CLUSTERINGS: list[Maker] = [kmeans, agglomerative, tsne_kmeans]
MAKERS: list[Maker] = [*CLUSTERINGS, random_partition]


def blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of well-separated blobs, S to a class, far from the origin; class and blob of each row."""
    rng = np.random.default_rng(0)
    blob = rng.permutation(np.arange(N) % (C * S))
    # Centres differ in what the final layer does not read.
    centres = 10 * rng.normal(size=(C * S, D)) @ null_projector(WEIGHT.numpy())
    embedding = 20_000 + centres[blob] + 0.3 * rng.normal(size=(N, D))
    return embedding.astype(np.float32), blob % C, blob // C


EMBEDDING, CLASSES, BLOB = blobs()
LOGITS = (EMBEDDING - EMBEDDING.mean(0)) @ WEIGHT.numpy().T


def own(scores: np.ndarray, classes: np.ndarray = CLASSES) -> np.ndarray:
    """The subclass of each row within its own class."""
    return scores[np.arange(len(scores)), classes].argmax(-1)


@pytest.mark.parametrize("maker", MAKERS)
class TestEveryMaker:
    @pytest.mark.parametrize("weight", [None, WEIGHT], ids=["whole", "null space"])
    def test_every_row_is_in_one_subclass_of_every_class(self, maker: Maker, weight: Tensor | None) -> None:
        scores = maker(EMBEDDING, LOGITS, CLASSES, num_subclasses=S, seed=0, weight=weight)
        assert scores.shape == (N, C, S) and scores.dtype == np.float32
        assert set(np.unique(scores)) == {ABSENT, 0.0} and ((scores == 0).sum(-1) == 1).all()

    def test_is_seeded(self, maker: Maker) -> None:
        first, again = (maker(EMBEDDING, LOGITS, CLASSES, num_subclasses=S, seed=7) for _ in range(2))
        assert np.array_equal(first, again)

    def test_too_few_rows(self, maker: Maker) -> None:
        rows = np.flatnonzero((CLASSES == 0) | (np.cumsum(CLASSES == 1) <= 2))
        with pytest.raises(ValueError, match="Class 1 has 2 rows, and num_subclasses=3"):
            maker(EMBEDDING[rows], LOGITS[rows], CLASSES[rows], num_subclasses=3, seed=0)

    def test_a_class_without_rows(self, maker: Maker) -> None:
        with pytest.raises(ValueError, match="Class 1 has 0 rows"):
            maker(EMBEDDING, LOGITS, np.zeros(N, dtype=int), num_subclasses=2, seed=0)

    def test_as_targets(self, maker: Maker) -> None:
        scores = maker(EMBEDDING, LOGITS, CLASSES, num_subclasses=S, seed=0)
        targets = subclass_targets(torch.from_numpy(LOGITS), torch.from_numpy(scores)).numpy()
        expected = np.stack([softmax(row) for row in LOGITS])[..., None] * (scores == 0)
        np.testing.assert_allclose(targets, expected, atol=1e-6)


@pytest.mark.parametrize("maker", CLUSTERINGS)
class TestClusterings:
    @pytest.mark.parametrize("weight", [None, WEIGHT], ids=["whole", "null space"])
    def test_recovers_blobs(self, maker: Maker, weight: Tensor | None) -> None:
        found = own(maker(EMBEDDING, LOGITS, CLASSES, num_subclasses=S, seed=0, weight=weight))
        for index in range(C):
            assert adjusted_rand_score(BLOB[index == CLASSES], found[index == CLASSES]) == 1

    def test_another_classs_rows_go_to_the_nearest_centroid(self, maker: Maker) -> None:
        scores = maker(EMBEDDING, LOGITS, CLASSES, num_subclasses=S, seed=0)
        found = own(scores)
        for index in range(C):
            of_class = index == CLASSES
            centroids = np.stack([EMBEDDING[of_class & (found == s)].mean(0) for s in range(S)])
            nearest = np.linalg.norm(EMBEDDING[:, None] - centroids, axis=-1).argmin(-1)
            assert np.array_equal(scores[:, index].argmax(-1), nearest)

    def test_what_the_final_layer_reads_is_left_out(self, maker: Maker) -> None:
        rng = np.random.default_rng(1)
        read = rng.normal(size=(N, C)).astype(np.float32) @ WEIGHT.numpy()
        plain, disturbed = (
            own(maker(embedding, LOGITS, CLASSES, num_subclasses=S, seed=0, weight=WEIGHT))
            for embedding in (EMBEDDING, EMBEDDING + 30 * read)
        )
        for index in range(C):
            assert adjusted_rand_score(plain[index == CLASSES], disturbed[index == CLASSES]) == 1

    def test_permuting_classes_permutes_the_scores(self, maker: Maker) -> None:
        scores, permuted = (
            maker(EMBEDDING, LOGITS, classes, num_subclasses=S, seed=0) for classes in (CLASSES, 1 - CLASSES)
        )
        assert np.array_equal(permuted[:, ::-1], scores)


def test_equal_rows_share_a_subclass() -> None:
    with pytest.warns(match="distinct clusters"):
        scores = kmeans(np.ones((N, D)), LOGITS, CLASSES, num_subclasses=S, seed=0)
    assert len(np.unique(own(scores))) == 1


@pytest.mark.parametrize("maker", [agglomerative, tsne_kmeans])
def test_a_subsample_is_enough(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "SUBSAMPLE", 40)
    found = own(maker(EMBEDDING, LOGITS, CLASSES, num_subclasses=S, seed=0))
    for index in range(C):
        assert adjusted_rand_score(BLOB[index == CLASSES], found[index == CLASSES]) == 1


class TestRandomPartition:
    def test_is_uniform_and_independent_of_the_embedding(self) -> None:
        count, parts = 30_000, 4
        rng = np.random.default_rng(0)
        embedding, logits = rng.normal(size=(count, 1)), np.zeros((count, 2))
        scores = random_partition(embedding, logits, np.arange(count) % 2, num_subclasses=parts, seed=3)
        other = random_partition(embedding + 1, logits, np.arange(count) % 2, num_subclasses=parts, seed=3)
        assert np.array_equal(scores, other)
        subclass = scores.argmax(-1)
        # Five standard errors of a share of 1/4; the two classes, and the sign of the embedding, tell nothing.
        error = 5 * np.sqrt(0.25 * 0.75 / (count / parts / 2))
        for rows in (slice(None), embedding[:, 0] > 0, subclass[:, 1] == 2):
            shares = np.bincount(subclass[rows, 0]) / len(subclass[rows])
            np.testing.assert_allclose(shares, 1 / parts, atol=error)

    def test_seeds_differ(self) -> None:
        first, second = (random_partition(EMBEDDING, LOGITS, CLASSES, num_subclasses=S, seed=s) for s in (0, 1))
        assert not np.array_equal(first, second)


class TestOracle:
    def test_by_hand(self) -> None:
        classes = np.array([0, 0, 0, 1, 1])
        fine = np.array([7, 2, 5, 3, 9])
        o, x = 0.0, ABSENT
        expected = [
            [[x, x, o], [o, o, x]],
            [[o, x, x], [o, o, x]],
            [[x, o, x], [o, o, x]],
            [[o, o, o], [o, x, x]],
            [[o, o, o], [x, o, x]],
        ]
        scores = oracle(fine, classes, 2)
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, expected)

    def test_fine_labels_that_classes_share(self) -> None:
        scores = oracle(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 2)
        assert own(scores, np.array([0, 0, 1, 1])).tolist() == [0, 1, 0, 1]

    def test_a_class_without_rows(self) -> None:
        with pytest.raises(ValueError, match="Class 1 has 0 rows"):
            oracle(np.array([0, 1]), np.array([0, 0]), 2)


def fitted(null_space: bool = True) -> ClassProjections:
    basis = row_space(WEIGHT) if null_space else np.zeros((D, 0))
    moments = [Moments(D) for _ in range(C)]
    for index, statistics in enumerate(moments):
        statistics.add(EMBEDDING[index == CLASSES].astype(np.float64))
    parts = [principal_directions(statistics, basis, S, index) for index, statistics in enumerate(moments)]
    directions, variance = (torch.tensor(np.stack(part)).float() for part in zip(*parts, strict=True))
    mean = torch.tensor(np.stack([statistics.mean for statistics in moments])).float()
    return ClassProjections(mean, directions, variance, torch.full((C,), N // C), null_space, "a teacher")


class TestRandomDirections:
    @pytest.mark.parametrize("null_space", [True, False])
    def test_are_orthonormal_and_read_what_the_principal_ones_may(self, null_space: bool) -> None:
        directions = random_directions(fitted(null_space), EMBEDDING, CLASSES, seed=0, weight=WEIGHT).directions
        torch.testing.assert_close(directions @ directions.mT, torch.eye(S).expand(C, S, S), atol=1e-6, rtol=0)
        read = (directions @ WEIGHT.T).abs().max().item()
        assert read < 1e-5 if null_space else read > 0.1

    def test_variance_is_that_of_the_projections(self) -> None:
        projections = random_directions(fitted(), EMBEDDING, CLASSES, seed=0, weight=WEIGHT)
        raw = projections({"teacher_embedding": EMBEDDING})["teacher_projections"]
        expected = np.stack([raw[index == CLASSES, index].var(0) for index in range(C)])
        np.testing.assert_allclose(projections.variance, expected, rtol=1e-4)
        total = fitted().variance.sum(-1)
        assert (projections.variance.sum(-1) < total).all()

    def test_all_else_is_kept(self) -> None:
        before = fitted()
        after = random_directions(before, EMBEDDING, CLASSES, seed=0, weight=WEIGHT)
        assert torch.equal(after.mean, before.mean) and torch.equal(after.count, before.count)
        assert (after.null_space, after.teacher) == (True, "a teacher")
        assert after.fingerprint != before.fingerprint
        assert not torch.equal(fitted().directions, after.directions)

    def test_seeds_and_classes_differ(self) -> None:
        a, again, b = (random_directions(fitted(), EMBEDDING, CLASSES, seed=s, weight=WEIGHT) for s in (0, 0, 1))
        assert torch.equal(a.directions, again.directions)
        assert not torch.allclose(a.directions, b.directions, atol=0.1)
        assert not torch.allclose(a.directions[0], a.directions[1], atol=0.1)

    def test_favour_no_direction(self) -> None:
        projections = fitted(null_space=False)
        drawn = torch.cat([random_directions(projections, EMBEDDING, CLASSES, seed=s).directions for s in range(300)])
        assert drawn.mean(0).abs().max() < 0.1
        torch.testing.assert_close(drawn.square().mean(0), torch.full((S, D), 1 / D), atol=0.04, rtol=0)

    def test_the_final_layer_is_needed(self) -> None:
        with pytest.raises(ValueError, match="pass weight"):
            random_directions(fitted(), EMBEDDING, CLASSES, seed=0)


class TestSharedDirections:
    @pytest.mark.parametrize("null_space", [True, False])
    def test_are_those_of_all_rows_centred_on_their_classes(self, null_space: bool) -> None:
        found = shared_directions(fitted(null_space), EMBEDDING, CLASSES, seed=0, weight=WEIGHT).directions.numpy()
        centred = EMBEDDING.astype(np.float64)
        for index in range(C):
            centred[index == CLASSES] -= centred[index == CLASSES].mean(0)
        if null_space:
            q, _ = np.linalg.qr(WEIGHT.numpy().T.astype(np.float64))
            centred -= centred @ q @ q.T
        expected = np.linalg.svd(centred, full_matrices=False)[2][:S]
        cosines = np.abs((found[0] * expected).sum(-1))
        np.testing.assert_allclose(cosines, 1, atol=1e-5)
        assert (found == found[0]).all()

    def test_variance_is_that_of_each_class(self) -> None:
        projections = shared_directions(fitted(), EMBEDDING, CLASSES, seed=0, weight=WEIGHT)
        raw = projections({"teacher_embedding": EMBEDDING})["teacher_projections"]
        expected = np.stack([raw[index == CLASSES, index].var(0) for index in range(C)])
        np.testing.assert_allclose(projections.variance, expected, rtol=1e-4)

    def test_the_final_layer_is_needed(self) -> None:
        with pytest.raises(ValueError, match="pass weight"):
            shared_directions(fitted(), EMBEDDING, CLASSES, seed=0)


class TestSubclassDistillation:
    @pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
    def test_targets_are_the_teachers_tempered_subclass_probabilities(self, tau: float) -> None:
        logits = 3 * torch.randn(8, C, S, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        class_logits, scores = teacher_subclasses(logits, tau)
        targets = subclass_targets(class_logits, scores, temperature=tau)
        expected = (logits.flatten(1) / tau).softmax(-1).view(8, C, S)
        torch.testing.assert_close(targets, expected, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("temperature", [0.1, 1.0])
    def test_auxiliary_loss_equals_the_reference(self, temperature: float) -> None:
        logits = torch.randn(9, C * S, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        unit = [(row - row.mean()) / (row - row.mean()).norm() for row in logits]
        expected = []
        for i in unit:
            terms = [torch.exp(i @ j / temperature) for j in unit]
            expected.append(-torch.log(torch.exp(i @ i / temperature) / (sum(terms) / len(terms))))
        losses = subclass_auxiliary_loss(logits, temperature)
        torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-6, atol=1e-8)

    def test_auxiliary_loss_rewards_examples_that_differ(self) -> None:
        same = torch.tensor([[1.0, 2.0, 5.0, -3.0]]).repeat(4, 1)
        torch.testing.assert_close(subclass_auxiliary_loss(same, 0.5), torch.zeros(4), atol=1e-6, rtol=0)
        apart = subclass_auxiliary_loss(torch.eye(4), 0.5)
        assert (apart < -1).all()
        # What each example's logits share, and their size, does not count.
        torch.testing.assert_close(subclass_auxiliary_loss(3 * torch.eye(4) + 1, 0.5), apart)

    def test_permuting_subclasses_changes_nothing(self) -> None:
        logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            subclass_auxiliary_loss(logits[:, [2, 0, 3, 1]], 1.0), subclass_auxiliary_loss(logits, 1.0)
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        logits = torch.randn(9, C, S, generator=torch.Generator().manual_seed(0)).to(dtype)
        results = [subclass_auxiliary_loss(logits.flatten(1), 0.5), *teacher_subclasses(logits, 2.0)]
        exact = [subclass_auxiliary_loss(logits.double().flatten(1), 0.5), *teacher_subclasses(logits.double(), 2.0)]
        for result, expected in zip(results, exact, strict=True):
            assert result.dtype == torch.float32
            torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("count", [1, 5])
    def test_auxiliary_loss_of_constant_logits_has_a_finite_gradient(self, count: int) -> None:
        logits = torch.ones(count, C * S, requires_grad=True)
        losses = subclass_auxiliary_loss(logits, 0.1)
        losses.sum().backward()
        assert losses.isfinite().all() and logits.grad is not None and logits.grad.isfinite().all()
