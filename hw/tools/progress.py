# SPDX-License-Identifier: BSD-2-Clause
"""Shows how much of its work a command has done."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import Any

from tqdm import tqdm


@contextmanager
def progress(what: str, unit: str, total: int) -> Iterator["Step"]:
    """Shows a bar on stderr or, if stderr is not a terminal, prints a line per step.

    Parameters
    ----------
    what : str
        Text before the bar and in each line.
    unit : str
        Name of one step.
    total : int
        Number of steps.

    Yields
    ------
    Step
        Call it with the name of each step when the step is done.
    """
    with tqdm(total=total, desc=what, unit=unit, disable=None, leave=False) as bar:
        yield Step(what, total, bar)


class Step:
    """Counts the steps of `progress`, which makes it.

    Parameters
    ----------
    what : str
    total : int
        As in `progress`.
    bar : tqdm
    """

    def __init__(self, what: str, total: int, bar: Any) -> None:
        self._what, self._total, self._bar = what, total, bar
        self._numbers = count(1)

    def __call__(self, name: str) -> None:
        """Shows that the step of this name is done."""
        self._bar.update()
        if self._bar.disable:
            print(f"{self._what}: {name} ({next(self._numbers)}/{self._total})", file=sys.stderr)

    def aside(self) -> AbstractContextManager[None]:
        """Opens a context in which lines can be printed to stdout without damage to the bar."""
        return nullcontext() if self._bar.disable else tqdm.external_write_mode(file=sys.stdout)
