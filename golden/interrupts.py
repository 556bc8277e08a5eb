# SPDX-License-Identifier: BSD-2-Clause
"""Ends a command within a second of Ctrl-C, SIGTERM or SIGHUP, with all that it started.

Python raises KeyboardInterrupt in the main thread between two of its steps. This does not suffice
for a command: a step may take minutes in compiled code, threads are waited for as Python exits, and
processes that were started go on. Here a thread of its own learns of the signal at once. It stops
the processes below this one while the main thread unwinds and tells the user; if that takes too
long, it ends the process itself.
"""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

GRACE = 0.6
"""Seconds that the main thread has to unwind."""

PLACES: list[Callable[[], str | Path]] = [tempfile.gettempdir]
"""Functions that return the parents which `temporary_folder` is given."""

_COMMAND = "M2XFP_COMMAND"
_NAME = re.compile(r"m2xfp\.([1-9][0-9]{0,9})\.")
_TEXTS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP; what cleans up after Ctrl-C cleans up after these, too."""


class _State:
    """Of the whole process."""

    guarded = False
    signal = 0
    told = threading.Lock()
    ending = threading.Lock()


def guard() -> bool:
    """Makes signals end this process as a whole, if it is a command.

    Signals that are ignored, as by nohup, stay ignored.

    Returns
    -------
    bool
        Whether it does: not on Windows, in another thread than the main one, or in a process that
        a command started.
    """
    if (os.name != "posix" or threading.current_thread() is not threading.main_thread()
            or multiprocessing.parent_process() is not None):
        return False
    if not _State.guarded:
        _State.guarded = True
        os.environ[_COMMAND] = str(os.getpid())
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        numbers = [getattr(signal, name) for name in _TEXTS]
        numbers = [number for number in numbers if signal.getsignal(number) in
                   (signal.SIG_DFL, signal.default_int_handler)]
        threading.Thread(target=_watch, args=(reading, numbers), daemon=True).start()
        for number in numbers:
            signal.signal(number, _raise)
        sys.unraisablehook = _quiet(sys.unraisablehook)
        threading.excepthook = _quiet(threading.excepthook)
        sys.excepthook = _last(sys.excepthook)
    return True


def _guard_imports():
    """Does what `guard` does if the process runs a command of this project, as ``python -m``."""
    # While Python finds the module, its first argument is "-m".
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if sys.argv[:1] == ["-m"] or spec and spec.name.partition(".")[0] in (
            "benchmarks", "golden", "hw", "sim"):
        guard()


def seen() -> int:
    """The exit status after the signal that ends this process, or 0 if there was none."""
    return _State.signal and 128 + _State.signal


def text() -> str:
    """What the user is told of the signal."""
    return _TEXTS[signal.Signals(_State.signal or signal.SIGINT).name]


def first_to_tell() -> bool:
    """Says to one caller only that it tells the user of the signal."""
    return _State.told.acquire(blocking=False)


def end(status: int) -> NoReturn:
    """Ends this process at once, with all that it started, and removes their temporary folders."""
    with _State.ending:
        # A compiler removes its own temporary files if it has the time. What it started has
        # another parent when the compiler has ended.
        stopped = _stop(signal.SIGTERM)
        _wait_for_end(stopped, 0.15)
        # What is killed may still finish a file: only then its folder can go.
        _wait_for_end(_stop(signal.SIGKILL, stopped), 1)
        _remove_folders()
        for file in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                file.flush()
        os._exit(status)


@contextmanager
def temporary_folder(parent: str | Path | None = None) -> Iterator[Path]:
    """Makes a folder that is removed with all that is in it, also if a signal ends the command.

    Folders that killed processes left there are removed beforehand, once in a process.

    Parameters
    ----------
    parent : path, optional
        One that a function of `PLACES` returns; by default the system's folder for temporary
        files.

    Yields
    ------
    Path
    """
    _remove_left(Path(parent or tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(dir=parent, prefix=_prefix(),
                                     ignore_cleanup_errors=True) as folder, _held(folder):
        yield Path(folder)


@contextmanager
def _held(folder):
    """Locks a temporary folder as long as this process lives."""
    lock = None
    if fcntl is not None:
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


@cache
def _remove_left(parent):
    """Removes temporary folders of this user whose command is gone and that nobody has locked."""
    if fcntl is None:
        return
    with suppress(OSError):
        for path in [*parent.iterdir()]:
            command = _NAME.match(path.name)
            # The one without the other is not enough: another machine may share the folder, and a
            # folder is not locked before it is there.
            if command and not _runs(int(command[1])):
                with suppress(OSError):
                    _remove_unless_locked(path)


def _remove_unless_locked(path):
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)


def _runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def shielded() -> Iterator[None]:
    """Processes that are started within ignore Ctrl-C; `end` stops them.

    A terminal sends it to all processes, and each one in Python would print where it was.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise(number, frame):
    _State.signal = number
    # The process is about to end: once is enough.
    for name in _TEXTS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _watch(reading, numbers):
    """Waits for a signal and sees to it that the process ends."""
    while (number := os.read(reading, 1)[0]) not in numbers:
        pass
    limit = time.monotonic() + GRACE
    # Nobody else learns of it while the main thread is in compiled code.
    _State.signal = number
    while time.monotonic() < limit:
        _stop(signal.SIGTERM)
        time.sleep(0.05)
    _tell()
    end(seen())


def _stop(number, others=frozenset()):
    """Sends a signal to all processes below this one, and to others; returns their numbers."""
    below = _below(os.getpid()) | others
    for process in below:
        with suppress(OSError):
            os.kill(process, number)
    return below


def _wait_for_end(processes, seconds):
    """Waits until none of some processes runs, but no longer than so many seconds."""
    limit = time.monotonic() + seconds
    while processes & {process for process, _ in _processes()} and time.monotonic() < limit:
        time.sleep(0.01)


def _below(process):
    """Numbers of the processes that a process started, and that these started, and so on."""
    children: dict[int, list[int]] = {}
    for child, parent in _processes():
        children.setdefault(parent, []).append(child)
    found, waiting = set(), [process]
    while waiting:
        new = set(children.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def _processes():
    """Numbers of all processes that run, each with its parent's."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True,
                                check=False).stdout
        rows = [line.split() for line in listed.splitlines()]
        return [(int(child), int(parent)) for child, parent, state in rows if state[0] != "Z"]
    found = []
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            # The name, in parentheses, may hold anything.
            with suppress(OSError):
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if state != "Z":
                    found.append((int(entry.name), int(parent)))
    return found


def _remove_folders():
    """Removes the folders that `temporary_folder` made in this process and those below it."""
    for parent in {Path(place()) for place in PLACES}:
        with suppress(OSError):
            for path in [*parent.iterdir()]:
                if path.name.startswith(_prefix()):
                    shutil.rmtree(path, ignore_errors=True)


def _prefix():
    """Names the temporary folders of a command; its processes have its environment."""
    return f"m2xfp.{os.environ.get(_COMMAND, os.getpid())}."


def _quiet(hook):
    """A hook for exceptions that shows none of those that a signal leads to."""
    def shown(*arguments):
        if not seen():
            hook(*arguments)

    return shown


def _last(hook):
    """A hook for exceptions that nobody caught, such as one during an import."""
    def shown(*arguments):
        if not seen():
            hook(*arguments)
        else:
            _tell()
            end(seen())

    return shown


def _tell():
    if first_to_tell():
        # Not to sys.stderr, whose lock another thread may hold.
        with suppress(OSError):
            os.write(2, f"{text()}\n".encode())


# A command imports modules for a second before it starts.
_guard_imports()
