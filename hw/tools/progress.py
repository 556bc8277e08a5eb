# SPDX-License-Identifier: BSD-2-Clause
"""Shows how far a command is."""

import sys
from contextlib import contextmanager, nullcontext
from itertools import count

from tqdm import tqdm


@contextmanager
def progress(what, unit, total):
    """A bar on stderr or, where that is no terminal, a line per step.

    Parameters
    ----------
    what : str
        Stands before the bar and in each line.
    unit : str
        Of the steps.
    total : int
        Steps.

    Yields
    ------
    Step
        To be called with the name of each step that is done.
    """
    with tqdm(total=total, desc=what, unit=unit, disable=None, leave=False) as bar:
        yield Step(what, total, bar)


class Step:
    """What `progress` yields."""

    def __init__(self, what, total, bar):
        self._what, self._total, self._bar = what, total, bar
        self._numbers = count(1)

    def __call__(self, name):
        self._bar.update()
        if self._bar.disable:
            print(f"{self._what}: {name} ({next(self._numbers)}/{self._total})", file=sys.stderr)

    def aside(self):
        """A context in which lines may be printed to stdout without the bar."""
        return nullcontext() if self._bar.disable else tqdm.external_write_mode(file=sys.stdout)
