# SPDX-License-Identifier: BSD-2-Clause
"""What is shown where stderr is no terminal, and where it is one."""

import os
import re
import select
import sys
import time

import pytest

from hw.tools import progress


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.01)


def lines_after(pattern, capsys):
    """What is printed until there is a line of this pattern."""
    printed = ""
    for _ in range(1000):
        printed += capsys.readouterr().err
        if re.search(pattern, printed, re.M):
            return printed.splitlines()
        time.sleep(0.01)
    raise AssertionError(printed)


def test_steps(impatient, capsys):
    with progress.progress("synth", "unit", 2) as step:
        lines_after(r"^synth: 0/2, 0 s$", capsys)
        step("top1")
        assert "synth: top1 (1/2)" in lines_after(r"^synth: 1/2, \d s$", capsys)


def test_counts(impatient, capsys):
    with progress.counting("gemm", "output") as count:
        lines_after(r"^gemm, 0 s$", capsys)
        count(3, 8)
        lines_after(r"^gemm: 3 of 8 outputs, \d s$", capsys)


def test_busy(impatient, capsys):
    with progress.busy("generate top1"):
        lines_after(r"^generate top1, 0 s$", capsys)
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


def test_short_work_adds_no_line(capsys):
    with progress.busy("a"), progress.counting("b", "output") as count, \
            progress.progress("c", "unit", 1) as step:
        count(1, 1)
        step("top1")
    assert capsys.readouterr() == ("", "c: top1 (1/1)\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_time_goes_on_on_a_terminal(impatient, monkeypatch):
    """The bar is drawn again although nothing is counted."""
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    # tqdm draws nothing on one without lines.
    termios.tcsetwinsize(theirs, (24, 80))
    with open(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with progress.busy("generate top1"):
            drawn = b""
            while drawn.count(b"generate top1: 00:0") < 3 and len(drawn) < 1000:
                # Without a time that goes on there is nothing more to read.
                assert select.select([ours], [], [], 10)[0], drawn
                drawn += os.read(ours, 100)
        assert drawn.count(b"generate top1: 00:0") >= 3, drawn
    os.close(ours)
