"""A new BERT starts from its teacher's token vectors; PCA is held against scikit-learn's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sklearn.decomposition import PCA
from transformers import PreTrainedModel

from hf_lelp import Teacher
from hf_lelp.making.new import new_model
from hf_lelp.making.start import new_student
from hf_lelp.making.token_vectors import shortened, token_table
from hf_lelp.teacher.class_order import model_of_teacher

SPREAD = 0.02  # of BERT's random weights


def teacher_model(spread: float = 0.01) -> PreTrainedModel:
    """One whose token vectors have about this spread."""
    model = tiny.classifier()
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table *= spread / table.std()
    return model


def tokens_of(model: Any) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach()


def made(teacher: Any, tokenizer: Any, size: int = 8) -> torch.Tensor:
    torch.manual_seed(0)
    return tokens_of(new_student(f"new:1x{size}", 2, tokenizer, lambda: model_of_teacher(teacher)))


def random(tokenizer: Any, size: int = 8) -> torch.Tensor:
    torch.manual_seed(0)
    return tokens_of(new_model(None, tokenizer, 2, 1, size))


@pytest.mark.parametrize("size", [1, 5, 16])
def test_vectors_are_cut_as_pca_cuts_them(size: int) -> None:
    vectors = torch.randn(300, 16, generator=torch.Generator().manual_seed(1)) @ torch.diag(torch.arange(1.0, 17))
    cut = shortened(vectors + 3, size).numpy()
    expected = PCA(size).fit_transform(vectors.double().numpy())
    signs = np.sign((cut * expected).sum(0))
    np.testing.assert_allclose(cut * signs, expected, atol=1e-3)


def test_a_table_longer_than_a_piece_is_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(100, 6, generator=torch.Generator().manual_seed(1))
    whole = shortened(vectors, 3)
    monkeypatch.setattr("hf_lelp.making.token_vectors.ELEMENTS", 7 * 6)
    torch.testing.assert_close(shortened(vectors, 3).abs(), whole.abs())


def test_alike_tokens_of_the_teacher_are_alike_in_the_student() -> None:
    teacher, tokenizer = teacher_model(), tiny.tokenizer()
    theirs, own = tokens_of(teacher), made(teacher, tokenizer, size=16)
    assert theirs.shape == own.shape
    words = [token for token in range(len(own)) if token != tokenizer.pad_token_id]
    torch.testing.assert_close(
        torch.cdist(own[words], own[words]), torch.cdist(theirs[words], theirs[words]), atol=1e-5, rtol=1e-3
    )
    before = theirs.clone()
    made(teacher, tokenizer)
    assert torch.equal(tokens_of(teacher), before)


def test_numbers_and_tokens_that_the_teacher_does_not_have_stay_random() -> None:
    teacher, tokenizer = tiny.classifier(), tiny.tokenizer()
    wide = made(teacher, tokenizer, size=32)
    assert torch.equal(wide[:, 16:], random(tokenizer, 32)[:, 16:]) and not torch.equal(wide, random(tokenizer, 32))
    tokenizer.add_tokens(["cardamom"])
    longer = made(Teacher(teacher, tiny.tokenizer()), tokenizer)
    assert torch.equal(longer[-1], random(tokenizer)[-1]) and not torch.equal(longer[0], random(tokenizer)[0])
    assert longer[-1].std() < 3 * SPREAD


def test_a_teacher_in_half_precision_starts_a_student_in_float32() -> None:
    own = made(tiny.classifier().to(torch.bfloat16), tiny.tokenizer())
    assert own.dtype == torch.float32


def test_other_tokens_or_no_teacher_leave_all_at_random_and_say_so(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", logger="hf_lelp")
    other, own = tiny.tokenizer("gpt2"), tiny.tokenizer()
    assert other.get_vocab() != own.get_vocab()
    teacher = Teacher(tiny.classifier(), own)
    assert not torch.equal(made(teacher, tiny.tokenizer()), random(own))  # the same tokens, of another object
    assert not caplog.messages
    untrained = tmp_path / "untrained"  # refused as a teacher
    tiny.classifier().base_model.save_pretrained(untrained)
    own.save_pretrained(untrained)
    for given, tokenizer, reason in (
        (teacher, other, "the teacher has other tokens"),
        (None, own, "there is no teacher that is a model of transformers"),
        (tiny.classifier().to("meta"), own, "the teacher has no table of token vectors at hand"),
        (str(untrained), own, "the teacher cannot be loaded"),
    ):
        tokens = made(given, tokenizer)
        assert torch.equal(tokens, random(tokenizer)) or given == str(untrained)  # loading draws random numbers
        assert f"student: random throughout, for {reason}" in caplog.messages[-1]
    with pytest.raises(ValueError, match="its vectors are those of the teacher's tokens, and"):
        new_student("static", 2, other, lambda: model_of_teacher(teacher))


def test_large_vectors_are_scaled_down_and_padding_is_zero() -> None:
    tokenizer = tiny.tokenizer()
    small, large = made(teacher_model(0.01), tokenizer), made(teacher_model(1.0), tokenizer)
    assert 0.005 < small.std() < 0.02 and 0.09 < large.std() < 0.11
    assert not large[tokenizer.pad_token_id].any()
    pad, tokenizer.pad_token = tokenizer.pad_token_id, None
    without = tokens_of(new_model(teacher_model(), tokenizer, 2, 1, 8))
    assert without.any(-1).all() and without[pad].any()


def test_the_threads_do_not_change_a_vector() -> None:
    vectors = torch.randn(5000, 96, generator=torch.Generator().manual_seed(1))
    found = []
    threads = torch.get_num_threads()
    for number in (1, 2):
        torch.set_num_threads(number)
        found.append(shortened(vectors, 32))
        assert torch.get_num_threads() == number
    torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_a_model_without_a_table_of_tokens_has_none() -> None:
    assert token_table(tiny.classifier()) is not None

    class Bare(torch.nn.Module):
        def get_input_embeddings(self) -> torch.nn.Module:
            raise NotImplementedError

    bare: Any = Bare()
    assert token_table(bare) is None and token_table(tiny.classifier().to("meta")) is None
