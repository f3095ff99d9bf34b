"""Tokens that a model has no embedding for are refused on both sides, before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from hf_lelp import Teacher
from hf_lelp.data.text import vocabulary_size

FOUND = r"has the token 'zebra' of number 20, and the model embeds 20 tokens, 0 to 19.*resize_token_embeddings\(22\)"


def words(kind: str = "bert", **special: str) -> PreTrainedTokenizerFast:
    made = tiny.tokenizer(kind)
    made.add_special_tokens(special)
    made.add_tokens(["zebra", "gnu"])
    return made


def zebras(rows: int = 60) -> Dataset:
    data = runs.data(rows)
    return data.map(lambda row, index: {"text": row["text"] + " zebra" * (index == 40)}, with_indices=True)


def test_a_vocabulary_is_as_large_as_the_embeddings() -> None:
    model = tiny.classifier()
    assert vocabulary_size(model) == 20
    model.resize_token_embeddings(22)
    assert vocabulary_size(model) == 22


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_a_token_that_was_added_and_not_trained(side: str, tmp_path: Path) -> None:
    name = "processing_class" if side == "student" else "teacher_processing_class"
    with pytest.raises(ValueError, match=f"Row 40 of the dataset {FOUND}"):
        runs.trainer(runs.config(tmp_path), train_dataset=zebras(), **{name: words()})
    # A tokenizer may know more than the data have.
    runs.trainer(runs.config(tmp_path), train_dataset=runs.data(), **{name: words()}).train()


@pytest.mark.parametrize("raw", [True, False])
def test_in_evaluation_and_prediction_too(raw: bool, tmp_path: Path) -> None:
    run = runs.trainer(runs.config(tmp_path), processing_class=words())
    data = zebras()
    if not raw:
        data = data.map(lambda batch: dict(words()(batch["text"])), batched=True).remove_columns("text")
    found = FOUND if raw else "input_ids of row 40 go from .* to 20, and the student's vocabulary from 0 to 19"
    for ask in (run.evaluate, run.predict):
        with pytest.raises(ValueError, match=found):
            ask(data)


def test_texts_that_become_tokens_when_they_are_read(tmp_path: Path) -> None:
    def augmented(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"text": [f"{text} zebra" for text in batch["text"]]}

    run = runs.trainer(
        runs.config(tmp_path), train_dataset=runs.data().with_transform(augmented), processing_class=words()
    )
    with pytest.raises(ValueError, match=FOUND):
        run.train()


def test_a_padding_token_that_was_added(tmp_path: Path) -> None:
    padded = words("gpt2", pad_token="<pad>")
    found = r"Padding has the token '<pad>' of number 18, and the model embeds 18 tokens.*resize_token_embeddings\(21\)"
    model = tiny.classifier("gpt2")
    model.resize_token_embeddings(18)
    with pytest.raises(ValueError, match=found):
        Teacher(model, padded)
    with pytest.raises(ValueError, match=found):
        runs.trainer(runs.config(tmp_path), model=model, processing_class=padded)
    model.resize_token_embeddings(21)
    Teacher(model, padded)({"text": ["good film", "good"]})
