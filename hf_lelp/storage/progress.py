"""Shows the progress of long work, where somebody can watch it."""

from tqdm.auto import tqdm

_hidden = False


def hide_bars() -> None:
    """Show no bars from now on: a file that a program writes to would take each step of one."""
    global _hidden
    _hidden = True


def progress_bar(total: int | None, description: str, *, unit: str = "row", disable: bool = False) -> tqdm:
    """Return a bar that comes after a second and goes when the work is done.

    Args:
        total: of the units, where known.
        description: of the work.
        unit: of the work.
        disable: whether to show none here, as in processes beside the main one.
    """
    return tqdm(total=total, desc=description, unit=unit, disable=disable or _hidden, delay=1, leave=False)
