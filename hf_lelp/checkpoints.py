"""What a checkpoint holds beside the student, and reading it again when training goes on.

The model saved in it is the one that is published; an auxiliary layer, and what made the pseudo-subclasses, are kept
beside it for resuming only.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_lelp.files import write_atomically
from hf_lelp.projections import ClassProjections
from hf_lelp.students import AuxiliaryHead, StudentHead

PROJECTIONS_FOLDER = "class_projections"
AUXILIARY_NAME = "auxiliary_head.safetensors"
SUBCLASSES_NAME = "subclasses.json"


def save_for_resuming(folder: Path, head: StudentHead | None, subclasses: dict[str, Any] | None) -> None:
    """Write the auxiliary layer, if there is one, and the settings of the pseudo-subclasses.

    Args:
        folder: the checkpoint's.
        head: of the student.
        subclasses: what made the subclasses of the projections; `None` without projections.
    """
    if subclasses is not None:
        text = json.dumps(subclasses) + "\n"
        write_atomically(folder / SUBCLASSES_NAME, lambda path: path.write_text(text))
    if isinstance(head, AuxiliaryHead):
        parameters = {name: value.contiguous() for name, value in head.auxiliary.state_dict().items()}
        write_atomically(folder / AUXILIARY_NAME, lambda path: save_file(parameters, path))


def load_rest(checkpoint: str, model: Any, head: StudentHead | None) -> None:
    """Load what Trainer does not: an auxiliary layer, and weights that are saved under other names, like ViT's.

    Trainer passes over the latter with a warning (https://github.com/huggingface/transformers/issues/43701);
    `from_pretrained` knows the names.

    Args:
        checkpoint: its folder.
        model: the student, unwrapped.
        head: of the student.
    """
    weights = Path(checkpoint) / SAFE_WEIGHTS_NAME
    if isinstance(model, PreTrainedModel) and weights.exists():
        with safe_open(weights, "pt") as stored:
            renamed = {*stored.keys()} - {*model.state_dict()}
        if renamed:
            saved = type(model).from_pretrained(checkpoint, dtype=model.dtype)
            model.load_state_dict(saved.state_dict(), strict=False)
    auxiliary = Path(checkpoint) / AUXILIARY_NAME
    if isinstance(head, AuxiliaryHead) and auxiliary.exists():
        head.auxiliary.load_state_dict(load_file(auxiliary))


def saved_projections(checkpoint: str, subclasses: dict[str, Any]) -> ClassProjections | None:
    """The projections that a checkpoint was trained with; `None` if it has none.

    Args:
        checkpoint: its folder.
        subclasses: what this run makes its pseudo-subclasses with.

    Raises:
        ValueError: if the checkpoint's were made with other settings, which would give every subclass another meaning.
    """
    folder = Path(checkpoint) / PROJECTIONS_FOLDER
    if not folder.exists():
        return None
    file = Path(checkpoint) / SUBCLASSES_NAME
    if file.exists() and (found := json.loads(file.read_text())) != subclasses:
        raise ValueError(
            f"The checkpoint {checkpoint} was trained on pseudo-subclasses made with {found}, and this run makes them"
            f" with {subclasses} (the seed is rotation_seed, or else seed). Resume it with its own settings."
        )
    return ClassProjections.from_pretrained(str(folder))
