# SPDX-License-Identifier: BSD-2-Clause
"""Shows how much of its work a command has done, and that it still works.

On a terminal that is a bar whose time goes on; elsewhere a line now and then. All goes to stderr.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import Any

from tqdm import tqdm

SILENCE = 30.0
"""Seconds without a line after which there is one, where stderr is no terminal."""


@contextmanager
def progress(what: str, unit: str, total: int) -> Iterator["Step"]:
    """Shows a bar on stderr or, if stderr is not a terminal, prints a line per step.

    Between the steps, a line after each `SILENCE` tells that the work goes on.

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
        step = Step(what, total, bar)
        with _watched(step.beat):
            yield step


@contextmanager
def counting(what: str, unit: str) -> Iterator["Count"]:
    """Shows a bar of what is counted; elsewhere than on a terminal, a line after each `SILENCE`.

    Parameters
    ----------
    what : str
        Text before the bar and in each line.
    unit : str
        Name of what is counted.

    Yields
    ------
    Count
        Call it with the number that is done and the total. Until then only the time is shown.
    """
    with tqdm(desc=what, unit=unit, disable=None, leave=False) as bar:
        counted = Count(what, unit, bar)
        with _watched(counted.beat):
            yield counted


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Shows for how long something has been going on that cannot be counted."""
    with tqdm(desc=what, bar_format="{desc}: {elapsed}", disable=None, leave=False) as bar, \
            _watched(Count(what, "", bar).beat):
        yield


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
        self._done = 0
        self._lines = _Lines()

    def __call__(self, name: str) -> None:
        """Shows that the step of this name is done."""
        self._bar.update()
        self._done = next(self._numbers)
        if self._bar.disable:
            self._lines.write(f"{self._what}: {name} ({self._done}/{self._total})")

    def beat(self) -> None:
        """Shows that the work goes on."""
        if self._bar.disable:
            self._lines.after_silence(f"{self._what}: {self._done}/{self._total}")
        else:
            self._bar.refresh()

    def aside(self) -> AbstractContextManager[None]:
        """Opens a context in which lines can be printed to stdout without damage to the bar."""
        return nullcontext() if self._bar.disable else tqdm.external_write_mode(file=sys.stdout)


class Count:
    """What `counting` counts; `counting` makes it.

    Parameters
    ----------
    what, unit : str
        As in `counting`.
    bar : tqdm
    """

    def __init__(self, what: str, unit: str, bar: Any) -> None:
        self._what, self._unit, self._bar = what, unit, bar
        self._state = self._left = ""
        self._start = time.monotonic()
        self._lines = _Lines()

    def __call__(self, done: int, total: int) -> None:
        """Shows that so many of the total are done."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        self._state = f" {done} of {total} {self._unit}s,"
        seconds = (time.monotonic() - self._start) * (total - done) / max(1, done)
        self._left = f", about {seconds / 60:.0f} min left" if done and seconds >= 60 else ""

    def title(self, text: str) -> None:
        """Shows another text before the bar, which only a terminal has."""
        self._bar.set_description(text)

    def beat(self) -> None:
        """Shows that the work goes on."""
        if self._bar.disable:
            self._lines.after_silence(f"{self._what}:{self._state}".rstrip(",:"), self._left)
        else:
            self._bar.refresh()


class _Lines:
    """Lines on stderr, with the time after a silence."""

    def __init__(self):
        self._start = self._last = time.monotonic()

    def write(self, text):
        self._last = time.monotonic()
        print(text, file=sys.stderr, flush=True)

    def after_silence(self, text, more=""):
        now = time.monotonic()
        if now - self._last >= SILENCE:
            self.write(f"{text}, {now - self._start:.0f} s{more}")


@contextmanager
def _watched(beat: Callable[[], object]) -> Iterator[None]:
    """Calls a function once a second from another thread."""
    over = threading.Event()

    def watch():
        while not over.wait(min(1, SILENCE)):
            beat()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
