# SPDX-License-Identifier: BSD-2-Clause
"""Writes the files and makes the folders of command lines."""

import tempfile
from pathlib import Path

from golden.output import replacing

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
    ValueError
        If there is something at ``path`` that is not a regular file.
    """
    with replacing(path, sync=False) as (file,):
        file.write(text.encode())


def make_folder(folder: Path, purpose: str) -> None:
    """Makes a folder, and those above it, unless it exists, and tries to write there.

    Parameters
    ----------
    folder : Path
    purpose : str
        What the error says that cannot be done; ``{}`` in it becomes the folder.

    Raises
    ------
    ToolError
        If the folder cannot be made, or no file in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ToolError(f"cannot {purpose.format(folder)}: {error.strerror}") from None
