# SPDX-License-Identifier: BSD-2-Clause
"""Files that commands write."""

import os
from pathlib import Path

import pytest

from hw.tools.errors import ToolError
from hw.tools.files import make_folder, write


def test_what_is_no_file_is_not_replaced(tmp_path):
    """As root a command could replace a device."""
    link = tmp_path / "link"
    link.symlink_to("file")
    for path, kind in ((link, "symbolic link"), (tmp_path, "folder")):
        with pytest.raises(ValueError, match=f"must be a regular file, not the {kind} "):
            write(path, "x")
    assert link.is_symlink() and [*tmp_path.iterdir()] == [link]


def test_folder_is_tried(tmp_path):
    make_folder(tmp_path / "a" / "b", "write")
    assert [*(tmp_path / "a" / "b").iterdir()] == []


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder that takes no files")
def test_folder_that_takes_no_files():
    with pytest.raises(ToolError, match="^cannot write x: "):
        make_folder(Path("/proc"), "write x")
