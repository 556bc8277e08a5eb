# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The host of a board: jobs, lines, and the command."""

import dataclasses

import numpy as np
import pytest
from amaranth.lib import data

from hw.accelerator.config import CONFIGS
from hw.bus.uart_link import UartLink
from sim import uart
from sim.engines import build
from sim.line import LineError, Noise, SerialLine, SimulatedLine
from tests.support.serial_line import Pair


def test_bytes_of_payloads():
    shape = data.StructLayout({"a": 3, "b": 17})
    rows = {"a": np.array([5, 2]), "b": np.array([0x1ABCD, 1])}
    packed = uart.to_bytes(shape, rows, "i")
    assert packed == (0x1ABCD << 3 | 5).to_bytes(3, "little") + (1 << 3 | 2).to_bytes(3, "little")
    back = uart.from_bytes(shape, packed + b"\x01")
    assert {name: plane.tolist() for name, plane in back.items()} == {
        "a": [5, 2], "b": [0x1ABCD, 1]}
    none = {name: plane[:0] for name, plane in rows.items()}
    assert uart.to_bytes(shape, none, "i") == b"" and len(uart.from_bytes(shape, b"")["a"]) == 0


def test_noise():
    noise = Noise(0.1, 1)
    line = bytes(range(256)) * 8
    got = noise(line)
    assert 100 < noise.count < 400 and got != line
    assert Noise(0, 1)(line) == line


@pytest.mark.parametrize("words, text", [
    ([], "PORT or --simulate must be given"),
    (["x", "--simulate"], "PORT or --simulate must be given, not both"),
    (["x", "--unit", "top1"], "--unit needs --simulate"),
    (["--simulate", "--unit", "top1"], "top1 cannot go behind a serial line: Ports of Top1"),
    (["--simulate", "--noise", "1"], "--noise must be at least 0 and below 1, not 1"),
    (["--simulate", "--baud", "0"], "--baud must be at least 1, not 0"),
    (["--simulate", "--count", "0"], "--count must be at least 1, not 0"),
    (["--simulate", "--tokens", "40"], "--tokens must be within 1 and 32, not 40"),
    (["--simulate", "--unit", "accelerator", "--config", "no"],
     "accelerator's config must be one of")])
def test_wrong_use(words, text, capsys):
    assert uart.main(words) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {text}")


def test_ports():
    pytest.importorskip("serial")
    with pytest.raises(LineError, match="cannot open PORT /no/such: "):
        SerialLine("/no/such", 115200)
    line = SerialLine("loop://", 115200)
    assert line.exchange(b"abc") == b"abc" and line.exchange(b"") == b""
    line.close()


def test_missing_pyserial(monkeypatch):
    monkeypatch.setattr("sim.line.find_spec", lambda name: None)
    with pytest.raises(LineError, match=r"serial ports need pyserial: pip install 'm2xfp-rtl\[bo"):
        SerialLine("x", 115200)


class Deaf:
    """A line that nobody answers."""

    late = 0.0
    waiting = 0
    now = 0.0

    def exchange(self, data):
        self.now += 0.1
        return b""


def test_no_answer():
    with pytest.raises(uart.NoAnswer, match="no answer from the board for .* right port"):
        uart.Session(Deaf(), baud=1_000_000)


@pytest.mark.long
def test_something_else_answers():
    link = UartLink(Pair(), identity=b"hello\n", divisor=4, buffer=32)
    line = SimulatedLine(link, baud=1_000_000, engine="amaranth")
    with pytest.raises(Exception, match="the board is none that this version can drive"):
        uart.Session(line, baud=1_000_000)


compiled = pytest.mark.skipif(not build.compiler(), reason="needs a C++ compiler")


@pytest.mark.long
@compiled
@pytest.mark.parametrize("words", [
    ["--tokens", "2", "--noise", "0.002", "--seed", "4"],
    ["--unit", "accelerator", "--config", "lite", "--tokens", "2", "--rows", "3"]])
def test_real_layer(words, capsys):
    assert uart.main(["--simulate", *words]) == 0
    told = capsys.readouterr().out
    assert "  o: " in told and ", 0 mismatches against golden" in told
    assert ("--noise" in words) == ("line: 0 bytes sent again" not in told)


@pytest.mark.parametrize("encoding, group", [("sg-special", 32), ("sg-special64", 64)])
def test_operands_are_in_the_machine_s_encoding(encoding, group):
    config = dataclasses.replace(CONFIGS["lite"], encoding=encoding, input=None)
    job = uart.job_of("accelerator", {"config": config}, tokens=2, rows=3, count=0, seed=0)
    for name, rows in (("i_weight", 3), ("i_activation", 2)):
        planes = job.inputs[name]
        assert planes["elements"].shape[-1] == group
        assert planes["scale"].size == rows * 576 // group


@pytest.mark.long
@compiled
def test_mismatches_are_told(capsys, monkeypatch):
    def wrong(*arguments, **options):
        job = job_of(*arguments, **options)
        job.expected["o"]["scale"][1] ^= 1
        return job

    job_of = uart.job_of
    monkeypatch.setattr(uart, "job_of", wrong)
    assert uart.main(["--simulate", "--tokens", "1"]) == 1
    assert "  o: 18 transfers, 1 mismatches against golden" in capsys.readouterr().out
