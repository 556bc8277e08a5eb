# SPDX-License-Identifier: BSD-2-Clause
"""Where commands may write, and files that appear as a whole or not at all.

Every command of `golden`, `hw`, `sim` and the benchmarks that writes a file asks `check_output`
beforehand and writes through `replacing`.
"""

import errno
import os
import re
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed.
    fcntl = None  # type: ignore[assignment]

_KINDS = {stat.S_IFDIR: "folder", stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "FIFO",
          stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFSOCK: "socket"}


def check_output(path: str | os.PathLike[str], name: str = "OUT") -> None:
    """Raises ValueError unless a file can be written, or replaced, in a folder that exists.

    A device, a FIFO, a folder or a symbolic link is not replaced.

    Parameters
    ----------
    path : path-like
    name : str
        Name of the argument, for the error.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{name} must lie in a folder that exists, not {path.parent}")
    check_regular(path, name)


def check_regular(path: str | os.PathLike[str], name: str = "OUT") -> None:
    """Raises ValueError if there is something at a path that is not a regular file."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        # Writing there says what is wrong.
        return
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "special file")
        raise ValueError(f"{name} must be a regular file, not the {kind} {path}")


@contextmanager
def replacing(*paths: str | os.PathLike[str], sync: bool = True) -> Iterator[list[BinaryIO]]:
    """Opens new files that take the place of others at the end, or leave no trace after an error.

    Each is written under another name in the same folder, flushed to the disk and renamed.
    Several belong together, in one folder, and the last one vouches for the others: it is removed
    before the first is replaced and takes its place when all are there. So a process that is killed
    leaves none that speaks of others' contents, and two processes do not mix their files.
    SIGTERM and SIGHUP count as errors: they raise KeyboardInterrupt, unless the process handles
    them otherwise. What a process left that was killed is removed when the same path is written
    again.

    Parameters
    ----------
    *paths : path-like
    sync : bool
        Whether the files are on the disk before they take their places.

    Yields
    ------
    list of binary files
        Open for writing, in the order of ``paths``.

    Raises
    ------
    ValueError
        If there is something at a path that is not a regular file.
    """
    files: list[BinaryIO] = []
    with stopping():
        try:
            for path in paths:
                check_regular(path, "a file to write")
                remove_left(Path(path))
                files.append(_create(Path(path)))
            yield files
            for file in files:
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            for path in paths:
                # Once more, as other files are replaced before it.
                check_regular(path, "a file to write")
            _rename(files, paths)
        except BaseException:
            for file in files:
                with suppress(OSError):
                    os.unlink(file.name)
                with suppress(OSError):
                    file.close()
                with suppress(OSError):
                    os.unlink(file.name)
            raise


def _rename(files, paths):
    """Gives new files their names; the file that vouches for the others is missing meanwhile."""
    with (_absent(Path(paths[-1]), unless=paths[0]) if len(paths) > 1 else nullcontext()):
        for file, path in zip(files, paths, strict=True):
            # Windows cannot rename an open file; elsewhere it stays locked until it is renamed.
            if fcntl is None:
                file.close()
            os.replace(file.name, path)
            file.close()


@contextmanager
def _absent(path, *, unless):
    """Puts a file aside, for good unless an error leaves the file ``unless`` as it was."""
    with locked(path.parent):
        aside = temporary(path)
        before = _identity(unless)
        try:
            with suppress(FileNotFoundError):
                os.rename(path, aside)
            yield
        except BaseException:
            if _identity(unless) == before:
                with suppress(OSError):
                    os.rename(aside, path)
            raise
        finally:
            with suppress(OSError):
                os.unlink(aside)


def _identity(path):
    """Which file is at a path; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Makes others that lock the same folder wait until the end, or until this process dies.

    Nothing is written for it. Where a file system or Windows has no such locks, nobody waits.

    Parameters
    ----------
    folder : path-like
        One that this process has not locked.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a Matplotlib figure, in the format of the file's ending, as `replacing` does."""
    with replacing(path) as (file,):
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=150)


def temporary(path: Path) -> Path:
    """A name beside a path, which nobody can guess, for the file that takes its place."""
    # `tempfile` would make files that only their owner may read.
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def _create(path):
    """Opens a new file beside a path, locked as long as it is open."""
    while True:
        file = open(temporary(path), "xb")
        if fcntl is None:
            return file
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # Another process may have removed it before it was locked.
        with suppress(OSError):
            if os.path.samestat(os.stat(file.name), os.fstat(file.fileno())):
                return file
        file.close()


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes a folder that is at ``path`` at the end, or leaves no trace after an error.

    It is filled under another name beside ``path``. Signals, and what killed processes left, are
    treated as in `replacing`.

    Parameters
    ----------
    path : path-like
        Nothing may be there.

    Yields
    ------
    Path
        The folder to fill.

    Raises
    ------
    FileExistsError
        If there is something at ``path``.
    """
    path = Path(path)
    with stopping():
        remove_left(path)
        folder, lock = _make_folder(path)
        try:
            yield folder
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            os.rename(folder, path)
            # Of one that was killed meanwhile; nobody else writes here again.
            remove_left(path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)


def _make_folder(path):
    """Makes a folder beside a path; returns it with a descriptor that holds its lock, or None."""
    while True:
        folder = temporary(path)
        folder.mkdir()
        if fcntl is None:
            return folder, None
        # Another process may remove it before it is locked.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(OSError):
                if os.path.samestat(os.stat(folder), os.fstat(lock)):
                    return folder, lock
            os.close(lock)


def remove_left(path: Path) -> None:
    """Removes the temporary files and folders that killed processes left for a path."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{12}\.tmp")
    with suppress(OSError):
        for name in os.listdir(path.parent):
            if pattern.fullmatch(name):
                _remove_unless_in_use(path.parent / name)


def _remove_unless_in_use(path):
    with suppress(OSError):
        mode = os.lstat(path).st_mode
        remove = shutil.rmtree if stat.S_ISDIR(mode) else os.unlink
        if fcntl is None:
            remove(path)
        elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            finally:
                os.close(lock)


@contextmanager
def stopping() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP raise KeyboardInterrupt where they would end the process at once.

    A process that ignores or handles them is left so. Only the main thread can change that.
    """
    def stop(number, frame):
        raise KeyboardInterrupt

    changed = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, stop)
                changed.append(number)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
