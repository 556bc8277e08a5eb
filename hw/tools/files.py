# SPDX-License-Identifier: BSD-2-Clause
"""Writes the files and makes the folders of command lines."""

import tempfile
from collections.abc import Mapping
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


def write_set(contents: Mapping[Path, str | bytes]) -> None:
    """Writes files of one folder that belong together, each as a whole.

    Parameters
    ----------
    contents : dict of Path to str or bytes
        The last one describes the others; it is missing whenever they may be of several runs.

    Raises
    ------
    OSError
        If a file cannot be written. Unless that happens as they take their places, all that was
        there before stays.
    ValueError
        If there is something at a path that is not a regular file.
    """
    with replacing(*contents, sync=False) as files:
        for file, content in zip(files, contents.values(), strict=True):
            file.write(content if isinstance(content, bytes) else content.encode())


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
