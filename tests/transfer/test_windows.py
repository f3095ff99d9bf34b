"""Long texts cut behind what the student reads."""

import pytest
import tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_lelp.transfer.windows import windows_of

WORDS = tiny.WORDS


def text(*words: int) -> str:
    return " ".join(WORDS[word] for word in words)


def test_pieces_follow_each_other_and_the_student_reads_each_whole() -> None:
    # Six tokens, two of them special: four words a window.
    (pieces,) = windows_of([text(*range(14))], tiny.tokenizer(), 6, 9)
    assert pieces == [text(4, 5, 6, 7), text(8, 9, 10, 11), text(12, 13)]


def test_most_counts_the_text_itself() -> None:
    assert windows_of([text(*range(14))], tiny.tokenizer(), 6, 2) == [[text(4, 5, 6, 7)]]
    assert windows_of([text(*range(14)), text(0, 1)], tiny.tokenizer(), 6, 1) == [[], []]


def test_a_short_rest_is_left_out() -> None:
    # Eight words a window: a rest of one says little, one of two is kept.
    one, two = windows_of([text(*range(9)), text(*range(10))], tiny.tokenizer(), 10, 3)
    assert (one, two) == ([], [text(8, 9)])


def test_words_stay_whole_where_they_fit() -> None:
    vocabulary = {piece: index for index, piece in enumerate(["[UNK]", *"abcdefgh", *(f"##{c}" for c in "abcdefgh")])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert windows_of(["ab cde fg"], tokenizer, 4, 9) == [["cde", "fg"]]  # 2, 3 and 2 tokens
    assert windows_of(["abcdefgh"], tokenizer, 3, 9) == [["def", "gh"]]  # one word larger than a window


def test_a_tokenizer_that_names_no_places_is_refused() -> None:
    class Slow(PreTrainedTokenizerFast):
        is_fast = False

    slow = Slow(tokenizer_object=tiny.tokenizer().backend_tokenizer)
    with pytest.raises(ValueError, match="Slow does not say where in a text its tokens stand"):
        windows_of(["good"], slow, 6, 2)


def test_a_length_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_length=2 leaves no room for a text beside the special tokens"):
        windows_of(["good"], tiny.tokenizer(), 2, 2)
