"""Makes a student that is named by a recipe in place of a model: `new:2x128` is a BERT of 2 layers × 128, untrained.

A recipe is KIND or KIND:ARGUMENT, and `KINDS` holds one function for each kind.
"""

import re
from collections.abc import Callable

from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.data.encoding import Processor
from hf_lelp.data.text import NO_LIMIT

HEAD_SIZE = 64  # of attention, as in BERT
POSITIONS = 512  # tokens that a new student can read, unless its tokenizer ends before


def is_recipe(name: object) -> bool:
    """Whether a student's name is a recipe; ids and folders may hold no colon at this place."""
    return isinstance(name, str) and name.partition(":")[0] in KINDS and ":" in name


def make_student(recipe: str, num_labels: int, processing_class: Processor | None) -> PreTrainedModel:
    """Make an untrained student from torch's random numbers.

    Args:
        recipe: see `is_recipe`.
        num_labels: C.
        processing_class: the teacher's tokenizer, which the student then shares.

    Raises:
        ValueError: if the recipe cannot be read, or there is no tokenizer.
    """
    kind, _, argument = recipe.partition(":")
    return KINDS[kind](argument, num_labels, shared_tokenizer(recipe, processing_class))


def shared_tokenizer(recipe: str, processing_class: Processor | None) -> PreTrainedTokenizerBase:
    """Return the teacher's tokenizer, for a student made here.

    Raises:
        ValueError: if the teacher has none.
    """
    if isinstance(processing_class, PreTrainedTokenizerBase):
        return processing_class
    found = "there is none" if processing_class is None else f"the teacher has a {type(processing_class).__name__}"
    raise ValueError(
        f"student_model={recipe}: a student made here reads texts with the teacher's tokenizer, and {found}. Name a"
        " teacher of texts in teacher_model, or pass a tokenizer as processing_class."
    )


def _new(argument: str, num_labels: int, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make a BERT of random weights: `2x128` is 2 layers of size 128."""
    found = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", argument)
    if found is None or int(found[2]) % 2:
        raise ValueError(
            f"student_model=new:{argument}: layers and an even size are expected, as in new:2x128, a BERT of 2 layers ×"
            " 128."
        )
    layers, size = int(found[1]), int(found[2])
    heads = max(heads for heads in range(1, max(size // HEAD_SIZE, 1) + 1) if size % heads == 0)
    limit = tokenizer.model_max_length
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * size,
        max_position_embeddings=limit if POSITIONS < limit < NO_LIMIT else POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=num_labels,  # type: ignore[call-arg]  # of every configuration
    )
    return BertForSequenceClassification(config)


def recipe_like(config: object) -> str:
    """Return the recipe for a student of the size that a configuration has, to be shown to a user."""
    layers, size = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    fits = isinstance(layers, int) and isinstance(size, int) and layers > 0 and size > 0 and size % 2 == 0
    return f"new:{layers}x{size}" if fits else "new:2x128"


KINDS: dict[str, Callable[[str, int, PreTrainedTokenizerBase], PreTrainedModel]] = {"new": _new}
