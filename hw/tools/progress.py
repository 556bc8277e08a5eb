"""Shows how far a command is."""

import sys
from contextlib import contextmanager
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
    callable
        To be called with the name of each step that is done.
    """
    numbers = count(1)
    with tqdm(total=total, desc=what, unit=unit, disable=None, leave=False) as bar:
        def step(name):
            bar.update()
            if bar.disable:
                print(f"{what}: {name} ({next(numbers)}/{total})", file=sys.stderr)

        yield step
