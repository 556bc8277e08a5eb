# SPDX-License-Identifier: BSD-2-Clause
"""Results that took long, in the user's cache folder under a digest of all they depend on."""

import hashlib
import shutil
import tempfile
import threading
from pathlib import Path

from filelock import FileLock

from golden.codec.kernel import folder

__all__ = ["digest", "folder", "forget", "intact", "publish", "read", "store"]


def digest(*texts):
    """Name for what depends on these texts."""
    total = hashlib.sha256()
    for text in texts:
        total.update(hashlib.sha256(text.encode()).digest())
    return total.hexdigest()[:32]


def publish(path, build):
    """Lets ``build(folder)`` make a file and moves it into the cache at once.

    Its digest lies beside it, so that a damaged file is noticed. Whoever wants the same file
    meanwhile waits for it.

    Parameters
    ----------
    path : Path
        The file, alone in a folder of the cache.
    build : callable
        Makes a file of that name in a folder.
    """
    locks = path.parent.parent / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / path.parent.name):
        if not intact(path):
            _make(path, build)


def _make(path, build):
    with tempfile.TemporaryDirectory(dir=path.parent.parent, prefix="new.") as scratch:
        work, ready = Path(scratch, "work"), Path(scratch, "ready")
        work.mkdir()
        ready.mkdir()
        build(work)
        shutil.move(work / path.name, ready / path.name)
        (ready / "sha256").write_text(_checksum(ready / path.name))
        if path.parent.exists():
            path.parent.rename(Path(scratch, "damaged"))
        ready.rename(path.parent)


def intact(path):
    """Whether the cache has a file as it was published."""
    try:
        return path.with_name("sha256").read_text() == _checksum(path)
    except OSError:
        return False


def _checksum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def store(path, text):
    """Publishes a text."""
    publish(path, lambda folder: (folder / path.name).write_text(text, encoding="utf-8"))


def read(path):
    """A published text, or None where there is none that is intact."""
    return path.read_text(encoding="utf-8") if intact(path) else None


def forget(path, forgotten):
    """Removes a file from the cache unless it is among those that a command has removed already.

    Parameters
    ----------
    path : Path
    forgotten : set of Path or None
        Receives the path; None removes nothing.
    """
    with _forgetting:
        if forgotten is not None and path not in forgotten:
            forgotten.add(path)
            shutil.rmtree(path.parent, ignore_errors=True)


_forgetting = threading.Lock()
