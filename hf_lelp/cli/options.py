"""Options from the command line and from a YAML file, for the programs of this library."""

import logging
import sys
import traceback
from argparse import Action, ArgumentDefaultsHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from hf_lelp.config import LELPConfig

Arguments = TypeVar("Arguments")
PACKAGE = Path(__file__).parents[1]


def parse_options(
    kind: type[Arguments], argv: list[str], *, description: str, prog: str | None = None
) -> tuple[Arguments, LELPConfig]:
    """Read the fields of a dataclass and of `LELPConfig` as options; `--config FILE` names a YAML file of them.

    The command line wins over the file. A mistake ends the program with a message, as in argparse.

    Args:
        kind: dataclass of the program's own options.
        argv: the command line without the program's name.
        description: for `--help`.
        prog: how the program is called; `None` is the script's name.
    """
    parser = HfArgumentParser(
        [kind, LELPConfig],  # type: ignore[list-item]
        prog=prog,
        formatter_class=_Help,
        usage="%(prog)s [--config FILE] [options]",
        description=description,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the options below.")
    _group_options(parser, kind)
    _check_names(parser, argv)
    known, _ = parser.parse_known_args(argv)
    if known.config is not None:
        try:
            settings = yaml.safe_load(Path(known.config).read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            parser.error(f"{known.config} cannot be read as YAML: {error}")
        if not isinstance(settings, dict):
            parser.error(f"{known.config} holds no options, one 'name: value' a line, but a {type(settings).__name__}")
        unknown = sorted(map(str, settings.keys() - {action.dest for action in parser._actions}))
        if unknown:
            parser.error(f"{known.config} has unknown options: {', '.join(unknown)}")
        parser.set_defaults(**settings)
    try:
        arguments, config, _ = parser.parse_args_into_dataclasses(argv)
    except (AttributeError, TypeError, ValueError) as error:  # YAML may have any type where a number is meant
        parser.error(str(error))
    return arguments, config


def configure_logging() -> None:
    """What this library says comes as plain lines; no bars of single files, the long work has bars of its own."""
    disable_progress_bar()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_lelp").setLevel(logging.INFO)


@contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Within the block an error that this library raises ends the program with its message, without a traceback."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if not is_library_error(error):
            raise
        sys.exit(f"error: {error}")


def is_library_error(error: BaseException) -> bool:
    """Whether it is of a `raise` in this library, and did not only pass through it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    # Not where it passed through: numpy and open() have no frame of their own.
    return PACKAGE in Path(where.filename).parents and str(where.line).startswith("raise ")


class _Help(ArgumentDefaultsHelpFormatter):
    """Defaults once, and what an option that turns another off does."""

    def _get_help_string(self, action: Action) -> str | None:
        if action.const is False:
            return f"Turns --{action.option_strings[0].removeprefix('--no_').removeprefix('--no-')} off."
        told = action.default is None or "(default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


def _check_names(parser: HfArgumentParser, argv: list[str]) -> None:
    """An option that does not exist is told before anything that may follow from it."""
    options = {option for action in parser._actions for option in action.option_strings}
    for word in argv:
        name = word.partition("=")[0]
        if name.startswith("--") and not any(option.startswith(name) for option in options):  # or a beginning of one
            near = get_close_matches(name, options, n=1)
            parser.error(f"there is no option {name}{f'; did you mean {near[0]}?' if near else ''}")


def _group_options(parser: HfArgumentParser, kind: type) -> None:
    """Show ours before the hundred options of TrainingArguments."""
    training = {field.name for field in fields(TrainingArguments)}
    options = parser._optionals._group_actions
    groups = {
        "data, models and methods": {field.name for field in fields(kind)},
        "LELP": {field.name for field in fields(LELPConfig)} - training,
        "training, as in transformers.TrainingArguments": training,
    }
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        group._group_actions = [action for action in options if action.dest in names]
        options[:] = [action for action in options if action.dest not in names]
