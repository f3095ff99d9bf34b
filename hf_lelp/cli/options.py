"""Parses the options of the library's programs, from the command line and from a YAML file with the same names."""

import codecs
import logging
import signal
import sys
import traceback
from argparse import SUPPRESS, Action, ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import datasets
import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from hf_lelp.cli.data import DataArguments
from hf_lelp.config import LELPConfig

PACKAGE = Path(__file__).parents[1]
WIDTH = 100  # of the help, in columns
REPLACE = "hf_lelp.plain"  # name of what replaces signs that a stream's encoding does not have
PLAIN = {
    **{"–": "-", "−": "-", "±": "+/-", "×": "x", "·": "*", "’": "'", "…": "...", "▲": "+", "▼": "-", "√": "sqrt"},
    **{"α": "alpha", "β": "beta", "γ": "gamma", "τ": "tau"},
}
OF_TRAINING = {item.name for item in fields(TrainingArguments)}
TRAINING_HELP = (
    "Training takes all options of transformers.TrainingArguments, such as --num_train_epochs, --learning_rate,"
    " --per_device_train_batch_size, --output_dir and --seed. --help-all shows them."
)


@dataclass(frozen=True)
class Program:
    """A program: what it runs, and the dataclasses whose fields are its options.

    Attributes:
        run: takes an object of each of `kinds`.
        kinds: the program's own options first.
        description: for `--help`.
        first: the option that takes a first word without a name, if any.
        rate_by_size: whether `learning_rate` is None where it is not given: the program then takes `starting_rate`.
    """

    run: Callable[..., object]
    kinds: tuple[type, ...]
    description: str
    first: str | None = None
    rate_by_size: bool = False

    def main(self, argv: Sequence[str], prog: str | None = None) -> None:
        """Run with the options of a command line; an error of this library ends the process with one line.

        Args:
            argv: the command line without the program's name.
            prog: how the program is called; `None` is the script's name.
        """
        configure_logging()
        arguments = self.parse(argv, prog)
        with errors_as_one_line():
            self.run(*arguments)

    def parse(self, argv: Sequence[str], prog: str | None = None) -> tuple[Any, ...]:
        """Parse a command line into an object of each of `kinds`.

        `--config FILE` names a YAML file of options; the command line overrides it. A mistake ends the process with a
        message, as in argparse.
        """
        usage = f"%(prog)s {f'[{self.first.upper()}] ' if self.first else ''}[--config FILE] [options]"
        parser = HfArgumentParser(
            list(self.kinds),  # type: ignore[arg-type]
            prog=prog,
            formatter_class=_Help,
            usage=usage,
            description=self.description,
            add_help=False,
        )
        parser.add_argument("--config", metavar="FILE", help="YAML file with any of these options.")
        parser.add_argument("-h", "--help", action="help", help="Show this.")
        if LELPConfig in self.kinds:
            parser.add_argument("--help-all", action=_HelpAll, nargs=0, help="Show the options of training too.")
        if self.rate_by_size:
            parser.set_defaults(learning_rate=None)
        _group_options(parser, self.kinds)
        words = list(argv)
        if self.first and words and not words[0].startswith("-"):
            words = [f"--{self.first}", *words]
        _check_names(parser, words)
        _take_defaults(parser, parser.parse_known_args(words)[0].config)
        try:
            *arguments, _ = parser.parse_args_into_dataclasses(words)
        except (AttributeError, TypeError, ValueError) as error:  # YAML may hold any type in place of a number
            parser.error(str(error))
        return tuple(arguments)


def configure_logging() -> None:
    """Log as plain lines, and hide the bars of single files and steps: the long work has bars of its own.

    What a terminal cannot show, like τ where it knows ASCII alone, is replaced: a table must not end a run.
    """
    codecs.register_error(REPLACE, _in_plain_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=REPLACE)
    disable_progress_bar()
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_lelp").setLevel(logging.INFO)


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding does not have as plain letters and signs."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign, "?") for sign in found), error.end


