"""The program `python -m hf_lelp.export`, as `hf-lelp export`."""

import sys

from hf_lelp.export.export import PROGRAM

if __name__ == "__main__":
    PROGRAM.main(sys.argv[1:], "python -m hf_lelp.export")
