# SPDX-License-Identifier: BSD-2-Clause
"""Writes the files and makes the folders of command lines."""

import os
from pathlib import Path

from .errors import ToolError


def write(path: Path, text: str) -> None:
    """Writes a file as a whole: if that fails, a file that was there before stays.

    Parameters
    ----------
    path : Path
    text : str

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path, purpose: str) -> None:
    """Makes a folder, and those above it, unless it exists.

    Parameters
    ----------
    folder : Path
    purpose : str
        What the error says that cannot be done; ``{}`` in it becomes the folder.

    Raises
    ------
    ToolError
        If the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"cannot {purpose.format(folder)}: {error.strerror}") from None
