"""Files and folders that command lines write."""

import os

from .errors import ToolError


def write(path, text):
    """Writes a file at once or not at all; OSError if that fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder, purpose):
    """Makes a folder where there is none; ToolError, with what it is for, if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"cannot {purpose.format(folder)}: {error.strerror}") from None
