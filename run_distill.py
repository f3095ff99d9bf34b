"""Distils a classifier from the command line; runs the demo without arguments. Options: run_distill.py --help.

The demo ends with a page that shows what its students learned.
"""

import sys
from pathlib import Path

from hf_lelp.__main__ import main
from hf_lelp.cli.options import configure_logging

DEMO = Path(__file__).parent / "examples" / "demo.yaml"

if __name__ == "__main__":
    if len(sys.argv) == 1:
        from examples.vader import build_demo

        configure_logging()
        build_demo()
    main(sys.argv[1:] or ["--config", str(DEMO)])
    if len(sys.argv) == 1:
        print()  # a page of its own
        main(["explore", "--config", str(DEMO)])
