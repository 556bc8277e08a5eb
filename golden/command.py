# SPDX-License-Identifier: BSD-2-Clause
"""What the command lines of `golden`, `hw` and `sim` share: options, errors and exit statuses."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import util
from pathlib import Path
from typing import Any, NoReturn

from . import interrupts, output

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

    # As argparse's.
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses also ``--option=--``, for which argparse has an empty list as the value."""
        words = sys.argv[1:] if args is None else [*args]
        for word in words:
            if word.startswith("-") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value, not '--'")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints ``error: ...`` on standard error and exits with status 2."""
        self.exit(WRONG_USE, f"error: {message}; see --help\n")


def run(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorates the main function of a command, so that it returns its exit status.

    ============================  ===========================  ======
    What happens                  On standard error            Status
    ============================  ===========================  ======
    It returns a status           nothing                      that; 0 for None
    `Failure`                     ``error: `` and its text     1
    OSError                       ``error: ``, file, reason    1
    Standard output is full       ``error: ``, reason          1
    MemoryError                   ``error: ``, what it was     1
    ValueError: wrong use         ``error: `` and its text     2
    `Interrupted`                 its text                     130
    KeyboardInterrupt             ``interrupted``              130
    SIGINT, SIGTERM or SIGHUP     as the two before            128 and its number
    Standard output closed        nothing                      141
    ============================  ===========================  ======

    Other exceptions are defects and keep their traceback. SystemExit, which a parser raises,
    passes.

    Called without arguments, the main function is the whole process. A signal then ends it within
    a second, with all processes that it started, see `golden.interrupts`.

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
        guarded = arguments is None and interrupts.guard()
        if arguments is None:
            warnings.showwarning = _show_warning
        status, told = FAILURE, False
        try:
            try:
                status, told = _reported(main, arguments)
            finally:
                # A closed pipe or a full device shows here at the latest, and not while Python
                # shuts down.
                if sys.stdout is not None:
                    sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            status = CLOSED_PIPE
        except OSError as error:
            _discard_output()
            # What has been told may have had the same cause.
            if not told:
                status = _report(f"standard output: {error.strerror or error}", FAILURE)[0]
        if guarded and (interrupts.seen() or status == CLOSED_PIPE):
            # Neither threads nor processes that still work are waited for.
            interrupts.end(interrupts.seen() or status)
        return status

    return command


def _show_warning(message, category, filename, lineno, file=None, line=None):
    """Tells the user of a warning in one line, without the place in the sources."""
    with suppress(OSError, AttributeError):
        print("warning: " + " ".join(str(message).splitlines()), file=file or sys.stderr)


def _discard_output():
    """Lets Python flush standard output once more as it exits, which must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reported(main: Callable[..., int | None], arguments: Sequence[str] | None
              ) -> tuple[int, bool]:
    """The exit status, and whether the user has been told why."""
    try:
        try:
            return main(arguments) or 0, False
        except Exception as error:
            # Whatever fails while a signal ends the command is a consequence.
            if interrupts.seen() and not isinstance(error, Interrupted):
                raise KeyboardInterrupt from None
            raise
    except Interrupted as error:
        return _report(error, interrupts.seen() or INTERRUPTED, start="")
    except KeyboardInterrupt:
        return _report(interrupts.text(), interrupts.seen() or INTERRUPTED, start="")
    except Failure as error:
        return _report(error, FAILURE)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _report(f"{where}{error.strerror or error}", FAILURE)
    except MemoryError as error:
        return _report(f"not enough memory: {error}".removesuffix(": "), FAILURE)
    except ValueError as error:
        return _report(error, WRONG_USE)


def _report(text: object, status: int, start: str = "error: ") -> tuple[int, bool]:
    # The status tells the same where nobody can read the text.
    if sys.stderr is not None and (not interrupts.seen() or interrupts.first_to_tell()):
        with suppress(OSError):
            print(start + " ".join(str(text).splitlines()), file=sys.stderr, flush=True)
    return status, True


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a file in OSErrors that name none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def check_output(path: Path, option: str) -> None:
    """Tries the file of an option, so that writing it does not fail after the work.

    Parameters
    ----------
    path : Path
        Nothing changes there.
    option : str

    Raises
    ------
    ValueError
        If there is something else than a regular file, or the folder does not exist.
    Failure
        If a file of that name cannot be made.
    """
    if "\0" in str(path):
        raise ValueError(f"{option} must be the name of a file, not {str(path)!r}")
    output.check_output(path, option)
    try:
        # Another name: the file that is there, or that another process puts there now, stays, and
        # a process that is killed here leaves no empty one.
        part = output.temporary(path)
        part.open("x").close()
        part.unlink()
    except OSError as error:
        raise Failure(f"cannot write {option} {path}: {error.strerror}") from None


def check_folder(path: Path, option: str) -> None:
    """Does what `check_output` does."""
    check_output(path, option)


def check_plot(path: Path, option: str = "--plot") -> None:
    """Does what `check_output` does for the file of an option that draws."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"{option} must end in .png or .svg, not {path.name}")
    check_output(path, option)
    check_matplotlib(option)


def check_matplotlib(option: str) -> None:
    """Raises ValueError unless matplotlib, which an option needs, is installed."""
    if not util.find_spec("matplotlib"):
        raise ValueError(f"{option} needs matplotlib: pip install 'm2xfp-rtl[plot]'")
