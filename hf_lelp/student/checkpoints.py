"""Saves, checks and reads what a checkpoint holds beside the student.

The model in a checkpoint is the one that is published. An auxiliary layer and what made the pseudo-subclasses lie
beside it, for resuming only.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_lelp.storage.checksums import CHECKSUMS_NAME, UNFINISHED_NAME, check_checksums
from hf_lelp.storage.files import read_json, write_atomically, write_json
from hf_lelp.student.heads import AuxiliaryHead, StudentHead

PROJECTIONS_FOLDER = "class_projections"
AUXILIARY_NAME = "auxiliary_head.safetensors"
ADAPTER_NAME = "adapter_model.safetensors"  # PEFT's
SETTINGS_NAME = "distillation.json"
# Trainer writes this file of a checkpoint last.
STATE_NAME = "trainer_state.json"

logger = logging.getLogger(__name__)


def save_for_resuming(folder: Path, head: StudentHead | None, settings: dict[str, Any]) -> None:
    """Write the auxiliary layer, if there is one, and the settings that a resumed run must share.

    Args:
        folder: the checkpoint's.
        head: of the student.
        settings: what must be the same when training is resumed; values that JSON can hold.
    """
    write_json(folder / SETTINGS_NAME, settings, indent=None)
    if isinstance(head, AuxiliaryHead):
        parameters = {name: value.contiguous() for name, value in head.auxiliary.state_dict().items()}
        write_atomically(folder / AUXILIARY_NAME, lambda path: save_file(parameters, path))


def drop_auxiliary(adapter: Path) -> None:
    """Remove the auxiliary layer from a PEFT adapter file: PEFT saves a final layer with all that is in it.

    Args:
        adapter: the file; nothing is done if it is missing or has no such layer.
    """
    if not adapter.exists():
        return
    weights = load_file(adapter)
    kept = {name: value for name, value in weights.items() if ".auxiliary." not in name}
    if len(kept) < len(weights):
        write_atomically(adapter, lambda path: save_file(kept, path, metadata={"format": "pt"}))


@contextmanager
def whole_or_gone(folder: Path) -> Iterator[None]:
    """Remove a checkpoint that the block fails to write to its end.

    Raises:
        OSError: if the disk is full or cannot be written to, whatever error torch or safetensors gave for it.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        try:
            check_checkpoint(folder)
        except ValueError:
            free = shutil.disk_usage(next(place for place in folder.parents if place.exists())).free
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(
                f"The checkpoint {folder} could not be written, and was removed ({error}; {free / 1e6:,.1f} MB are free"
                " there). Those before it are as they were."
            ) from error
        raise


def mend_times(folder: Path) -> None:
    """Reset the times of checkpoints that lie in the future, as after a clock was set back, to the present.

    Trainer deletes the oldest checkpoints by their times. Without this it would take the newest for the oldest.
    """
    now = time.time()
    future = [path for path in _by_steps(folder) if path.stat().st_mtime > now]
    for age, path in enumerate(reversed(future)):
        os.utime(path, (now - age, now - age))


def check_checkpoint(folder: Path) -> None:
    """Refuse a checkpoint that was not written to its end, was damaged, or was removed in part.

    Raises:
        ValueError: saying what is wrong.
    """
    try:
        read_json(folder / STATE_NAME)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is no whole checkpoint: {STATE_NAME}, the last file to be written, cannot be read ({error})."
            " Resume from another one."
        ) from error
    if (folder / UNFINISHED_NAME).exists():
        raise ValueError(
            f"{folder} is no whole checkpoint: {UNFINISHED_NAME} is in it, so the process was killed while it wrote on"
            " SIGTERM. Resume from another one."
        )
    whole = [path for path in _by_steps(folder.parent) if (path / STATE_NAME).exists()]
    if not (folder / CHECKSUMS_NAME).exists() and folder in whole[:-1] and not _is_of_plain_trainer(folder):
        # Trainer deletes the oldest checkpoint file by file. The newest may lack checksums: they are written last.
        raise ValueError(
            f"{folder} is no whole checkpoint: {CHECKSUMS_NAME} is missing, and there is a later one. It seems that its"
            " removal was cut off. Resume from another one."
        )
    check_checksums(folder)


def _is_of_plain_trainer(folder: Path) -> bool:
    """Whether a plain Trainer wrote a checkpoint, which then has no checksums: its settings are not LELPConfig's."""
    settings = folder / TRAINING_ARGS_NAME
    return settings.exists() and b"num_subclasses" not in settings.read_bytes()  # never unpickled


def last_checkpoint(folder: Path) -> str | None:
    """Find the whole checkpoint in `folder` with the most steps; warn of damaged ones that it skips."""
    for path in reversed(_by_steps(folder)):
        try:
            check_checkpoint(path)
            return str(path)
        except ValueError as error:
            logger.warning(f"Passed over: {error}")
    return None


def _by_steps(folder: Path) -> list[Path]:
    """List the checkpoints in a folder by their steps, the most last."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*") if path.is_dir()}
    return sorted((path for path in steps if steps[path].isdecimal()), key=lambda path: int(steps[path]))


def load_rest(checkpoint: str, model: Any, head: StudentHead | None) -> None:
    """Load what Trainer does not: an auxiliary layer, and weights saved under other names, like ViT's.

    Trainer skips such weights with a warning (https://github.com/huggingface/transformers/issues/43701);
    `from_pretrained` knows the names.

    Args:
        checkpoint: its folder.
        model: the student, unwrapped.
        head: of the student.

    Raises:
        ValueError: if the student has an auxiliary layer and the checkpoint has none or a different one.
    """
    weights = Path(checkpoint) / SAFE_WEIGHTS_NAME
    if isinstance(model, PreTrainedModel) and weights.exists():
        with safe_open(weights, "pt") as stored:
            renamed = {*stored.keys()} - {*model.state_dict()}
        if renamed:
            saved = type(model).from_pretrained(checkpoint, dtype=model.dtype)
            model.load_state_dict(saved.state_dict(), strict=False)
    if isinstance(head, AuxiliaryHead):
        auxiliary = Path(checkpoint) / AUXILIARY_NAME
        if not auxiliary.exists():
            raise ValueError(
                f"The checkpoint {checkpoint} has no {AUXILIARY_NAME}, and this student has an auxiliary layer, which"
                " would start anew. Resume it with its own settings."
            )
        try:
            head.auxiliary.load_state_dict(load_file(auxiliary))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"{auxiliary} is damaged, or of another student ({error}).") from error


def check_settings(checkpoint: str, settings: dict[str, Any]) -> None:
    """Refuse to resume with a teacher, classes or pseudo-subclasses that are not the checkpoint's.

    Any of these would give the student's outputs another meaning.

    Args:
        checkpoint: its folder.
        settings: as for `save_for_resuming`; a `None` value is not compared.

    Raises:
        ValueError: if a setting differs, naming it, or if the file is damaged.
    """
    file = Path(checkpoint) / SETTINGS_NAME
    if not file.exists():
        return
    try:
        found = read_json(file)
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}). Resume from another checkpoint.") from error
    found.setdefault("whitening", 0.0)  # older checkpoints do not name it
    names = [name for name, value in settings.items() if None not in (value, found.get(name)) and found[name] != value]
    if names:
        theirs, ours = ({name: values[name] for name in names} for values in (found, settings))
        raise ValueError(
            f"The checkpoint {checkpoint} was trained with {theirs}, and this run has {ours} (teacher is a fingerprint"
            " of its weights, data type and order of classes; seed is rotation_seed, or else seed). Resume it with its"
            " own settings."
        )
