# SPDX-License-Identifier: BSD-2-Clause
"""The golden model's commands.

Each command is a module with a function ``main``, which is imported only when it runs.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module

from .command import Failure, Parser, run

COMMANDS = {
    "check": ("formats.check", "print the value of every code and prove that all round-trip"),
    "formats": ("formats.listing", "list the formats that can be compared"),
    "convert": ("checkpoint.convert", "convert a checkpoint's weights to planes, and back"),
    "calibrate": ("models.calibrate", "find a model's best weights for the hardware"),
    "accuracy": ("models.accuracy", "measure what formats cost a real model"),
    "smollm2": ("models.smollm2", "make the model data that the package carries"),
}
"""By name, the module in `golden` and what the command does."""

EXTRAS = {"convert": "checkpoints", "calibrate": "models", "accuracy": "models",
          "smollm2": "models"}
"""By name, the extra with what a command needs besides NumPy."""


def parser() -> Parser:
    """The parser of ``python -m golden``, which knows the names of the commands only."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    made = Parser(prog="python -m golden", formatter_class=RawDescriptionHelpFormatter,
                  usage="%(prog)s [-h] COMMAND ...", description="The golden model's commands.",
                  epilog="\n".join(["commands:", *lines, "",
                                    "python -m golden COMMAND --help describes a command."]))
    made.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    return made


@run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``python -m golden``; returns the exit status.

    Parameters
    ----------
    arguments : list of str, optional
        Words of the command line; by default those of the process.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and words[0] in COMMANDS:
        name, *words = words
    else:
        # Prints the help, or what is wrong, and exits; but for a name after "--".
        name, words = parser().parse_args(words).command, []
    module, _ = COMMANDS[name]
    try:
        found = import_module(f"golden.{module}")
    except ModuleNotFoundError as error:
        if name not in EXTRAS or str(error.name).startswith("golden"):
            raise
        raise Failure(f"{name} needs {error.name}: "
                      f"pip install 'm2xfp-rtl[{EXTRAS[name]}]'") from None
    return found.main(words)


if __name__ == "__main__":
    sys.exit(main())
