"""Cuts long texts into windows of the student's length."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

SHORTEST = 0.25  # of the length: a shorter rest says little


def windows_of(
    texts: Sequence[str], processing_class: PreTrainedTokenizerBase, max_length: int, most: int
) -> list[list[str]]:
    """Cut each text behind what the student reads of it, between words, into pieces that the student reads whole.

    The first window is the text itself, which the student's tokenizer cuts, and is not among the pieces.

    Args:
        texts: n of them.
        processing_class: of the student, a fast tokenizer.
        max_length: tokens that the student reads, special ones included.
        most: windows of a text, the first one included.

    Returns:
        For each text at most `most` − 1 further windows, as pieces of the text. One shorter than a quarter of the
        length is left out.

    Raises:
        ValueError: if the tokenizer does not say where its tokens stand, or the length leaves no room for a text.
    """
    if not processing_class.is_fast:
        raise ValueError(
            f"{type(processing_class).__name__} does not say where in a text its tokens stand, so no windows can be cut"
            " by them. Use a fast tokenizer, or windows=1."
        )
    room = max_length - processing_class.num_special_tokens_to_add()
    if room < 1:
        raise ValueError(f"max_length={max_length} leaves no room for a text beside the special tokens.")
    tokens = processing_class(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    pieces = []
    for place, text in enumerate(texts):
        spans, words = tokens["offset_mapping"][place], tokens.word_ids(place)
        bounds = _bounds(words, room, most)
        pieces.append([text[spans[start][0] : spans[end - 1][1]] for start, end in bounds])
    return pieces


def _bounds(words: Sequence[int | None], room: int, most: int) -> list[tuple[int, int]]:
    """Return the first and the last token, exclusive, of each further window; words stay whole where they fit."""
    bounds: list[tuple[int, int]] = []
    start = _end(words, 0, room)
    while start < len(words) and len(bounds) < most - 1:
        end = _end(words, start, room)
        if end - start >= SHORTEST * room:
            bounds.append((start, end))
        start = end
    return bounds


def _end(words: Sequence[int | None], start: int, room: int) -> int:
    """Return where a window ends that begins at `start`."""
    end = min(start + room, len(words))
    if end == len(words):
        return end
    whole = end
    while whole > start and words[whole] == words[whole - 1]:
        whole -= 1
    return whole if whole > start else end
