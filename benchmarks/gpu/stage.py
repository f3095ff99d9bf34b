"""What a stage is made of: cases by name, each of which gives a row of the stage's table or fails alone."""

from collections.abc import Callable

Row = dict[str, str | float]
Case = tuple[str, Callable[[], Row]]
