"""A new BERT starts from its teacher's token vectors; PCA is held against scikit-learn's."""

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sklearn.decomposition import PCA

from hf_lelp import Teacher
from hf_lelp.making.new import new_model
from hf_lelp.making.start import new_student
from hf_lelp.making.token_vectors import shortened, token_table
from hf_lelp.teacher.class_order import model_of_teacher

SPREAD = 0.02  # of BERT's random weights


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
    monkeypatch.setattr("hf_lelp.making.token_vectors.ROWS", 7)
    torch.testing.assert_close(shortened(vectors, 3).abs(), whole.abs())


def test_alike_tokens_of_the_teacher_are_alike_in_the_student() -> None:
    teacher, tokenizer = tiny.classifier(), tiny.tokenizer()
    theirs, own = tokens_of(teacher), made(teacher, tokenizer, size=16)
    assert theirs.shape == own.shape
    torch.testing.assert_close(torch.cdist(own, own), torch.cdist(theirs, theirs), atol=1e-4, rtol=1e-4)
    before = theirs.clone()
    made(teacher, tokenizer)
    assert torch.equal(tokens_of(teacher), before)


def test_numbers_and_tokens_that_the_teacher_does_not_have_stay_random() -> None:
    teacher, tokenizer = tiny.classifier(), tiny.tokenizer()
    wide = made(teacher, tokenizer, size=32)
    assert torch.equal(wide[:, 16:], random(tokenizer, 32)[:, 16:]) and not torch.equal(wide, random(tokenizer, 32))
    tokenizer.add_tokens(["cardamom"])
    longer = made(teacher, tokenizer)
    assert torch.equal(longer[-1], random(tokenizer)[-1]) and not torch.equal(longer[0], random(tokenizer)[0])
    assert longer[-1].std() < 3 * SPREAD


def test_a_teacher_in_half_precision_starts_a_student_in_float32() -> None:
    own = made(tiny.classifier().to(torch.bfloat16), tiny.tokenizer())
    assert own.dtype == torch.float32


def test_other_tokens_or_no_teacher_leave_all_at_random() -> None:
    other, own = tiny.tokenizer("gpt2"), tiny.tokenizer()
    assert other.get_vocab() != own.get_vocab()
    teacher = Teacher(tiny.classifier(), own)
    assert torch.equal(made(teacher, other), random(other)) and torch.equal(made(None, own), random(own))
    assert not torch.equal(made(teacher, tiny.tokenizer()), random(own))  # the same tokens, of another object
    with pytest.raises(ValueError, match="its vectors are those of the teacher's tokens, and"):
        new_student("static", 2, other, lambda: model_of_teacher(teacher))


def test_a_model_without_a_table_of_tokens_has_none() -> None:
    assert token_table(tiny.classifier()) is not None

    class Bare(torch.nn.Module):
        def get_input_embeddings(self) -> torch.nn.Module:
            raise NotImplementedError

    bare: Any = Bare()
    assert token_table(bare) is None and token_table(tiny.classifier().to("meta")) is None
