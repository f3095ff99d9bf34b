"""Class projections as they are saved: read again whole, or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelHubMixin
from projected import DATASET, EMBEDDING, FITTED, HEAD, LABELS
from safetensors.torch import load_file, save_file

from hf_lelp.projections.class_projections import ClassProjections


def change_tensors(**changes: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Path], None]:
    """A way to damage a folder: its tensors changed, or, for `None`, removed."""

    def damage(folder: Path) -> None:
        file = folder / "class_projections.safetensors"
        tensors = load_file(file)
        for name, change in changes.items():
            tensor = tensors.pop(name)
            if change is not None:
                tensors[name] = change(tensor).contiguous()
        save_file(tensors, file)

    return damage


def change_metadata(**changes: Any) -> Callable[[Path], None]:
    """A way to damage a folder: its metadata changed, or, for `None`, removed."""

    def damage(folder: Path) -> None:
        file = folder / "config.json"
        metadata = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))

    return damage


def truncate(name: str) -> Callable[[Path], None]:
    """A way to damage a folder: the second half of a file lost."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


class TestArtefact:
    def test_round_trip(self, tmp_path: Path) -> None:
        FITTED.save_pretrained(tmp_path / "a")
        loaded = ClassProjections.from_pretrained(tmp_path / "a")
        assert loaded.fingerprint == FITTED.fingerprint
        assert (loaded.null_space, loaded.teacher) == (True, "a teacher")
        for name in ("mean", "directions", "variance", "count"):
            assert torch.equal(getattr(loaded, name), getattr(FITTED, name))
        loaded.save_pretrained(tmp_path / "b")
        for name in ("class_projections.safetensors", "config.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_saving_over_another_fit(self, tmp_path: Path) -> None:
        ClassProjections.fit(DATASET, HEAD, 2, null_space=False).save_pretrained(tmp_path)
        FITTED.save_pretrained(tmp_path)
        assert ClassProjections.from_pretrained(tmp_path).fingerprint == FITTED.fingerprint

    @pytest.mark.parametrize("name", ["mean", "directions", "variance", "count", "null_space", "teacher"])
    def test_the_fingerprint_tells_every_part(self, name: str) -> None:
        parts = {part: getattr(FITTED, part) for part in FITTED.__dataclass_fields__}
        assert ClassProjections(**parts).fingerprint == FITTED.fingerprint
        value = parts[name]
        parts[name] = value + 1 if isinstance(value, torch.Tensor) else not value if name == "null_space" else "other"
        assert ClassProjections(**parts).fingerprint != FITTED.fingerprint

    def test_the_total_variance_is_kept_and_files_without_it_are_read(self, tmp_path: Path) -> None:
        assert FITTED.total_variance is not None
        of_classes = [EMBEDDING[index == LABELS] for index in range(3)]
        expected = [np.square(rows - rows.mean(0)).sum(-1).mean() for rows in of_classes]
        np.testing.assert_allclose(FITTED.total_variance, expected, rtol=1e-5)
        share = FITTED.variance_share(2)
        assert share is not None
        torch.testing.assert_close(share, FITTED.variance[:, :2].sum(-1) / FITTED.total_variance)
        FITTED.save_pretrained(tmp_path)
        change_metadata(total_variance=None)(tmp_path)  # a file of an earlier version
        earlier = ClassProjections.from_pretrained(tmp_path)
        assert earlier.total_variance is None and earlier.variance_share(2) is None
        assert earlier.fingerprint == FITTED.fingerprint  # keys of kept columns stay

    def test_goes_to_the_hub_as_every_mixin_does(self) -> None:
        assert ClassProjections.push_to_hub is ModelHubMixin.push_to_hub

    def test_has_a_card(self, tmp_path: Path) -> None:
        FITTED.save_pretrained(tmp_path)
        assert "hf-lelp" in (tmp_path / "README.md").read_text()

    @pytest.mark.parametrize("name", ["class_projections.safetensors", "config.json"])
    def test_a_missing_file(self, tmp_path: Path, name: str) -> None:
        FITTED.save_pretrained(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"No class projections in {tmp_path}.*{name}"):
            ClassProjections.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (truncate("class_projections.safetensors"), "SafetensorError"),
            (truncate("config.json"), "JSONDecodeError"),
            (lambda folder: (folder / "config.json").write_text("[]"), "list"),
            (change_metadata(format_version=2), "of format 2, and this version of hf-lelp reads 1"),
            (change_metadata(format_version=None), "format_version"),
            (change_metadata(teacher=None), "teacher"),
            (change_tensors(mean=lambda t: t[:, 1:]), r"mean has shape \(3, 9\) .* \(3, 10\)"),
            (change_tensors(variance=lambda t: t[1:]), r"variance has shape \(2, 4\) .* \(3, 4\)"),
            (change_tensors(count=lambda t: t[None]), r"count has shape \(1, 3\) .* \(3,\)"),
            (change_tensors(directions=lambda t: t[0]), "expected 3, got 2"),
            (change_tensors(count=None), "count"),
            (change_tensors(mean=lambda t: t.double()), r"mean is of the type torch\.float64"),
            (lambda folder: (folder / "config.json").write_text("[" * 100_000), "RecursionError"),
        ],
    )
    def test_a_damaged_artefact(self, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
        FITTED.save_pretrained(tmp_path)
        damage(tmp_path)
        with pytest.raises(ValueError, match=f"class projections in {tmp_path} cannot be read .*{message}"):
            ClassProjections.from_pretrained(tmp_path)

    def test_no_bit_can_change_without_a_word(self, tmp_path: Path) -> None:
        FITTED.save_pretrained(tmp_path)
        for name in ("class_projections.safetensors", "config.json"):
            content = (tmp_path / name).read_bytes()
            for place in range(0, 8 * len(content), 61):
                changed = bytearray(content)
                changed[place // 8] ^= 1 << place % 8
                (tmp_path / name).write_bytes(changed)
                try:
                    found = ClassProjections.from_pretrained(tmp_path).fingerprint
                except ValueError as error:
                    assert f"class projections in {tmp_path} cannot be read" in str(error)
                else:  # a space of the JSON, or the like
                    assert found == FITTED.fingerprint
            (tmp_path / name).write_bytes(content)

    def test_other_tensors_of_the_same_shapes_are_refused(self, tmp_path: Path) -> None:
        FITTED.save_pretrained(tmp_path)
        ClassProjections.fit(DATASET, HEAD, 4, null_space=False).save_pretrained(tmp_path / "other")
        shutil.copy(tmp_path / "other" / "class_projections.safetensors", tmp_path)
        with pytest.raises(ValueError, match=r"class_projections\.safetensors and config\.json do not belong together"):
            ClassProjections.from_pretrained(tmp_path)

    def test_artefacts_of_before_fingerprints_are_read(self, tmp_path: Path) -> None:
        FITTED.save_pretrained(tmp_path)
        change_metadata(fingerprint=None)(tmp_path)
        assert ClassProjections.from_pretrained(tmp_path).fingerprint == FITTED.fingerprint

    def test_saving_again_keeps_the_card(self, tmp_path: Path) -> None:
        FITTED.save_pretrained(tmp_path)
        (tmp_path / "README.md").write_text("my own")
        FITTED.save_pretrained(tmp_path)
        assert (tmp_path / "README.md").read_text() == "my own"

    @pytest.mark.parametrize("name", ["owner/no-such-projections", "/no/such/folder"])
    def test_a_name_that_is_not_there(self, name: str) -> None:
        with pytest.raises((FileNotFoundError, ValueError), match=f"class projections in {name}"):
            ClassProjections.from_pretrained(name)
