"""Options from the command line and from a YAML file, for the programs of this library."""

from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import yaml
from transformers import HfArgumentParser, TrainingArguments

from hf_lelp.config import AUTO, LELPConfig

Arguments = TypeVar("Arguments")


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
        usage="%(prog)s [--config FILE] [options]",
        description=description,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the options below.")
    for action in parser._actions:
        if action.dest in ("num_subclasses", "temperature", "subclass_temperature"):
            action.type = _count_or_auto if action.dest == "num_subclasses" else _number_or_auto
    _group_options(parser, kind)
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


def _count_or_auto(text: str) -> int | str:
    return text if text == AUTO else int(text)


def _number_or_auto(text: str) -> float | str:
    return text if text == AUTO else float(text)


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