@contextmanager
def errors_as_one_line() -> Iterator[None]:
    """End the program with the message alone, without a traceback, if this library raises an error in the block.

    The same for Ctrl-C where this library has noted what is kept.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        if not getattr(stop, "__notes__", None):
            raise
        print(*stop.__notes__, sep="\n", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if not is_library_error(error):
            raise
        sys.exit(f"error: {error}")


def is_library_error(error: BaseException) -> bool:
    """Tell whether a `raise` in this library made the error, which may also pass through from elsewhere."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    # The file alone is not enough: compiled code, as in numpy or open(), has no frame of its own.
    return PACKAGE in Path(where.filename).parents and str(where.line).startswith("raise ")


class _Help(ArgumentDefaultsHelpFormatter):
    """Shows each option once, by its name with underscores, and its default once."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, max_help_position=36, width=WIDTH, **kwargs)

    def _format_action_invocation(self, action: Action) -> str:
        if action.help == SUPPRESS or not action.option_strings or action.option_strings[0] == "-h":
            return super()._format_action_invocation(action)
        name = action.option_strings[0]
        if action.nargs == "?" and action.const is True:
            return f"{name}, --no_{name.removeprefix('--')}" if action.default is True else name
        if action.nargs == 0:
            return name
        what = action.metavar or f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.metavar
        more = " ..." if action.nargs in ("+", "*") else ""
        return f"{name} {what or action.dest.rpartition('_')[2].upper()}{more}"

    def _get_help_string(self, action: Action) -> str | None:
        if isinstance(action.default, list) and action.default:
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        told = action.default in (None, [], SUPPRESS) or "(default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


class _HelpAll(Action):
    """Shows also the options of TrainingArguments, which `--help` leaves out."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: Any = None) -> None:
        for action in parser._actions:
            action.help = getattr(action, "full_help", action.help)
        parser.epilog = None
        parser.print_help()
        parser.exit()


def _group_options(parser: HfArgumentParser, kinds: Sequence[type]) -> None:
    """Put the options into groups; those of training come last, and only `--help-all` shows them."""
    of_data = {item.name for item in fields(DataArguments)}
    own = {item.name for kind in kinds if kind is not LELPConfig for item in fields(kind)}
    with_training = LELPConfig in kinds
    groups = {
        "data": own & of_data,
        "models and methods" if with_training else "model": own - of_data,
        "LELP": {item.name for item in fields(LELPConfig)} - OF_TRAINING if with_training else set(),
        "training, as in transformers.TrainingArguments": OF_TRAINING - own if with_training else set(),
    }
    options = parser._optionals._group_actions
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        group._group_actions = [action for action in options if action.dest in names]
        options[:] = [action for action in options if action.dest not in names]
        for action in group._group_actions:
            twin = action.const is False  # --no_x, which the help of --x names
            full = SUPPRESS if twin else action.help
            action.full_help = full  # type: ignore[attr-defined]
            action.help = SUPPRESS if title.startswith("training") else full
    if with_training:
        parser.epilog = TRAINING_HELP


def _check_names(parser: HfArgumentParser, argv: Sequence[str]) -> None:
    """Report an option that does not exist before any error that follows from it."""
    options = {option for action in parser._actions for option in action.option_strings}
    for word in argv:
        name = word.partition("=")[0]
        if name.startswith("--") and not any(option.startswith(name) for option in options):  # argparse takes prefixes
            near = get_close_matches(name, options, n=1)
            parser.error(f"there is no option {name}{f'; did you mean {near[0]}?' if near else ''}")


def _take_defaults(parser: HfArgumentParser, config: str | None) -> None:
    """Take the options of a YAML file as defaults; a single value becomes a list where the option takes several."""
    if config is None:
        return
    try:
        settings = yaml.safe_load(Path(config).read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        parser.error(f"{config} cannot be read as YAML: {error}")
    if not isinstance(settings, dict):
        parser.error(f"{config} holds no options, one 'name: value' a line, but a {type(settings).__name__}")
    several = {action.dest: action.nargs in ("+", "*") for action in parser._actions}
    unknown = sorted(map(str, settings.keys() - several.keys()))
    if unknown:
        parser.error(f"{config} has unknown options: {', '.join(unknown)}")
    single = {name for name, value in settings.items() if several[name] and not isinstance(value, list | None)}
    parser.set_defaults(**{name: [value] if name in single else value for name, value in settings.items()})
