# SPDX-License-Identifier: BSD-2-Clause
"""Keeps results that took long in the user's cache, under a digest of all they depend on."""

import functools
import hashlib
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from golden.cache import check_private, checksum, flush, folder, make_private
from golden.interrupts import temporary_folder

from .errors import ToolError
from .files import make_folder

__all__ = ["digest", "folder", "forget", "intact", "prepare", "publish", "read", "store"]


def digest(*texts: str) -> str:
    """Returns a name, of 32 hexadecimal digits, for a result that depends on these texts."""
    total = hashlib.sha256()
    for text in texts:
        total.update(hashlib.sha256(text.encode()).digest())
    return total.hexdigest()[:32]


def prepare(purpose: str) -> None:
    """Makes the cache folder, unless it exists, and tries to write there.

    Parameters
    ----------
    purpose : str
        What the error says that cannot be done, such as "keep results".

    Raises
    ------
    ToolError
        If that fails, or if others may write there.
    """
    purpose = f"{purpose} in {{}}; M2XFP_CACHE_DIR sets another folder"
    try:
        make_private(folder())
    except OSError as error:
        raise ToolError(f"cannot {purpose.format(folder())}: {error.strerror}") from None
    make_folder(folder(), purpose)


def publish(path: Path, build: Callable[[Path], object]) -> None:
    """Makes a file with ``build(folder)`` and moves it into the cache in one step.

    A checksum beside the file reveals damage. A file that is there and intact stays. Other
    processes that publish the same file wait until it is there.

    Parameters
    ----------
    path : Path
        The file, alone in a folder of the cache.
    build : callable
        Makes a file of that name in the folder it is called with.

    Raises
    ------
    OSError
        If the cache cannot be written, or others may write there.
    """
    make_private(path.parent.parent)
    locks = path.parent.parent / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / path.parent.name):
        if not intact(path):
            _make(path, build)


def _make(path, build):
    with temporary_folder(path.parent.parent) as scratch:
        work, ready = Path(scratch, "work"), Path(scratch, "ready")
        work.mkdir()
        ready.mkdir()
        build(work)
        shutil.move(work / path.name, ready / path.name)
        (ready / "sha256").write_text(checksum(ready / path.name))
        for file in (ready / path.name, ready / "sha256"):
            flush(file)
        if path.parent.exists():
            path.parent.rename(Path(scratch, "damaged"))
        ready.rename(path.parent)


def intact(path: Path) -> bool:
    """Says whether the cache has a file and the file is as it was published.

    Nothing is taken from a folder into which others may write.
    """
    try:
        check_private(path.parent.parent)
        return path.with_name("sha256").read_text() == checksum(path)
    except (OSError, ValueError):
        return False


def store(path: Path, text: str) -> None:
    """Publishes a text, as `publish` does a file; where the cache cannot be written, warns once."""
    try:
        publish(path, lambda folder: (folder / path.name).write_text(text, encoding="utf-8"))
    except OSError as error:
        _warn(f"warning: results are not kept: {path.parent.parent} cannot be written: "
              f"{error.strerror or error}")


@functools.cache
def _warn(text):
    with tqdm.external_write_mode(file=sys.stderr):
        print(text, file=sys.stderr, flush=True)


def read(path: Path) -> str | None:
    """Reads a published text; returns None if there is none or it is damaged."""
    if not intact(path):
        return None
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        # Another process has just removed it, to measure again.
        return None


def forget(path: Path, forgotten: set[Path] | None) -> None:
    """Removes a file from the cache, once in a command.

    Parameters
    ----------
    path : Path
    forgotten : set of Path or None
        The files that the command has removed. A file in it stays; another is removed and added.
        None removes nothing.
    """
    with _forgetting:
        if forgotten is not None and path not in forgotten:
            forgotten.add(path)
            shutil.rmtree(path.parent, ignore_errors=True)


_forgetting = threading.Lock()
