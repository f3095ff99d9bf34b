"""Gives a student to train: loaded from a checkpoint, or made by a recipe."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from hf_lelp.classifiers import auto_class, load_config, load_processor
from hf_lelp.data.encoding import Processor
from hf_lelp.making.recipes import SourceMaker, is_recipe, make_student, shared_processor
from hf_lelp.student.heads import recipe_like
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.loading import load_student

logger = logging.getLogger(__name__)


def new_student(
    name_or_path: str, num_labels: int, processing_class: Processor | None, source: SourceMaker
) -> PreTrainedModel:
    """Load a classifier to train, in float32, from any checkpoint; a saved LELP student keeps its head.

    Args:
        name_or_path: Hub id, folder, or a recipe (`hf_lelp.making.recipes`).
        num_labels: C.
        processing_class: of the student; a recipe needs it.
        source: gives the teacher's model, for recipes that need it.

    Raises:
        ValueError: if it is a classifier whose number of classes is not C; see also `make_student`.
    """
    if is_recipe(name_or_path):
        model = make_student(name_or_path, num_labels, processing_class, source)
        StudentInputs(recipe=name_or_path).write(model.config)
        return model
    name_or_path = os.path.expanduser(name_or_path)
    config = load_config(name_or_path)
    if getattr(config, "num_subclasses", 1) > 1:
        return load_student(name_or_path, dtype=torch.float32)
    _check_classes(name_or_path, config, num_labels)
    settings: dict[str, Any] = {"num_labels": num_labels, "dtype": torch.float32, "trust_remote_code": False}
    with _one_line_of_loading():
        model, loading = auto_class(config).from_pretrained(name_or_path, output_loading_info=True, **settings)
    if loading["missing_keys"]:
        logger.info(f"student: {name_or_path}, with new weights for {', '.join(sorted(loading['missing_keys']))}")
    return model


def _check_classes(name_or_path: str, config: Any, num_labels: int) -> None:
    if config.num_labels != num_labels and "Classification" in (config.architectures or [""])[0]:
        raise ValueError(
            f"{name_or_path} is a classifier with {config.num_labels} classes and the data has {num_labels}."
            " Start from the model that it was fine-tuned from, or from another one without a classification layer."
            f" Or have a new one made with the teacher's tokenizer: student_model: {recipe_like(config)}"
        )


@contextmanager
def _one_line_of_loading() -> Iterator[None]:
    """Hide the table of transformers that says which weights of a student are new: they are to be trained."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def student_processor(name_or_path: str, teachers: Callable[[], Processor | None]) -> Processor:
    """Return the processor of a student named by id, folder or recipe; a recipe takes the teacher's.

    Args:
        name_or_path: see `new_student`.
        teachers: gives the teacher's; called for a recipe alone.

    Raises:
        ValueError: if a recipe finds no tokenizer of a teacher.
    """
    return shared_processor(name_or_path, teachers()) if is_recipe(name_or_path) else load_processor(name_or_path)
