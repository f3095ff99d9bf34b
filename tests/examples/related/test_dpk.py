"""DPK of examples/related, on tiny models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny_media
import torch
from transformers import AutoModelForImageClassification

from examples.related import dpk
from hf_lelp import Teacher


def taught(rows: int = 32) -> Any:
    guide = Teacher(tiny_media.cnn(), tiny_media.image_processor(), input_columns=["img"])
    raw = tiny_media.image_data(guide, rows)
    return raw, guide, dpk.with_features(raw, guide, guide.model.get_submodule("resnet.encoder.stages.1"))


def test_the_column_is_the_map_before_the_pooling(capsys: pytest.CaptureFixture[str]) -> None:
    raw, guide, data = taught(70)  # more than one pass
    maps = data.with_format("numpy")[:][dpk.FEATURES]
    assert data.features[dpk.FEATURES].dtype == "float16" and maps.shape == (70, 16, 3, 3)
    assert "70 rows of shape (16, 3, 3) in float16 take 0.0 MiB" in capsys.readouterr().out
    embedding = guide(raw[:])["teacher_embedding"]
    np.testing.assert_allclose(maps.astype(np.float32).mean((2, 3)), embedding, atol=2e-2, rtol=1e-2)


def test_a_column_that_takes_too_much_disk_is_refused_before_it_is_made() -> None:
    with pytest.raises(
        ValueError, match=r"1,000,000 rows of shape \(128, 7, 7\) in float16 takes 11\.7 GiB, and at most"
    ):
        dpk.check_disk(1_000_000, (128, 7, 7))


def test_cka_tells_likeness() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(64, 200), torch.randn(64, 150)
    rotation = torch.linalg.qr(torch.randn(200, 200)).Q
    assert dpk.cka(one, 3 * one @ rotation + 2) == pytest.approx(1, abs=1e-6)
    assert abs(dpk.cka(one, other)) < 0.1


def test_places_of_tokens_are_averaged_to_the_grid() -> None:
    tokens = torch.cat([torch.full((1, 1, 1), 99.0), torch.arange(16.0).view(1, 16, 1)], dim=1)
    assert dpk.on_grid(tokens, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert dpk.on_grid(torch.arange(8.0).view(1, 2, 2, 2))[0].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_a_wider_gap_gives_more_places() -> None:
    torch.manual_seed(0)
    prior, features = dpk.Prior(8, 8), torch.randn(32, 9, 8)
    with torch.no_grad():
        prior.projection.weight.copy_(torch.eye(8))
        prior.projection.bias.zero_()
    assert prior(features, features)[1] == 0
    losses, given = prior(torch.randn(32, 9, 8), features)
    assert given == pytest.approx(8 / 9) and losses.shape == (32,)
    # A place that is given counts for nothing; those that the student fills do.
    losses.sum().backward()
    assert prior.projection.weight.grad is not None and prior.projection.weight.grad.abs().sum() > 0


def trainer(folder: Path, data: Any, **settings: Any) -> dpk.PriorTrainer:
    torch.manual_seed(0)
    return dpk.PriorTrainer(
        model=tiny_media.vit(),
        part="vit.layernorm",
        feature_size=8,
        args=runs.config(folder, num_subclasses=1, **settings),
        train_dataset=data,
        processing_class=tiny_media.image_processor(16),
    )


def test_a_student_learns_the_features_and_is_saved_without_the_prior(tmp_path: Path) -> None:
    raw, _, data = taught()
    run = trainer(tmp_path, data, max_steps=12, optim="adamw_torch", learning_rate=1e-2)
    before = run.model.prior.projection.weight.clone()
    run.train()
    losses = runs.losses(run)
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) and not torch.equal(before, run.model.prior.projection.weight)
    assert len(run.given) == 12 and all(0 <= share < 1 for share in run.given)
    expected = run.predict(raw).predictions
    run.without_prior().save_pretrained(tmp_path / "saved")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(loaded[1].values())
    run.model = run.model_wrapped = loaded[0]
    np.testing.assert_allclose(run.predict(raw).predictions, expected, atol=1e-5)


def test_a_map_that_is_not_square_is_refused(tmp_path: Path) -> None:
    _, _, data = taught()
    flat = data.remove_columns(dpk.FEATURES).add_column(dpk.FEATURES, [[[[1.0, 2.0]]]] * len(data))
    with pytest.raises(ValueError, match=r"teacher_features has the shape \(1, 1, 2\); \(channels, side, side\)"):
        trainer(tmp_path, flat)
