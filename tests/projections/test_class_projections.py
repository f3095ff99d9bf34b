"""The fit against a NumPy reference, its properties and its refusals."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import reference
import runs
import torch
from datasets import ClassLabel, Dataset, IterableDataset
from projected import DATASET, EMBEDDING, FITTED, HEAD, LABELS, LOGITS, C, D, N, S, make_dataset
from scipy.stats import ortho_group

from hf_lelp.classifiers import LinearHead
from hf_lelp.losses import subclass_targets
from hf_lelp.projections.class_projections import ClassProjections
from hf_lelp.projections.principal_directions import Moments


class TestFit:
    @pytest.mark.parametrize("null_space", [True, False])
    def test_equals_the_reference(self, null_space: bool) -> None:
        fitted = ClassProjections.fit(DATASET, HEAD, S, null_space=null_space)
        expected = reference.fit(EMBEDDING, LABELS, HEAD.weight.numpy(), S, null_space)
        means = np.stack([EMBEDDING[c == LABELS].mean(0, dtype=np.float64) for c in range(C)])
        np.testing.assert_allclose(fitted.mean, means, atol=1e-6)
        directions = reference.align(expected.directions, fitted.directions.numpy())
        np.testing.assert_allclose(fitted.directions, directions, atol=1e-5)
        np.testing.assert_allclose(fitted.variance, expected.variance, rtol=1e-5)
        assert fitted.count.tolist() == [N // C] * C
        assert (fitted.num_classes, fitted.num_directions) == (C, S)
        assert (fitted.null_space, fitted.teacher) == (null_space, "a teacher")

    @pytest.mark.parametrize("null_space", [True, False])
    @pytest.mark.parametrize(
        ("scale", "whitening"), [(True, 0), (False, 0), (True, 0.5), (False, 0.5), (True, 1), (False, 1)]
    )
    @pytest.mark.parametrize("random_rotation", [True, False])
    def test_targets_equal_the_reference(
        self, null_space: bool, scale: bool, whitening: float, random_rotation: bool
    ) -> None:
        tau, beta = 2.0, 0.5
        fitted = ClassProjections.fit(DATASET, HEAD, S, null_space=null_space)
        rotation = fitted.rotation(S, scale=scale, whitening=whitening, random_rotation=random_rotation, seed=5)
        raw = torch.from_numpy(fitted({"teacher_embedding": EMBEDDING})["teacher_projections"])
        u = torch.einsum("nck,cks->ncs", raw, rotation)
        targets = subclass_targets(torch.from_numpy(LOGITS), u, temperature=tau, subclass_temperature=beta)

        expected = reference.fit(EMBEDDING, LABELS, HEAD.weight.numpy(), S, null_space)
        expected = expected._replace(directions=reference.align(expected.directions, fitted.directions.numpy()))
        q = fitted.rotation(S, scale=False, seed=5).numpy() if random_rotation else None
        again = reference.targets(LOGITS, EMBEDDING, expected, tau, beta, q, scale, whitening)
        np.testing.assert_allclose(targets, again, atol=2e-5)

    @pytest.mark.parametrize("null_space", [True, False])
    def test_null_space_keeps_directions_out_of_what_the_final_layer_reads(self, null_space: bool) -> None:
        fitted = ClassProjections.fit(DATASET, HEAD, S, null_space=null_space)
        read = (fitted.directions @ HEAD.weight.T).abs().max().item()
        assert read < 1e-5 if null_space else read > 0.1

    def test_directions_are_orthonormal_and_variances_fall(self) -> None:
        gram = FITTED.directions @ FITTED.directions.mT
        torch.testing.assert_close(gram, torch.eye(S).expand(C, S, S), atol=1e-6, rtol=0)
        assert (FITTED.variance.diff(dim=-1) < 0).all() and (FITTED.variance > 0).all()

    def test_fewer_directions_are_the_leading_ones(self) -> None:
        fewer = ClassProjections.fit(DATASET, HEAD, 2)
        torch.testing.assert_close(fewer.directions, FITTED.directions[:, :2])
        torch.testing.assert_close(fewer.variance, FITTED.variance[:, :2])

    @pytest.mark.parametrize("batch_size", [1, 7, 64])
    def test_streaming_equals_one_batch(self, batch_size: int) -> None:
        # Classes in blocks, so that small batches lack some of them.
        rows = DATASET.select(np.argsort(LABELS, kind="stable"))
        streamed = ClassProjections.fit(rows, HEAD, S, batch_size=batch_size)
        torch.testing.assert_close(streamed.mean, FITTED.mean, atol=1e-6, rtol=0)
        torch.testing.assert_close(streamed.directions, FITTED.directions, atol=1e-5, rtol=0)
        torch.testing.assert_close(streamed.variance, FITTED.variance, rtol=1e-5, atol=0)
        assert torch.equal(streamed.count, FITTED.count)

    def test_a_stream_equals_the_dataset(self) -> None:
        def generate() -> Iterator[dict[str, Any]]:
            yield from DATASET

        for stream in (DATASET.to_iterable_dataset(), IterableDataset.from_generator(generate)):
            streamed = ClassProjections.fit(stream, HEAD, S, batch_size=64)
            assert streamed.fingerprint == ClassProjections.fit(DATASET, HEAD, S, batch_size=64).fingerprint

    def test_parts_fitted_apart_and_reduced_equal_one_fit(self) -> None:
        """Two processes: what `reduce` gets is one's own, what it gives is everyone's."""
        parts: list[list[Moments]] = []

        def gather(moments: list[Moments]) -> list[Moments]:
            for own, others in zip(moments, *parts, strict=True):
                own.merge(others)
            return moments

        def keep(moments: list[Moments]) -> list[Moments]:
            parts.append(copy.deepcopy(moments))
            return moments

        order = np.random.default_rng(0).permutation(N)
        ClassProjections.fit(DATASET.select(order[:70]), HEAD, S, reduce=keep)
        fitted = ClassProjections.fit(DATASET.select(order[70:]), HEAD, S, reduce=gather)
        torch.testing.assert_close(fitted.mean, FITTED.mean, atol=1e-6, rtol=0)
        torch.testing.assert_close(fitted.directions, FITTED.directions, atol=1e-5, rtol=0)
        torch.testing.assert_close(fitted.variance, FITTED.variance, rtol=1e-5, atol=0)
        assert torch.equal(fitted.count, FITTED.count)

    def test_means_far_from_the_origin_cost_no_precision(self) -> None:
        far = (EMBEDDING.astype(np.float64) + 1000).astype(np.float32)
        fitted = ClassProjections.fit(make_dataset(far, HEAD, label=LABELS), HEAD, S, batch_size=11)
        expected = reference.fit(far, LABELS, HEAD.weight.numpy(), S, True)
        np.testing.assert_allclose(fitted.variance, expected.variance, rtol=1e-5)
        raw = fitted({"teacher_embedding": far})["teacher_projections"]
        own = raw[np.arange(N), LABELS]
        np.testing.assert_allclose([own[c == LABELS].mean() for c in range(C)], 0, atol=1e-4)

    def test_permuting_classes_permutes_the_fit(self) -> None:
        order = [2, 0, 1]
        head = LinearHead(HEAD.weight[order], HEAD.bias[order], "a teacher")
        permuted = ClassProjections.fit(make_dataset(EMBEDDING, head, label=np.argsort(order)[LABELS]), head, S)
        torch.testing.assert_close(permuted.mean, FITTED.mean[order])
        torch.testing.assert_close(permuted.directions, FITTED.directions[order], atol=1e-5, rtol=0)
        torch.testing.assert_close(permuted.variance, FITTED.variance[order])

    def test_a_refit_is_the_same(self) -> None:
        assert ClassProjections.fit(DATASET, HEAD, S).fingerprint == FITTED.fingerprint

    def test_the_datasets_format_does_not_matter(self) -> None:
        assert ClassProjections.fit(DATASET.with_format("torch"), HEAD, S).fingerprint == FITTED.fingerprint


class TestClasses:
    """Whose example is it: the label's, or the teacher's argmax where there is none."""

    @staticmethod
    def expected_count(labels: np.ndarray | None) -> list[int]:
        return np.bincount(reference.assign(LOGITS, labels), minlength=C).tolist()

    def test_without_labels_the_teachers_argmax_counts(self) -> None:
        count = ClassProjections.fit(DATASET.remove_columns("label"), HEAD, 2).count.tolist()
        assert count == self.expected_count(None) != FITTED.count.tolist()

    @pytest.mark.parametrize("missing", [-100, -1, None])
    def test_a_missing_label_falls_back_row_by_row(self, missing: int | None) -> None:
        labels = [missing if n % 2 else int(label) for n, label in enumerate(LABELS)]
        fitted = ClassProjections.fit(make_dataset(EMBEDDING, HEAD, label=labels), HEAD, 2, batch_size=20)
        expected = np.array([-100 if n % 2 else label for n, label in enumerate(LABELS)])
        assert fitted.count.tolist() == self.expected_count(expected)
        assert fitted.count.sum() == N

    def test_class_labels(self) -> None:
        dataset = DATASET.cast_column("label", ClassLabel(names=["a", "b", "c"]))
        assert ClassProjections.fit(dataset, HEAD, S).fingerprint == FITTED.fingerprint

    @pytest.mark.parametrize("name", ["labels", "label"])
    def test_the_usual_columns_are_found(self, name: str) -> None:
        assert ClassProjections.fit(make_dataset(EMBEDDING, HEAD, **{name: LABELS}), HEAD, 2).count.tolist() == [50] * 3

    def test_a_column_may_be_named(self) -> None:
        dataset = make_dataset(EMBEDDING, HEAD, label=np.zeros(N, int), truth=LABELS)
        assert ClassProjections.fit(dataset, HEAD, 2, label_column="truth").count.tolist() == [50] * 3

    @pytest.mark.parametrize("label", [3, 0.5, "positive"])
    def test_labels_that_are_no_classes(self, label: Any) -> None:
        labels = [*LABELS[1:].tolist(), label] if not isinstance(label, str) else [label] * N
        with pytest.raises(ValueError, match=f"The label .*{label}.* is no"):
            ClassProjections.fit(make_dataset(EMBEDDING, HEAD, label=labels), HEAD, 2)


class TestCall:
    def test_every_example_is_projected_on_every_classs_directions(self) -> None:
        raw = FITTED({"teacher_embedding": EMBEDDING[:20].tolist()})["teacher_projections"]
        assert raw.shape == (20, C, S) and raw.dtype == np.float32
        for n in range(20):
            for c in range(C):
                for s in range(S):
                    expected = (EMBEDDING[n] - FITTED.mean[c].numpy()) @ FITTED.directions[c, s].numpy()
                    assert raw[n, c, s] == pytest.approx(expected, abs=1e-5)

    def test_in_map(self) -> None:
        mapped = DATASET.map(FITTED, batched=True, batch_size=13, new_fingerprint="mapped")
        whole = FITTED({"teacher_embedding": EMBEDDING})["teacher_projections"]
        np.testing.assert_allclose(mapped.with_format("numpy")["teacher_projections"][:], whole, atol=1e-6)

    def test_projections_of_the_fitted_examples_have_the_stored_variances(self) -> None:
        raw = FITTED({"teacher_embedding": EMBEDDING})["teacher_projections"]
        variance = np.stack([raw[c == LABELS, c].var(0) for c in range(C)])
        np.testing.assert_allclose(variance, FITTED.variance, rtol=1e-4)

    def test_another_size_is_refused(self) -> None:
        with pytest.raises(ValueError, match="7 dimensions and these projections were fitted on 10"):
            FITTED({"teacher_embedding": EMBEDDING[:, :7]})


class TestRotation:
    def test_is_orthonormal_and_seeded_and_differs_by_class(self) -> None:
        q = FITTED.rotation(S, scale=False, seed=3)
        torch.testing.assert_close(q @ q.mT, torch.eye(S).expand(C, S, S), atol=1e-6, rtol=0)
        assert torch.equal(q, FITTED.rotation(S, scale=False, seed=3))
        assert not torch.allclose(q, FITTED.rotation(S, scale=False, seed=4), atol=0.1)
        assert not any(torch.allclose(q[a], q[b], atol=0.1) for a, b in [(0, 1), (0, 2), (1, 2)])

    def test_gives_every_direction_the_same_variance_in_expectation(self) -> None:
        before = FITTED.variance.numpy()
        assert (before[:, 0] > 1.5 * before[:, -1]).all()
        # The variance along column s of Q, for variances λ of the principal directions: Σ_k λ_k Q_ks².
        seeds = 600
        rotations = torch.stack([FITTED.rotation(S, scale=False, seed=seed) for seed in range(seeds)]).numpy()
        after = np.einsum("ck,rcks->rcs", before, rotations**2)
        expected = np.broadcast_to(before.mean(-1, keepdims=True), (C, S))
        error = after.std(0) / np.sqrt(seeds)
        assert (np.abs(after.mean(0) - expected) < 4.5 * error).all()

    @pytest.mark.parametrize("num_subclasses", [2, S])
    def test_rotations_are_drawn_as_scipy_draws_them(self, num_subclasses: int) -> None:
        rotation = FITTED.rotation(num_subclasses, scale=False, seed=7)
        for index, found in enumerate(rotation):
            expected = ortho_group.rvs(num_subclasses, random_state=np.random.default_rng([7, index]))
            np.testing.assert_allclose(found, expected, atol=1e-6)

    @pytest.mark.parametrize("random_rotation", [True, False])
    @pytest.mark.parametrize("num_subclasses", [1, 2, S])
    def test_scale_makes_the_mean_variance_one_whatever_the_rotation(
        self, random_rotation: bool, num_subclasses: int
    ) -> None:
        raw = FITTED({"teacher_embedding": EMBEDDING})["teacher_projections"][..., :num_subclasses]
        for seed in range(3):
            rotation = FITTED.rotation(num_subclasses, random_rotation=random_rotation, seed=seed).numpy()
            for c in range(C):
                u = raw[c == LABELS, c] @ rotation[c]
                assert u.var(0).mean() == pytest.approx(1, abs=1e-4)

    @pytest.mark.parametrize("random_rotation", [True, False])
    @pytest.mark.parametrize("num_subclasses", [1, 2, S])
    def test_whitened_scores_have_variance_one_and_do_not_go_together(
        self, random_rotation: bool, num_subclasses: int
    ) -> None:
        raw = FITTED({"teacher_embedding": EMBEDDING})["teacher_projections"][..., :num_subclasses]
        rotation = FITTED.rotation(num_subclasses, random_rotation=random_rotation, whitening=1).numpy()
        for c in range(C):
            u = raw[c == LABELS, c] @ rotation[c]
            covariance = (u - u.mean(0)).T @ (u - u.mean(0)) / len(u)
            np.testing.assert_allclose(covariance, np.eye(num_subclasses), atol=1e-4)

    def test_each_step_can_be_switched_off(self) -> None:
        neither = FITTED.rotation(S, random_rotation=False, scale=False)
        assert torch.equal(neither, torch.eye(S).expand(C, S, S))
        scaled = FITTED.rotation(S, random_rotation=False)
        rms = FITTED.variance.mean(-1).sqrt()
        torch.testing.assert_close(scaled, torch.eye(S) / rms[:, None, None])
        torch.testing.assert_close(FITTED.rotation(S), FITTED.rotation(S, scale=False) / rms[:, None, None])

    def test_one_subclass(self) -> None:
        torch.testing.assert_close(FITTED.rotation(1).flatten(), FITTED.variance[:, 0].rsqrt())

    def test_more_subclasses_than_directions(self) -> None:
        with pytest.raises(ValueError, match="num_subclasses=5, but these projections hold 4 directions"):
            FITTED.rotation(5)


class TestRefusals:
    def test_too_few_examples(self) -> None:
        rows = [n for n in range(N) if LABELS[n] != 1 or n < 10]  # rows 1, 4, 7 are of class 1
        with pytest.raises(
            ValueError, match=r"Class 1 has 3 examples .* span 2 directions .*num_subclasses=2 or fewer"
        ):
            ClassProjections.fit(DATASET.select(rows), HEAD, S)
        assert ClassProjections.fit(DATASET.select(rows), HEAD, 2).count.tolist() == [50, 3, 50]

    def test_rank_within_the_null_space(self) -> None:
        assert ClassProjections.fit(DATASET, HEAD, D - C).num_directions == D - C
        with pytest.raises(ValueError, match=r"50 examples .* span 7 directions \(10 dimensions, 3 of them read"):
            ClassProjections.fit(DATASET, HEAD, D - C + 1)
        assert ClassProjections.fit(DATASET, HEAD, D, null_space=False).num_directions == D

    def test_rank_of_a_final_layer_whose_rows_depend_on_each_other(self) -> None:
        weight = HEAD.weight.clone()
        weight[2] = weight[0] - weight[1]
        head = LinearHead(weight, HEAD.bias, "a teacher")
        assert ClassProjections.fit(make_dataset(EMBEDDING, head, label=LABELS), head, D - 2).num_directions == D - 2

    def test_rank_of_embeddings_in_a_plane(self) -> None:
        rng = np.random.default_rng(0)
        flat = (3 + rng.normal(size=(N, 2)) @ rng.normal(size=(2, D))).astype(np.float32)
        with pytest.raises(ValueError, match=r"Class 0 .* span 2 directions"):
            ClassProjections.fit(make_dataset(flat, HEAD, label=LABELS), HEAD, 3, null_space=False)

    def test_identical_embeddings(self) -> None:
        same = np.repeat(EMBEDDING[:1], N, axis=0)
        with pytest.raises(ValueError, match=r"span 0 directions .*num_subclasses=1"):
            ClassProjections.fit(make_dataset(same, HEAD, label=LABELS), HEAD, 2)

    def test_fewer_directions_that_will_do(self) -> None:
        rows = [n for n in range(N) if LABELS[n] != 1 or n < 10]  # three of class 1
        few = ClassProjections.fit(DATASET.select(rows), HEAD, S, at_least=2)
        exact = ClassProjections.fit(DATASET.select(rows), HEAD, 2)
        assert few.num_directions == 2 and few.fingerprint == exact.fingerprint
        with pytest.raises(ValueError, match=r"Class 1 has 3 examples .* span 2 directions .*; 3 were asked for"):
            ClassProjections.fit(DATASET.select(rows), HEAD, S, at_least=3)
        enough = ClassProjections.fit(DATASET, HEAD, S, at_least=1)
        assert enough.fingerprint == ClassProjections.fit(DATASET, HEAD, S).fingerprint

    def test_an_empty_class(self) -> None:
        with pytest.raises(ValueError, match="No example of class 2"):
            ClassProjections.fit(DATASET.filter(lambda row: row["label"] != 2), HEAD, 2)

    def test_an_empty_dataset(self) -> None:
        with pytest.raises(ValueError, match="No example of class 0"):
            ClassProjections.fit(DATASET.select([]), HEAD, 2)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("row", [0, 31, N - 1])
    def test_a_value_that_is_not_finite_is_named_by_its_row(self, value: float, row: int) -> None:
        broken = EMBEDDING.copy()
        broken[row, 3] = value
        dataset = Dataset.from_dict({"teacher_embedding": broken, "teacher_logits": LOGITS, "label": LABELS})
        for rows in (dataset, dataset.to_iterable_dataset()):
            with pytest.raises(ValueError, match=f"row {row} is not finite"):
                ClassProjections.fit(rows, HEAD, S, batch_size=16)

    def test_rows_are_counted_from_the_one_that_is_first(self) -> None:
        broken = EMBEDDING.copy()
        broken[31, 3] = np.nan
        dataset = Dataset.from_dict({"teacher_embedding": broken, "teacher_logits": LOGITS})
        with pytest.raises(ValueError, match="row 900031 is not finite"):
            ClassProjections.fit(dataset, HEAD, S, first_row=900_000)

    def test_another_teachers_rows(self) -> None:
        dataset = DATASET.add_column("teacher_fingerprint", ["a teacher"] * (N - 1) + ["another"])
        for rows in (dataset, dataset.to_iterable_dataset()):
            with pytest.raises(ValueError, match="made by the teacher of fingerprint another"):
                ClassProjections.fit(rows, HEAD, S, batch_size=16)

    def test_embeddings_of_another_size(self) -> None:
        dataset = Dataset.from_dict({"teacher_embedding": EMBEDDING[:, :7], "teacher_logits": LOGITS})
        with pytest.raises(ValueError, match=r"shape \(7,\) per row and the teacher's final layer reads 10"):
            ClassProjections.fit(dataset, HEAD, 2)

    @pytest.mark.parametrize("column", ["teacher_embedding", "teacher_logits"])
    def test_a_missing_column(self, column: str) -> None:
        with pytest.raises(ValueError, match=f"no column {column} .*map"):
            ClassProjections.fit(DATASET.remove_columns(column), HEAD, 2)


def test_what_it_shows_of_itself_is_one_line() -> None:
    _, projections = runs.prepared()
    shown = repr(projections)
    assert "\n" not in shown and len(shown) < 200
    assert shown.startswith("ClassProjections(classes=2, directions=2, embedding=16, count=[")
