# SPDX-License-Identifier: BSD-2-Clause
"""Runs commands that are killed, or whose disk is full, at a point that can be chosen.

A command runs in a fork of this process, which has its modules imported. An audit hook in the fork
counts what changes files below its folder: files that are opened for writing, renamed, removed,
locked, and folders that are made. At a given number it kills the process before that takes place,
or lets it and all later ones fail. A limit of the size of files ends a process in the middle of a
write. Python's own events are seen this way, not those of compilers and of Yosys.
"""

import errno
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

from golden import command

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link",
            "os.symlink", "fcntl.flock"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

TRACEBACK = 99
"""Exit status of a command that raised an exception which it does not catch."""


@dataclass(frozen=True)
class Fault:
    """What happens to a command, and when.

    ``kill`` ends it before its change number ``at``, ``tear`` in the write that makes a file larger
    than ``at`` bytes, ``time`` after ``at`` milliseconds. ``refuse`` lets each change from number
    ``at`` on fail with ``error``, if it is below the folder ``place``, and ``short`` each write
    beyond ``at`` bytes of a file. With ``group`` the processes that the command started end with
    it, else they go on.
    """

    kind: str = "none"
    at: int = 0
    group: bool = True
    place: str = ""
    error: int = errno.ENOSPC

    def __str__(self):
        more = f" in {self.place}: {errno.errorcode[self.error]}" if self.kind == "refuse" else ""
        return f"{self.kind} {self.at}{more}{'' if self.group else ', children go on'}"


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit status, or minus the signal; standard error; changes it made.

    ``followed`` are files of the outputs and of the system's temporary folder that it opened for
    writing although something may have been there before, such as a link that others planted.
    """

    status: int
    error: str
    changes: int
    seconds: float
    followed: tuple[str, ...]


class Running:
    """A command that runs in a fork.

    Parameters
    ----------
    words : list of str
        Module and arguments, or a function to call.
    folder : Path
        Working folder, which has the folders ``cache`` and ``tmp`` beside what is written.
    fault : Fault
    """

    def __init__(self, words, folder, fault=Fault()):
        self.fault = fault
        # Pipes, as limits of files' sizes do not hold for them.
        self._error, error = os.pipe()
        self._count, count = os.pipe()
        for descriptor in self._error, self._count:
            os.set_blocking(descriptor, False)
        self._start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            status = TRACEBACK
            try:
                status = _child(words, folder, fault, error, count)
            finally:
                os._exit(status)
        os.close(error)
        os.close(count)

    def end(self, limit=300):
        """Waits for the end and returns the outcome; kills it after a time of its own."""
        if self.fault.kind == "time":
            time.sleep(self.fault.at / 1000)
            os.kill(self.pid, signal.SIGKILL)
        stop = self._start + limit
        while not (done := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > stop:
                _kill_group(self.pid)
                raise TimeoutError(f"it runs for more than {limit} s")
            time.sleep(0.005)
        if self.fault.group:
            _kill_group(self.pid)
        status = os.waitstatus_to_exitcode(done[1])
        counted, error = (_rest(pipe) for pipe in (self._count, self._error))
        changes, *followed = counted.split("\0")
        return Outcome(status, error, int(changes or 0), time.monotonic() - self._start,
                       tuple(followed))


def _rest(pipe):
    """What a pipe holds, whoever may write to it yet."""
    text = b""
    with suppress(BlockingIOError):
        while part := os.read(pipe, 1 << 16):
            text += part
    os.close(pipe)
    return text.decode(errors="replace")


def run(words, folder, fault=Fault()):
    """Runs a command to its end; see `Running`."""
    return Running(words, folder, fault).end()


def _kill_group(pid):
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _child(words, folder, fault, error, count):
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor, number in (null, 0), (null, 1), (error, 2):
        os.dup2(descriptor, number)
    # Those of this process may be pytest's.
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)
    os.chdir(folder)
    os.environ |= {"M2XFP_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder / "tmp"),
                   "M2XFP_COMMAND": str(os.getpid())}
    tempfile.tempdir = None
    counter = _Counter(folder, fault)
    sys.addaudithook(counter)
    if fault.kind == "tear":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if fault.kind in ("tear", "short"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.at, resource.RLIM_INFINITY))
    try:
        status = call(words)
        # What a full device lets fail shows here at the latest.
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        status = TRACEBACK
    sys.stderr.flush()
    counter.active = False
    if fault.kind == "none":
        os.write(count, "\0".join([str(counter.count), *counter.followed]).encode())
    return status


def call(words):
    """Calls the command, or the function, in this process; returns its exit status."""
    if callable(words):
        return command.run(lambda arguments: words())([])
    module, *arguments = words
    package = module if module in ("golden", "sim", "hw") else None
    try:
        return import_module(f"{package}.__main__" if package else module).main(arguments) or 0
    except SystemExit as end:
        return end.code or 0


class _Counter:
    """The audit hook."""

    def __init__(self, folder, fault):
        self._folder = os.fspath(folder)
        self._fault = fault
        self._lock = threading.RLock()
        self.count = 0
        self.followed = []
        self.active = True

    def __call__(self, event, arguments):
        if not self.active or not (event in _CHANGES or event == "open"):
            return
        if event == "open":
            path, mode, flags = arguments
            if not flags & _WRITES or isinstance(path, int):
                return
        else:
            path = arguments[0]
        # A lock has a file's number, and what is removed below an open folder a bare name.
        if isinstance(path, (str, bytes, os.PathLike)):
            path = os.path.join(self._folder, os.fsdecode(path))
            if not path.startswith(self._folder) or path.startswith(self._folder + "/tmp/yowasp"):
                return
            # A file without a name opens its folder.
            if event == "open" and not flags & os.O_EXCL and not os.path.isdir(path) and (
                    not _in_own_folder(os.path.relpath(path, self._folder))):
                self.followed.append(os.path.relpath(path, self._folder))
        else:
            path = self._folder
        with self._lock:
            self.count += 1
            fault = self._fault
            if fault.kind == "kill" and self.count == fault.at:
                os.kill(os.getpid(), signal.SIGKILL)
            if (fault.kind == "refuse" and self.count >= fault.at
                    and event not in ("fcntl.flock", "os.remove", "os.rmdir")
                    and path.startswith(f"{self._folder}/{fault.place}")):
                raise OSError(fault.error, os.strerror(fault.error), path)


def _in_own_folder(path):
    """Whether a file lies in a folder that the command made under a name nobody could guess."""
    folders = path.split("/")[:-1]
    if folders[:1] == ["tmp"]:
        return len(folders) > 1
    return folders[:1] != ["out"] or any(
        name.startswith(".") and name.endswith(".tmp") for name in folders)
