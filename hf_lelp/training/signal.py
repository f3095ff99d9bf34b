"""Says on a student's card what it learned from, where that is no single teacher of as many outputs as classes."""

from typing import Any, NamedTuple

from hf_lelp.student.card import hub_id
from hf_lelp.teacher.kinds.combined import CombinedTeacher, parts_of
from hf_lelp.teacher.kinds.encoder import Encoder
from hf_lelp.teacher.kinds.soft_labels import FLOOR, SoftLabels
from hf_lelp.teacher.teacher import Teacher


class Signal(NamedTuple):
    """What a student learned from.

    Attributes:
        words: for a sentence: "distilled from …".
        settings: for the table of settings, by name.
    """

    words: str
    settings: dict[str, Any]


def signal_of(teacher: Any) -> Signal | None:
    """Describe a teacher of another kind; `None` of a plain one, or where none is known."""
    if isinstance(teacher, Teacher) and teacher.one_output:
        return Signal("a teacher", {"teacher's output": "one, z: two classes with the logits 0 and z"})
    parts = parts_of(teacher)
    soft = parts[0]
    if isinstance(soft, SoftLabels):
        floor = f", at least {FLOOR:g}" if soft.scores != "logits" else ""
        settings = {"soft labels": f"{soft.scores} in {', '.join(soft.input_columns)}{floor}"}
        if len(parts) > 1:
            settings["embeddings beside soft labels"] = f"the mean token vector of {_name(parts[1])}"
        return Signal("soft labels in its training data", settings)
    if not isinstance(teacher, CombinedTeacher) or teacher.weights is None:
        return None
    shares = zip(map(_name, parts), teacher.weights, strict=True)
    listed = "; ".join(f"{name} ({share:.3g})" for name, share in shares)
    return Signal(f"the mean of {len(parts)} teachers", {"teachers, with their weights": listed})


def _name(part: Any) -> str:
    """Name a teacher by its Hub id, or by its kind: a path tells of somebody's machine."""
    if not isinstance(part, Teacher | Encoder):
        return f"a {type(part).__name__}"
    model = part.model
    return hub_id(model.name_or_path) or f"a {type(model).__name__} of {model.num_parameters() / 1e6:,.1f}M parameters"
