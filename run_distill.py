"""Distil a classifier from the command line. Without arguments: the demo. All options: python run_distill.py --help."""

import logging
import sys
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from hf_lelp.config import LELPConfig
from hf_lelp.distill import DistillArguments, distill
from hf_lelp.options import parse_options

DEMO = Path(__file__).parent / "examples" / "demo.yaml"


def parse(argv: list[str]) -> tuple[DistillArguments, LELPConfig]:
    """Options from the command line and, with `--config FILE`, from a YAML file; the command line wins."""
    return parse_options(
        DistillArguments,
        argv,
        description="Distil a classifier into a smaller one by LELP, KD or labels alone. Without options: the demo.",
    )


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
