"""Altered copies of texts and images."""

import numpy as np
import pytest
from PIL import Image

from hf_lelp.transfer.views import IMAGE_KINDS, SHARE, views_of_image, views_of_text

TEXT = " ".join(f"word{number}" for number in range(40))


def image(seed: int = 0, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).convert(mode)


def test_a_view_depends_on_text_and_seed_alone() -> None:
    views = views_of_text(TEXT, ["delete", "crop"], 4, 7, None)
    assert views == views_of_text(TEXT, ["delete", "crop"], 4, 7, None)
    assert views[:2] == views_of_text(TEXT, ["delete", "crop"], 2, 7, None)  # more views keep the first
    assert views != views_of_text(TEXT, ["delete", "crop"], 4, 8, None)
    assert len({*views, TEXT}) == 5


def test_deletion_keeps_the_order_of_the_words() -> None:
    words = TEXT.split()
    kept = [len(view.split()) for view in views_of_text(TEXT, ["delete"], 200, 0, None)]
    assert 0.7 < np.mean(kept) / len(words) < 0.9
    for view in views_of_text(TEXT, ["delete"], 3, 0, None):
        places = [words.index(word) for word in view.split()]
        assert places == sorted(places)


def test_a_crop_is_a_piece_of_the_text() -> None:
    for view in views_of_text(TEXT, ["crop"], 20, 0, None):
        assert view in TEXT
        assert SHARE[0] * 40 <= len(view.split()) <= SHARE[1] * 40


def test_masks_stand_in_place_of_words() -> None:
    (view,) = views_of_text(TEXT, ["mask"], 1, 0, "[MASK]")
    pairs = list(zip(TEXT.split(), view.split(), strict=True))
    assert {now for was, now in pairs if now != was} == {"[MASK]"}
    assert 0 < sum(now == "[MASK]" for _, now in pairs) < 20


@pytest.mark.parametrize("text", ["", "  ", "one"])
def test_what_cannot_be_altered_gives_no_view(text: str) -> None:
    assert views_of_text(text, ["delete", "crop"], 4, 0, None) == []


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_views_of_images_keep_size_and_mode(mode: str) -> None:
    views = views_of_image(image(mode=mode), [image(1)], IMAGE_KINDS, 3, 0)
    assert [(view.size, view.mode) for view in views] == [((10, 12), mode)] * 3
    cropped, flipped, mixed = (np.asarray(view, dtype=float) for view in views)
    own, other = (np.asarray(whole.convert(mode), dtype=float) for whole in (image(mode=mode), image(1)))
    np.testing.assert_array_equal(flipped, own[:, ::-1])
    assert not np.array_equal(cropped, own)
    # Nearer to the row's own image, whose label it keeps.
    assert np.abs(mixed - own).mean() < np.abs(mixed - other).mean()


def test_a_palette_becomes_colours_and_equal_views_are_left_out() -> None:
    assert [view.mode for view in views_of_image(image(mode="P"), [image(1)], ["mix"], 1, 0)] == ["RGB"]
    assert len(views_of_image(image(), [image(1)], ["flip"], 3, 0)) == 1
    assert views_of_image(image(), [], ["mix"], 1, 0) == []
