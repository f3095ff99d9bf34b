"""The program `hf-lelp`, and `python -m hf_lelp`, which distils where no command is named.

Only a command's own module imports what the command needs: the help and the version come at once.
"""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from hf_lelp import __version__

if TYPE_CHECKING:
    from hf_lelp.cli.options import Program

# For each command: the module of its PROGRAM, imported only when needed, and what the command does.
COMMANDS = {
    "distill": ("hf_lelp.cli.distill", "distil a classifier into a smaller one"),
    "calibrate": ("hf_lelp.saved.calibrate", "make a student's probabilities true, and choose its threshold"),
    "compare": ("hf_lelp.compare.comparison", "compare methods and seeds on your own data"),
    "evaluate": ("hf_lelp.saved.evaluate", "show a student's figures by class, on labelled rows"),
    "predict": ("hf_lelp.saved.predict", "answer the rows of a file, with probabilities"),
    "explore": ("hf_lelp.explore.explore", "show what the subclasses are, and where a student loses, on a page"),
    "export": ("hf_lelp.export.export", "turn a student into a plain model, ONNX or a torch.export program"),
    "teacher-pass": ("hf_lelp.teacher_pass", "run the teacher over a share of the rows, or merge shares"),
}


def main(argv: Sequence[str], prog: str | None = None) -> None:
    """Run the command that the first word names; without one, distil as the options say.

    Args:
        argv: the command line without the program's name.
        prog: name of the program in its help; `None` is the script's name.
    """
    named = bool(argv) and argv[0] in COMMANDS
    command = argv[0] if named else "distill"
    program: Program = import_module(COMMANDS[command][0]).PROGRAM
    program.main(argv[1:] if named else argv, f"{prog} {command}" if named and prog else prog)


def console() -> None:
    """Run the console script; without a command it lists the commands."""
    argv = sys.argv[1:]
    first = argv[0] if argv else "--help"
    if first in ("-h", "--help"):
        lines = [f"  {name:14}{what}" for name, (_, what) in COMMANDS.items()]
        print("usage: hf-lelp COMMAND [options]\n\nSmall fast students from big classifiers.\n")
        print("\n".join([*lines, "", "hf-lelp COMMAND --help shows a command's options. A first student:", ""]))
        print("  hf-lelp distill --train_file mine.csv --teacher_model TEACHER --student_model STUDENT")
    elif first == "--version":
        print(f"hf-lelp {__version__}")
    elif first in COMMANDS or first.startswith("-"):
        main(argv, "hf-lelp")
    else:
        near = get_close_matches(first, COMMANDS, n=1)
        meant = f"; did you mean {near[0]}?" if near else f": there are {', '.join(COMMANDS)}"
        sys.exit(f"hf-lelp: there is no command {first}{meant}")


if __name__ == "__main__":
    main(sys.argv[1:], "python -m hf_lelp")
