# SPDX-License-Identifier: BSD-2-Clause
"""The user's cache folder, which holds compiled code that is loaded again and results.

Whoever can write there decides what a later process executes. So the folder must be the user's own,
and each file is read once more and compared with its digest before it is used.
"""

import errno
import hashlib
import os
import stat
import sys
from pathlib import Path

from .interrupts import PLACES


def folder() -> Path:
    """The cache folder: ``$M2XFP_CACHE_DIR``, or m2xfp-rtl in the user's cache folder."""
    if chosen := os.environ.get("M2XFP_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "m2xfp-rtl"


PLACES.append(folder)


def make() -> None:
    """Makes the cache folder for its owner alone, whatever the umask is, unless it is there.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)


def make_private(place: Path) -> None:
    """Makes a folder that only its owner may enter, and those above it; see `check_private`.

    Parameters
    ----------
    place : Path

    Raises
    ------
    OSError
        If the folder cannot be made, or is there and is not private.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(place)


def check_private(place: Path) -> None:
    """Raises PermissionError if a folder belongs to another user, or if others may write there.

    Windows keeps the user's folders from others; there nothing is checked.

    Parameters
    ----------
    place : Path
        A folder that exists.
    """
    if os.name != "posix":
        return
    status = os.stat(place)
    if status.st_uid != os.geteuid():
        reason = f"it belongs to user {status.st_uid}, whose files would be run"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = (f"others may write there (mode {stat.S_IMODE(status.st_mode):04o}, "
                  "allowed is 0700), and their files would be run")
    else:
        return
    raise PermissionError(errno.EPERM, reason, str(place))


def checksum(path: Path) -> str:
    """SHA-256 of a file of one's own, as hexadecimal digits.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OSError
        If the file cannot be read, is a link, or belongs to another user.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)
                         | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        if os.name == "posix" and os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Waits until a file is on the disk, so that no crash leaves its name with half of it."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
