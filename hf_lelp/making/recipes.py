"""Makes a student that is named by a recipe in place of a model.

    new:2x128       a BERT of 2 layers × 128, untrained; its token vectors start as the teacher's
    layers:2        the teacher, with 2 of its layers, evenly chosen; layers:0,3,5 names them
    static          a mean of token vectors and an MLP; static:128 has vectors of that size

A recipe is KIND or KIND:ARGUMENT, and `KINDS` holds a function for each kind, and words for the card.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_lelp.data.encoding import Processor
from hf_lelp.making.layers import chosen_layers, cut_model, number_of_layers
from hf_lelp.making.new import new_model
from hf_lelp.making.one_output import with_two_outputs
from hf_lelp.making.static import static_model
from hf_lelp.making.token_vectors import token_table
from hf_lelp.student.heads import reorder_classes
from hf_lelp.teacher.class_order import TeacherModel

logger = logging.getLogger(__name__)

STATIC_SIZE = 256  # of the vectors


# Gives the teacher's model, for the recipes that need it; `None` where the teacher is no model of transformers.
SourceMaker = Callable[[], TeacherModel | None]


def is_recipe(name: object) -> bool:
    """Whether a student's name is a recipe; a folder of such a name can be called ./static."""
    return isinstance(name, str) and name.partition(":")[0] in KINDS and (":" in name or name == "static")


def described(recipe: str) -> str:
    """Say what a student was made of, for its card."""
    kind = KINDS.get(recipe.partition(":")[0])
    return f"{recipe}, {kind.made_of}" if kind is not None else recipe


def make_student(
    recipe: str, num_labels: int, processing_class: Processor | None, source: SourceMaker
) -> PreTrainedModel:
    """Make a student; new weights come from torch's random numbers.

    Args:
        recipe: see `is_recipe`.
        num_labels: C.
        processing_class: the teacher's, which the student then shares.
        source: the teacher's model.

    Raises:
        ValueError: if the recipe cannot be read or fits the teacher badly, or there is no tokenizer or teacher, or one
            with other tokens.
    """
    kind, _, argument = recipe.partition(":")
    return KINDS[kind].make(argument, num_labels, shared_processor(recipe, processing_class), source)


def shared_processor(recipe: str, processing_class: Processor | None) -> Processor:
    """Return the teacher's processor, for a student made here; of `new` and `static` it must be a tokenizer.

    Raises:
        ValueError: if the teacher has none.
    """
    fits = isinstance(processing_class, PreTrainedTokenizerBase) or recipe.startswith("layers:")
    if processing_class is not None and fits:
        return processing_class
    found = "there is none" if processing_class is None else f"the teacher has a {type(processing_class).__name__}"
    raise ValueError(
        f"student_model={recipe}: a student made here reads texts with the teacher's tokenizer, and {found}. Name a"
        " teacher of texts in teacher_model, or pass a tokenizer as processing_class. Of a teacher of images or sound,"
        " layers:2 keeps some layers."
    )


def _source(recipe: str, source: SourceMaker) -> TeacherModel:
    found = source()
    if found is None:
        raise ValueError(
            f"student_model={recipe}: such a student is made of the teacher's own model, and no teacher that is a model"
            " of transformers was given. Name one in teacher_model, or take new:2x128."
        )
    return found


def _new(argument: str, num_labels: int, tokenizer: Any, source: SourceMaker) -> PreTrainedModel:
    """Make a BERT whose token vectors start as the teacher's: `2x128` is 2 layers of size 128."""
    found = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", argument)
    if found is None or int(found[2]) % 2:
        raise ValueError(
            f"student_model=new:{argument}: layers and an even size are expected, as in new:2x128, a BERT of 2 layers ×"
            " 128."
        )
    return new_model(_start(tokenizer, source), tokenizer, num_labels, int(found[1]), int(found[2]))


def _start(tokenizer: Any, source: SourceMaker) -> PreTrainedModel | None:
    """Return the teacher's model if it has vectors of these tokens; else say why all is random."""
    try:
        teacher = source()
    except (OSError, ValueError) as error:  # of labels alone the teacher's tokenizer is enough
        reason = f"the teacher cannot be loaded ({error})"
    else:
        if teacher is None:
            reason = "there is no teacher that is a model of transformers"
        elif not _same_tokens(tokenizer, teacher.processing_class):
            reason = "the teacher has other tokens"
        elif token_table(teacher.model) is None:
            reason = "the teacher has no table of token vectors at hand"
        else:
            return teacher.model
    logger.info(f"student: random throughout, for {reason}")
    return None


def _layers(argument: str, num_labels: int, processing_class: Any, source: SourceMaker) -> PreTrainedModel:
    """Cut the teacher by its layers; the final layer is the teacher's, in the data's order of classes.

    Of a teacher of one output z it has the two class logits (0, z).
    """
    teacher, order, _ = _source(f"layers:{argument}", source)
    model = cut_model(teacher, chosen_layers(argument, number_of_layers(teacher)))
    if model.config.num_labels == 1:
        with_two_outputs(model)
    reorder_classes(model, order)
    return model


def _static(argument: str, num_labels: int, tokenizer: Any, source: SourceMaker) -> PreTrainedModel:
    """Make a mean of token vectors and an MLP; the vectors are the teacher's."""
    if re.fullmatch(r"([1-9]\d*)?", argument) is None:
        raise ValueError(f"student_model=static:{argument}: the size of the vectors is expected, as in static:128.")
    teacher = _source("static", source)
    if not _same_tokens(tokenizer, teacher.processing_class):
        raise ValueError(
            "student_model=static: its vectors are those of the teacher's tokens, and processing_class has others."
            " Leave processing_class out, or take new:2x128, which reads those of any tokenizer."
        )
    return static_model(teacher.model, tokenizer, num_labels, int(argument or STATIC_SIZE))


def _same_tokens(tokenizer: Any, other: Processor | None) -> bool:
    """Whether a tokenizer gives all tokens of another the same numbers; one that is not known is taken to be the same.

    It may have more, as one with added tokens has.
    """
    if other is None or other is tokenizer:
        return True
    return isinstance(other, PreTrainedTokenizerBase) and other.get_vocab().items() <= tokenizer.get_vocab().items()


class Kind(NamedTuple):
    """A kind of recipe.

    Attributes:
        make: makes the student from the recipe's argument, the number of classes, the processor and the source.
        made_of: words for its card.
    """

    make: Callable[[str, int, Any, SourceMaker], PreTrainedModel]
    made_of: str


KINDS = {
    "new": Kind(
        _new,
        "a BERT of layers × size. Its token vectors started as those of the teacher (of several, the first one), or at"
        " random where that has none of these tokens; all else started at random",
    ),
    "layers": Kind(
        _layers,
        "these of the teacher's layers (of several, the first one's), or so many, with its embeddings, pooler and final"
        " layer",
    ),
    "static": Kind(
        _static, "a vector for each token, from the encoder of the teacher (of several, the first one), and an MLP"
    ),
}
