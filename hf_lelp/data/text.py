"""Tokenizes texts, the same way for teacher and student."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.data.rows import RowError

# A tokenizer without a limit reports a model_max_length of this size or more.
NO_LIMIT = 1_000_000


def max_tokens(
    processing_class: PreTrainedTokenizerBase, model: PreTrainedModel | None, max_length: int | None
) -> int | None:
    """Return the longest input in tokens; `None` is no limit.

    It is `max_length`, else what the tokenizer and the model's positions allow.

    Raises:
        ValueError: if `max_length` is more than they allow.
    """
    limits = [processing_class.model_max_length]
    if model is not None and getattr(model.config, "max_position_embeddings", None):
        # RoBERTa and its kind start counting positions after the padding token's.
        tables = (table for name, table in model.named_modules() if name.endswith("position_embeddings"))
        unused = max(
            (table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None), default=0
        )
        limits.append(model.config.max_position_embeddings - unused)
    limit = min((limit for limit in limits if limit is not None and 0 < limit < NO_LIMIT), default=None)
    if max_length is not None and limit is not None and max_length > limit:
        raise ValueError(f"max_length={max_length}, but model and tokenizer take {limit} tokens at most.")
    return max_length or limit


def set_pad_token(processing_class: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Let a decoder without a padding token pad with its end token.

    Decoder classifiers read the logits of the last token that is not padding, so model and tokenizer must agree.

    Raises:
        ValueError: if the tokenizer has neither token, or the model does not embed the padding token.
    """
    if processing_class.pad_token is None:
        if processing_class.eos_token is None:
            raise ValueError(
                f"{type(processing_class).__name__} has neither a padding nor an end token. Set one:"
                " processing_class.pad_token = ..."
            )
        processing_class.pad_token = processing_class.eos_token
    # Multimodal models read it from the configuration of the part that reads texts.
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = processing_class.pad_token_id
    check_vocabulary(processing_class, [[processing_class.pad_token_id]], vocabulary_size(model), "Padding")


def vocabulary_size(model: Any) -> int | None:
    """Return how many tokens a model embeds; `None` where it does not tell, or reads no tokens."""
    try:
        embeddings = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embeddings = None
    if isinstance(embeddings, nn.Embedding):
        return embeddings.num_embeddings
    return getattr(model.config.get_text_config(), "vocab_size", None)


def check_vocabulary(
    processing_class: PreTrainedTokenizerBase, tokens: Sequence[Sequence[int]], size: int | None, where: str = ""
) -> None:
    """Refuse tokens that a model has no embedding for.

    Args:
        processing_class: made the tokens.
        tokens: of each row of a batch.
        size: see `vocabulary_size`.
        where: what the tokens are; by default the row of the batch.

    Raises:
        ValueError: naming the first such token.
    """
    if size is None:
        return
    row = next((row for row, ids in enumerate(tokens) if ids and max(ids) >= size), None)
    if row is not None:
        token = max(tokens[row])
        name = processing_class.convert_ids_to_tokens(token)
        advice = (
            f"and the model embeds {size} tokens, 0 to {size - 1}. Use the"
            f" model's own tokenizer; or call model.resize_token_embeddings({len(processing_class)}), and train or load"
            " weights for the new rows."
        )
        if where:
            raise ValueError(f"{where} has the token {name!r} of number {token}, {advice}")
        raise RowError(f"has the token {name!r} of number {token}, {advice}", row)


def tokenize(
    processing_class: PreTrainedTokenizerBase, batch: Mapping[str, Any], columns: Sequence[str], max_length: int | None
) -> dict[str, list[list[int]]]:
    """Tokenize one or two text columns: cut to `max_length`, not padded.

    Most decoders make no tokens of an empty text. It becomes one special token, since models crash on none.

    Raises:
        KeyError: if a column is missing.
        ValueError: if a text is not a string, or UTF-8 cannot encode it.
    """
    for column in columns:
        wrong = next((row for row, text in enumerate(batch[column]) if not isinstance(text, str)), None)
        if wrong is not None:
            raise RowError(
                f"has {batch[column][wrong]!r} in the text column {column!r} where a string was expected. Fill or drop"
                " such rows first (an empty string is fine).",
                wrong,
            )
    texts = [list(batch[column]) for column in columns]
    try:
        tokens = dict(processing_class(*texts, truncation=max_length is not None, max_length=max_length))
    except (TypeError, UnicodeEncodeError):
        _check_encodable(texts, columns)
        raise
    for row in [row for row, ids in enumerate(tokens["input_ids"]) if not ids]:
        for name, values in tokens.items():
            values[row] = [{"input_ids": _stand_in(processing_class), "attention_mask": 1}.get(name, 0)]
    return tokens


def _check_encodable(texts: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """Refuse a text with half a character (a lone surrogate), left by a cut inside a character of UTF-16."""
    for column, values in zip(columns, texts, strict=True):
        for row, text in enumerate(values):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RowError(
                    f"has half a character, {text[error.start]!r}, in the text column {column!r}. Repair it first:"
                    ' text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
                    row,
                ) from error


def _stand_in(processing_class: PreTrainedTokenizerBase) -> int:
    """Return a token for a text without any; not the padding token, if possible: padding is not attended to."""
    special = [processing_class.bos_token_id, processing_class.eos_token_id, processing_class.unk_token_id]
    known = [token for token in special if token is not None]
    return next((token for token in known if token != processing_class.pad_token_id), [*known, 0][0])
