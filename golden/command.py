# SPDX-License-Identifier: BSD-2-Clause
"""What the command lines of `golden`, `hw` and `sim` share: options, errors and exit statuses."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib import util
from pathlib import Path
from typing import NoReturn

from .output import check_output

FAILURE = 1
WRONG_USE = 2
INTERRUPTED = 130
CLOSED_PIPE = 141
"""Exit statuses; the last two are 128 and the signal's number, as shells report them."""


class Failure(Exception):
    """A command cannot do what it was asked to do.

    The text is one line for the user. Exceptions that commands report derive from this class.
    """


class Interrupted(Failure):
    """The user stopped a command; the text says what is kept and how to go on."""


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong options in one line."""

    def error(self, message: str) -> NoReturn:
        """Prints ``error: ...`` on standard error and exits with status 2."""
        self.exit(WRONG_USE, f"error: {message}; see --help\n")


def run(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorates the main function of a command, so that it returns its exit status.

    ========================  ===========================  ======
    What happens              On standard error            Status
    ========================  ===========================  ======
    It returns a status       nothing                      that; 0 for None
    `Failure`                 ``error: `` and its text     1
    OSError                   ``error: ``, file, reason    1
    ValueError: wrong use     ``error: `` and its text     2
    `Interrupted`             its text                     130
    KeyboardInterrupt         ``interrupted``              130
    Standard output closed    nothing                      141
    ========================  ===========================  ======

    Other exceptions are defects and keep their traceback. SystemExit, which a parser raises,
    passes.

    Parameters
    ----------
    main : callable
        Takes the words of the command line, or None for ``sys.argv[1:]``, and returns an exit
        status or None.

    Returns
    -------
    callable
        The same, but for the exceptions above. A module ends with ``sys.exit(main())``.
    """
    @wraps(main)
    def command(arguments: Sequence[str] | None = None) -> int:
        try:
            try:
                return _reported(main, arguments)
            finally:
                # A closed pipe shows here at the latest, and not while Python shuts down.
                sys.stdout.flush()
        except BrokenPipeError:
            # Python flushes once more as it exits, which must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE

    return command


def _reported(main: Callable[..., int | None], arguments: Sequence[str] | None) -> int:
    try:
        return main(arguments) or 0
    except Interrupted as error:
        return _report(error, INTERRUPTED, start="")
    except KeyboardInterrupt:
        return _report("interrupted", INTERRUPTED, start="")
    except Failure as error:
        return _report(error, FAILURE)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _report(f"{where}{error.strerror or error}", FAILURE)
    except ValueError as error:
        return _report(error, WRONG_USE)


def _report(text: object, status: int, start: str = "error: ") -> int:
    print(start + " ".join(str(text).splitlines()), file=sys.stderr)
    return status


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a file in OSErrors that name none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def check_folder(path: Path, option: str) -> None:
    """Raises ValueError unless an option's file can be written; see `golden.output`."""
    check_output(path, option)


def check_plot(path: Path, option: str = "--plot") -> None:
    """Raises ValueError unless the file of an option that draws can be drawn."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"{option} must end in .png or .svg, not {path.name}")
    check_folder(path, option)
    check_matplotlib(option)


def check_matplotlib(option: str) -> None:
    """Raises ValueError unless matplotlib, which an option needs, is installed."""
    if not util.find_spec("matplotlib"):
        raise ValueError(f"{option} needs matplotlib: pip install 'm2xfp-rtl[plot]'")
