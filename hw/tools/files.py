# SPDX-License-Identifier: BSD-2-Clause
"""Files and folders that command lines write."""

import os
from pathlib import Path

from .errors import ToolError


def write(path: Path, text: str) -> None:
    """Writes a whole file or, if that fails, nothing; raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path, purpose: str) -> None:
    """Makes a folder unless it exists; raises ToolError, whose text states the purpose."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"cannot {purpose.format(folder)}: {error.strerror}") from None
