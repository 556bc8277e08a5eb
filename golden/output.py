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
from contextlib import contextmanager, suppress
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
            for file, path in zip(files, paths, strict=True):
                # Windows cannot rename an open file; elsewhere it stays locked until it is renamed.
                if fcntl is None:
                    file.close()
                os.replace(file.name, path)
                file.close()
        except BaseException:
            for file in files:
                with suppress(OSError):
                    os.unlink(file.name)
                with suppress(OSError):
                    file.close()
                with suppress(OSError):
                    os.unlink(file.name)
            raise


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
        folder = temporary(path)
        folder.mkdir()
        lock = None
        try:
            if fcntl is not None:
                lock = os.open(folder, os.O_RDONLY)
                with suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            os.rename(folder, path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            if lock is not None:
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
