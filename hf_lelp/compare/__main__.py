"""The program `python -m hf_lelp.compare`, as `hf-lelp compare`."""

import sys

from hf_lelp.compare.comparison import PROGRAM

if __name__ == "__main__":
    PROGRAM.main(sys.argv[1:], "python -m hf_lelp.compare")
