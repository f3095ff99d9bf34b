"""Texts to tokens: limits, padding tokens, and what is no text."""

import pytest
import tiny
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hf_lelp.data.text import max_tokens, set_pad_token, tokenize


def limited(limit: int | None) -> PreTrainedTokenizerBase:
    """A tokenizer with a limit, or one that was never given any."""
    processing_class = tiny.tokenizer()
    if limit is not None:
        processing_class.model_max_length = limit
    return processing_class


def with_positions(positions: int | None) -> PreTrainedModel | None:
    """A model whose configuration has so many positions; `None` for no limit."""
    if positions is None:
        return None
    model = tiny.classifier()
    model.config.max_position_embeddings = positions
    return model


class TestMaxTokens:
    @pytest.mark.parametrize(
        ("tokenizer_limit", "positions", "expected"),
        [(512, None, 512), (None, 64, 64), (512, 64, 64), (32, 64, 32), (None, None, None)],
    )
    def test_the_smallest_limit_counts(
        self, tokenizer_limit: int | None, positions: int | None, expected: int | None
    ) -> None:
        assert max_tokens(limited(tokenizer_limit), with_positions(positions), None) == expected

    def test_a_shorter_one_may_be_asked_for(self) -> None:
        assert max_tokens(limited(64), with_positions(None), 10) == 10
        assert max_tokens(limited(64), with_positions(None), 64) == 64
        assert max_tokens(limited(None), with_positions(None), 10) == 10

    def test_a_longer_one_may_not(self) -> None:
        with pytest.raises(ValueError, match="max_length=65, but model and tokenizer take 64 tokens"):
            max_tokens(limited(None), tiny.classifier(), 65)

    def test_other_names_of_the_positions(self) -> None:
        assert max_tokens(limited(None), tiny.classifier("gpt2"), None) == 64

    def test_positions_that_the_padding_token_takes_do_not_count(self) -> None:
        config = RobertaConfig(
            vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=20
        )
        model = RobertaForSequenceClassification(config).eval()
        longest = max_tokens(limited(None), model, None)
        assert longest == 18
        ids = torch.full((1, longest + 1), 5)
        model(input_ids=ids[:, 1:])
        with pytest.raises((IndexError, RuntimeError)):  # which of them depends on the version
            model(input_ids=ids)

    def test_without_a_model(self) -> None:
        assert max_tokens(limited(None), None, None) is None


class TestSetPadToken:
    def test_a_decoder_pads_with_its_end_token(self) -> None:
        processing_class, model = tiny.tokenizer("gpt2"), tiny.classifier("gpt2")
        assert processing_class.pad_token is None
        set_pad_token(processing_class, model)
        assert processing_class.pad_token == "</s>"
        assert model.config.pad_token_id == processing_class.pad_token_id == 1

    def test_a_padding_token_of_its_own_stays(self) -> None:
        processing_class, model = tiny.tokenizer(), tiny.classifier()
        set_pad_token(processing_class, model)
        assert processing_class.pad_token == "[PAD]"
        assert model.config.pad_token_id == 1

    @torch.inference_mode()
    @pytest.mark.parametrize("kind", ["gpt2", "llama"])
    @pytest.mark.parametrize("models_own", [None, 7], ids=["none", "another"])
    def test_the_model_reads_the_token_before_the_padding(self, kind: str, models_own: int | None) -> None:
        processing_class, model = tiny.tokenizer(kind), tiny.classifier(kind).eval()
        model.config.pad_token_id = models_own
        set_pad_token(processing_class, model)
        texts = ["good", "a dull slow movie"]
        batch = model(**processing_class(texts, padding=True, return_tensors="pt")).logits
        for row, text in enumerate(texts):
            alone = model(**processing_class([text], return_tensors="pt")).logits
            torch.testing.assert_close(batch[row], alone[0], rtol=0, atol=1e-5)

    @torch.inference_mode()
    @pytest.mark.parametrize("models_own", [None, 0], ids=["none", "another"])
    def test_a_model_of_several_parts(self, models_own: int | None) -> None:
        torch.manual_seed(0)
        text = {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 64, "vocab_size": len(tiny.WORDS) + 4}
        size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = Gemma3Config(
            text_config={**text, **size, "initializer_range": 0.5, "pad_token_id": models_own},
            vision_config={**size, "image_size": 14, "patch_size": 14},
            mm_tokens_per_image=1,
        )
        processing_class, model = tiny.tokenizer("gpt2"), Gemma3ForSequenceClassification(config).eval()
        set_pad_token(processing_class, model)
        texts = ["good", "a dull slow movie"]
        batch = model(**processing_class(texts, padding=True, return_tensors="pt")).logits
        alone = model(**processing_class(texts[:1], return_tensors="pt")).logits
        torch.testing.assert_close(batch[0], alone[0], rtol=0, atol=1e-5)

    def test_a_tokenizer_with_neither_token(self) -> None:
        processing_class = tiny.tokenizer("gpt2")
        processing_class.eos_token = None
        with pytest.raises(ValueError, match=r"neither a padding nor an end token.*pad_token = "):
            set_pad_token(processing_class, tiny.classifier("gpt2"))


