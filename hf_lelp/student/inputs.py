"""Keeps with a student what it needs to be used: the columns that it reads and the length that it was trained with.

This is an entry of config.json, `hf_lelp`, and goes wherever the student goes. The names of its classes are in
`id2label`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

ENTRY = "hf_lelp"


@dataclass(frozen=True)
class StudentInputs:
    """What a student was trained on; `None` is unknown.

    Attributes:
        input_columns: that it read.
        label_column: of its labels.
        max_length: tokens after which its inputs were cut.
        recipe: that made it (`hf_lelp.making.recipes`), where one did.
    """

    input_columns: list[str] | None = None
    label_column: str | None = None
    max_length: int | None = None
    recipe: str | None = None

    @classmethod
    def of(cls, config: Any) -> "StudentInputs":
        """Read the entry of a model's configuration; what is missing or of another type is unknown."""
        entry = getattr(config, ENTRY, None)
        entry = entry if isinstance(entry, dict) else {}
        columns, length = entry.get("input_columns"), entry.get("max_length")
        are_names = isinstance(columns, list) and columns and all(isinstance(name, str) for name in columns)
        label, recipe = (
            name if isinstance(name := entry.get(key), str) else None for key in ("label_column", "recipe")
        )
        return cls(
            input_columns=list(columns) if are_names else None,  # type: ignore[arg-type]
            label_column=label,
            max_length=length if type(length) is int and length > 0 else None,
            recipe=recipe,
        )

    def check(self, columns: Sequence[str]) -> None:
        """Refuse one column of text for a student of two, and the reverse.

        Raises:
            ValueError: naming the columns that it was trained on.
        """
        if self.input_columns is not None and len(self.input_columns) != len(columns):
            raise ValueError(
                f"The student read {' and '.join(self.input_columns)} in training, and was given {', '.join(columns)}."
                " Set input_columns to as many."
            )

    def write(self, config: Any) -> None:
        """Put the entry into a model's configuration."""
        setattr(config, ENTRY, {name: value for name, value in asdict(self).items() if value is not None})
