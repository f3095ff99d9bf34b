"""Loads a student to train, or a saved one."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers import PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME
from transformers.utils import logging as transformers_logging

from hf_lelp.classifiers import AUTO_CLASSES, auto_class, check_weights, load_config, load_processor
from hf_lelp.data.encoding import Processor
from hf_lelp.storage.checksums import check_checksums
from hf_lelp.storage.files import read_json
from hf_lelp.student.heads import subclass_model
from hf_lelp.student.inputs import StudentInputs
from hf_lelp.student.making import is_recipe, make_student, recipe_like, shared_tokenizer

logger = logging.getLogger(__name__)


def load_student(name_or_path: str | os.PathLike[str], **kwargs: Any) -> PreTrainedModel:
    """Load a student of either form from a folder or the Hub; its logits are the C class logits.

    Args:
        name_or_path: folder or Hub id that a student was saved to.
        **kwargs: for `from_pretrained` (revision, token, dtype, …).

    Raises:
        ValueError: if files of the folder are damaged (see `check_checksums`) or missing (`check_student_folder`), or
            config.json names no classifier of the installed transformers, or it is an adapter of PEFT alone.
    """
    name_or_path = os.path.expanduser(name_or_path)
    folder = Path(name_or_path)
    if not folder.is_dir():
        return _load_student(name_or_path, **kwargs)
    check_student_folder(folder)
    check_checksums(folder)
    if (folder / ADAPTER_CONFIG_NAME).exists() and not (folder / CONFIG_NAME).exists():
        load_config(name_or_path)  # says what to do with an adapter
    try:
        _check_index(folder / SAFE_WEIGHTS_INDEX_NAME)
        return _load_student(name_or_path, **kwargs)
    except Exception as error:  # transformers raises any kind for damaged files
        raise ValueError(
            f"The student in {folder} cannot be read ({type(error).__name__}: {error}). Save it again, or take another"
            " copy."
        ) from error


def check_student_folder(folder: Path) -> None:
    """Check that a student lies in a folder.

    Raises:
        ValueError: if none does; the message names those in the folder's own folders, where a run of several methods
            saves them.
    """
    if (folder / CONFIG_NAME).exists() or (folder / ADAPTER_CONFIG_NAME).exists():
        return
    inside = sorted(place.parent.name for place in folder.glob(f"*/{CONFIG_NAME}"))
    message = f"{folder} has no {CONFIG_NAME}: it holds no student."
    if inside:
        raise ValueError(f"{message} Name one of those in it: {', '.join(str(folder / name) for name in inside)}.")
    raise ValueError(f"{message} Give a student's own folder.")


def _check_index(file: Path) -> None:
    """Refuse weights outside the folder: transformers loads whatever file the index of sharded weights names."""
    names = set(read_json(file)["weight_map"].values()) if file.exists() else set()
    elsewhere = sorted(name for name in names if Path(name).name != name)
    if elsewhere:
        raise ValueError(f"{file.name} names {', '.join(elsewhere)}, outside its folder")


def _load_student(name_or_path: str, **kwargs: Any) -> PreTrainedModel:
    hub = {
        key: kwargs[key] for key in ("revision", "token", "cache_dir", "subfolder", "local_files_only") if key in kwargs
    }
    config = load_config(name_or_path, **hub)
    architecture = (config.architectures or ["none"])[0]
    base = getattr(transformers, architecture, None)
    if base is None or not any(architecture in names for names in AUTO_CLASSES.values()):
        raise ValueError(
            f"{name_or_path}: config.json names the architecture {architecture!r}, which is no classifier of the"
            " installed transformers."
        )
    num_subclasses = getattr(config, "num_subclasses", 1)
    if num_subclasses > 1:
        base = subclass_model(base)
    # Never load a pickle: no student is saved as one.
    settings = {"use_safetensors": True, **kwargs, "output_loading_info": True}
    loaded: Any = base.from_pretrained(name_or_path, **settings)
    model, loading = loaded
    check_weights(name_or_path, loading)
    return cast(PreTrainedModel, model)


def new_student(name_or_path: str, num_labels: int, processing_class: Processor | None = None) -> PreTrainedModel:
    """Load a classifier to train, in float32, from any checkpoint; a saved LELP student keeps its head.

    Args:
        name_or_path: Hub id, folder, or a recipe (`hf_lelp.student.making`).
        num_labels: C.
        processing_class: of the student; a recipe needs it.

    Raises:
        ValueError: if it is a classifier whose number of classes is not C; see also `make_student`.
    """
    if is_recipe(name_or_path):
        model = make_student(name_or_path, num_labels, processing_class)
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
    return shared_tokenizer(name_or_path, teachers()) if is_recipe(name_or_path) else load_processor(name_or_path)
