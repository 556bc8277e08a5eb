# SPDX-License-Identifier: BSD-2-Clause
"""Results are not taken from a cache folder into which others may write."""

import os

import pytest

from hw import synth
from hw.tools import cache, yosys
from hw.tools.errors import ToolError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and owners of POSIX")


def test_folder_of_many(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "key" / "text"
    cache.store(path, "mine")
    assert cache.read(path) == "mine"
    (tmp_path / "cache").chmod(0o777)
    assert cache.read(path) is None
    with pytest.raises(PermissionError, match="mode 0777"):
        cache.publish(path, lambda folder: (folder / "text").write_text("other"))
    assert path.read_text() == "mine"
    for words in (["top1"], ["top1", "--fpga", "ecp5"]):
        assert synth.main(words) == 1
        assert capsys.readouterr().err == (
            f"error: cannot keep figures in {tmp_path / 'cache'}; M2XFP_CACHE_DIR sets another "
            "folder: others may write there (mode 0777, allowed is 0700), and their files would be "
            "run\n")


def test_yosys_of_many(tmp_path, monkeypatch):
    """YoWASP keeps machine code there, and loads it unchecked."""
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path / "yowasp"))
    yosys._check_machine_code.__wrapped__()
    (tmp_path / "yowasp").mkdir()
    (tmp_path / "yowasp").chmod(0o775)
    with pytest.raises(ToolError, match="^cannot run Yosys from .*yowasp: others may write there "
                                        r"\(mode 0775, .*YOWASP_CACHE_DIR sets another folder$"):
        yosys._check_machine_code.__wrapped__()
