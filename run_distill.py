"""Distil a classifier from the command line. Without arguments: the demo. All options: python run_distill.py --help."""

import logging
import sys
from dataclasses import fields
from pathlib import Path

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from hf_lelp.config import LELPConfig
from hf_lelp.distill import DistillArguments, distill

DEMO = Path(__file__).parent / "examples" / "demo.yaml"


def parse(argv: list[str]) -> tuple[DistillArguments, LELPConfig]:
    """Options from the command line and, with `--config FILE`, from a YAML file; the command line wins."""
    parser = HfArgumentParser(
        [DistillArguments, LELPConfig],  # type: ignore[list-item]
        usage="%(prog)s [--config FILE] [options]",
        description="Distil a classifier into a smaller one by LELP, KD or labels alone. Without options: the demo.",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the options below.")
    _group_options(parser)
    known, _ = parser.parse_known_args(argv)
    if known.config is not None:
        settings = yaml.safe_load(Path(known.config).read_text()) or {}
        options = {action.dest for action in parser._actions}
        unknown = sorted(set(settings) - options) if isinstance(settings, dict) else [str(settings)]
        if unknown:
            parser.error(f"{known.config} has unknown options: {', '.join(map(str, unknown))}")
        parser.set_defaults(**settings)
    try:
        arguments, config, _ = parser.parse_args_into_dataclasses(argv)
    except ValueError as error:
        parser.error(str(error))
    return arguments, config


def _group_options(parser: HfArgumentParser) -> None:
    """Show ours before the hundred options of TrainingArguments."""
    training = {field.name for field in fields(TrainingArguments)}
    options = parser._optionals._group_actions
    groups = {
        "data, models and methods": {field.name for field in fields(DistillArguments)},
        "LELP": {field.name for field in fields(LELPConfig)} - training,
        "training, as in transformers.TrainingArguments": training,
    }
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        group._group_actions = [action for action in options if action.dest in names]
        options[:] = [action for action in options if action.dest not in names]


def main() -> None:
    """Run the demo, or what the arguments ask for."""
    disable_progress_bar()  # those of single files; the long work has bars of its own
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_lelp").setLevel(logging.INFO)
    argv = sys.argv[1:]
    if not argv:
        from examples.vader import build_demo

        build_demo()
        argv = ["--config", str(DEMO)]
    distill(*parse(argv))


if __name__ == "__main__":
    main()
