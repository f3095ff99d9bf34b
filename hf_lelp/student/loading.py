"""Loads a saved student."""

import os
from pathlib import Path
from typing import Any, cast

from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME

from hf_lelp.classifiers import check_weights, load_config, model_class
from hf_lelp.storage.checksums import check_checksums
from hf_lelp.storage.files import read_json
from hf_lelp.student.heads import subclass_model
from hf_lelp.student.modeling_lelp import StaticConfig, StaticForSequenceClassification

# Static students load by the Auto classes here, without the code that travels with them.
AutoConfig.register(StaticConfig.model_type, StaticConfig, exist_ok=True)
AutoModelForSequenceClassification.register(StaticConfig, StaticForSequenceClassification, exist_ok=True)
StaticConfig.register_for_auto_class()
StaticForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")


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
    named = f"Name one of those in it: {', '.join(str(folder / name) for name in inside)}."
    advice = named if inside else "Give a student's own folder."
    raise ValueError(f"{folder} has no {CONFIG_NAME}: it holds no student. {advice}")


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
    base: Any = model_class(config)
    if base is None:
        raise ValueError(
            f"{name_or_path}: config.json names the architecture {(config.architectures or ['none'])[0]!r}, which is no"
            " classifier of the installed transformers. Register one of your own with its Auto class first."
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
