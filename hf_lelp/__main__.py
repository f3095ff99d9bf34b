"""Distil a classifier from the command line: python -m hf_lelp --help."""

import sys

from hf_lelp.cli.distill import DistillArguments, distill
from hf_lelp.cli.options import configure_logging, errors_as_one_line, parse_options
from hf_lelp.config import LELPConfig


def parse(argv: list[str], prog: str | None = None) -> tuple[DistillArguments, LELPConfig]:
    """Options from the command line and, with `--config FILE`, from a YAML file; the command line wins.

    Args:
        argv: the command line without the program's name.
        prog: how the program is called; `None` is the script's name.
    """
    return parse_options(
        DistillArguments,
        argv,
        prog=prog,
        description="Distil a classifier into a smaller one by LELP, plain distillation or labels alone.",
    )


def main(argv: list[str], prog: str | None = None) -> None:
    """Distil as the arguments ask for."""
    configure_logging()
    with errors_as_one_line():
        distill(*parse(argv, prog))


if __name__ == "__main__":
    main(sys.argv[1:], "python -m hf_lelp")
