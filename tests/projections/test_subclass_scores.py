"""From raw projections to scores: the reference's arithmetic, the settings that it follows, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch

from hf_lelp import ClassProjections, LELPConfig
from hf_lelp.projections.subclass_scores import SubclassScores

N, C, K, S = 7, 2, 5, 3
RNG = np.random.default_rng(0)
VARIANCE = torch.tensor(RNG.uniform(0.5, 4, size=(C, K))).float()
PROJECTIONS = ClassProjections(
    mean=torch.zeros(C, K),
    directions=torch.eye(K).expand(C, K, K).contiguous(),
    variance=VARIANCE,
    count=torch.tensor([10, 10]),
    null_space=False,
    teacher="a",
)
COLUMN = torch.tensor(RNG.normal(size=(N, C, K))).float()


def config(**settings: Any) -> LELPConfig:
    return LELPConfig(output_dir="unused", use_cpu=True, num_subclasses=S, **settings)


def test_scores_are_the_first_directions_divided_by_the_class_scale() -> None:
    scores = SubclassScores(config(random_rotation=False), PROJECTIONS)(COLUMN)
    expected = COLUMN.numpy()[..., :S] / np.sqrt(VARIANCE.numpy()[:, :S].mean(-1))[:, None]
    assert scores.shape == (N, C, S)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize("scale_projections", [True, False])
def test_whitened_scores_are_divided_each_by_its_own_deviation(scale_projections: bool) -> None:
    settings = {"random_rotation": False, "whitening": 1.0, "scale_projections": scale_projections}
    scores = SubclassScores(config(**settings), PROJECTIONS)(COLUMN)
    np.testing.assert_allclose(scores, COLUMN.numpy()[..., :S] / np.sqrt(VARIANCE.numpy()[:, :S]), rtol=1e-6)


def test_a_rotation_keeps_lengths_and_changes_the_rest() -> None:
    rotated = SubclassScores(config(scale_projections=False), PROJECTIONS)(COLUMN)
    np.testing.assert_allclose(rotated.norm(dim=-1), COLUMN[..., :S].norm(dim=-1), rtol=1e-5)
    assert (rotated - COLUMN[..., :S]).abs().max() > 0.1


def test_the_rotation_seed_goes_before_the_seed() -> None:
    by_seed = SubclassScores(config(seed=3), PROJECTIONS)(COLUMN)
    assert SubclassScores(config(seed=9, rotation_seed=3), PROJECTIONS)(COLUMN).equal(by_seed)
    assert not SubclassScores(config(seed=9), PROJECTIONS)(COLUMN).equal(by_seed)


def test_changes_of_the_settings_are_followed() -> None:
    args = config(rotation_seed=1)
    scores = SubclassScores(args, PROJECTIONS)
    first = scores(COLUMN)
    args.rotation_seed = 2
    assert not scores(COLUMN).equal(first)
    args.num_subclasses = 2
    assert scores(COLUMN).shape == (N, C, 2)
    args.num_subclasses, args.rotation_seed = S, 1
    assert scores(COLUMN).equal(first)
    args.whitening = 1.0
    assert not scores(COLUMN).equal(first)


def test_columns_may_come_on_one_device_and_then_on_another() -> None:
    scores = SubclassScores(config(), PROJECTIONS)
    on_cpu = scores(COLUMN)
    assert scores(COLUMN.to("meta")).device.type == "meta"
    assert scores(COLUMN).equal(on_cpu)


def test_half_precision_columns_give_scores_in_float32() -> None:
    assert SubclassScores(config(), PROJECTIONS)(COLUMN.half()).dtype == torch.float32


def test_scores_are_taken_as_they_are_without_rotation_and_scale() -> None:
    scores = SubclassScores(config(random_rotation=False, scale_projections=False), None)
    assert scores(COLUMN).equal(COLUMN[..., :S])


@pytest.mark.parametrize("name", ["random_rotation", "scale_projections", "whitening"])
def test_each_needs_the_projections(name: str) -> None:
    settings = {"random_rotation": False, "scale_projections": False, name: True}
    with pytest.raises(ValueError, match="the projections that made them are needed for their rotation and scale"):
        SubclassScores(config(**settings), None)(COLUMN)


def test_columns_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has shape \(2, 4\) per row, and these projections give \(2, 5\)"):
        SubclassScores(config(), PROJECTIONS)(COLUMN[..., :4])