TEXTS = ["good movie", "", "a very dull and slow movie"]


class TestTokenize:
    def test_one_column(self) -> None:
        tokens = tokenize(tiny.tokenizer(), {"text": TEXTS, "other": [1, 2, 3]}, ["text"], None)
        assert set(tokens) == {"input_ids", "token_type_ids", "attention_mask"}
        assert [len(ids) for ids in tokens["input_ids"]] == [4, 2, 8]
        assert tokens["input_ids"] == tiny.tokenizer()(TEXTS)["input_ids"]

    def test_two_columns_are_a_pair(self) -> None:
        batch = {"a": ["good", "bad"], "b": ["dull plot", "film"]}
        tokens = tokenize(tiny.tokenizer(), batch, ["a", "b"], None)
        decoded = [tiny.tokenizer().decode(ids) for ids in tokens["input_ids"]]
        assert decoded == ["[CLS] good [SEP] dull plot [SEP]", "[CLS] bad [SEP] film [SEP]"]

    def test_long_texts_are_cut_and_nothing_is_padded(self) -> None:
        tokens = tokenize(tiny.tokenizer(), {"text": TEXTS}, ["text"], 5)
        assert [len(ids) for ids in tokens["input_ids"]] == [4, 2, 5]
        pair = tokenize(tiny.tokenizer(), {"a": ["good " * 9], "b": ["bad"]}, ["a", "b"], 6)
        assert tiny.tokenizer().decode(pair["input_ids"][0]) == "[CLS] good good [SEP] bad [SEP]"

    @pytest.mark.parametrize("wrong", [None, 3, ["good"], b"good"])
    def test_what_is_no_text(self, wrong: object) -> None:
        with pytest.raises(ValueError, match=r"Row 1 of a batch has .* in the text column 'b' where a string"):
            tokenize(tiny.tokenizer(), {"a": ["x", "y"], "b": ["x", wrong]}, ["a", "b"], None)

    def test_a_missing_column(self) -> None:
        with pytest.raises(KeyError, match="text"):
            tokenize(tiny.tokenizer(), {"sentence": ["x"]}, ["text"], None)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_text_without_tokens_becomes_one_that_is_attended_to(kind: str) -> None:
    processing_class = tiny.tokenizer(kind)
    assert processing_class([""])["input_ids"] == [[]]
    tokens = tokenize(processing_class, {"text": ["", "good bad"]}, ["text"], None)
    assert tokens["input_ids"][0] == [processing_class.eos_token_id] and tokens["attention_mask"][0] == [1]
    assert len(tokens["input_ids"][1]) == 2
    # Where the end token pads, another stands in.
    set_pad_token(processing_class, tiny.classifier(kind))
    tokens = tokenize(processing_class, {"text": [""]}, ["text"], None)
    assert tokens["input_ids"] == [[processing_class.unk_token_id]]


def test_half_a_character_is_named() -> None:
    # What UTF-16 becomes when it is cut inside an emoji; no Arrow table holds it, but a transform can make it.
    with pytest.raises(
        ValueError, match=r"Row 1 of a batch has half a character, '\\ud83d', in the text column 'b'"
    ) as raised:
        tokenize(tiny.tokenizer(), {"a": ["good", "bad"], "b": ["bad", "good \ud83d"]}, ["a", "b"], None)
    repaired = "good \ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert 'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")' in str(raised.value)
    assert tokenize(tiny.tokenizer(), {"a": [repaired]}, ["a"], None)["input_ids"]
