# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Units on boards: catalogue, clocks, identity, bitstreams."""

import json
import re

import pytest

from hw import registry
from hw.accelerator.config import CONFIGS
from hw.boards import __main__, catalogue, flow, identity, top
from hw.tools.errors import ToolError


def test_every_board_has_a_platform_with_a_uart():
    for board in catalogue.BOARDS.values():
        platform = catalogue.platform(board)
        assert catalogue.family_of(type(platform)) in ("ecp5", "ice40")
        registry.parameters(board.unit, board.set)


@pytest.mark.parametrize("source, wanted, frequency", [
    (100e6, 25e6, 25e6), (48e6, 25e6, 24e6), (25e6, 10e6, 10e6), (12e6, 11e6, 8e6)])
def test_pll(source, wanted, frequency):
    made, divider, feedback, output = top.pll(source, wanted)
    assert made == pytest.approx(source * feedback / divider) and made <= wanted * 1.001
    assert made == pytest.approx(frequency)
    assert 400e6 <= made * output <= 800e6 and 3.125e6 <= source / divider <= 400e6


@pytest.mark.parametrize("family, device, options", [
    ("ecp5", "LFE5U-85F", "-nowidelut"), ("ice40", "iCE40UP5K", "-abc9 -dsp -device u"),
    ("ice40", "iCE40HX1K", "-abc9 -dsp -device hx"),
    ("ice40", "iCE40LP1K", "-abc9 -dsp -device lp")])
def test_options_of_yosys(family, device, options):
    assert flow.synthesis(family, device) == options


def test_clock():
    assert top.clock("ice40", 12e6, 12e6) == (12e6, None)
    assert top.clock("ice40", 12e6, 5.9e6) == (3e6, 2)
    assert top.clock("ecp5", 25e6, 25e6) == (25e6, None)
    with pytest.raises(ValueError, match="a PLL must be able to make 1 MHz from 25 MHz"):
        top.clock("ecp5", 25e6, 1e6)


@pytest.mark.parametrize("baud", [0, 3_000_000, 900_000])
def test_baud(baud):
    assert __main__._divisor(6e6, 1_000_000) == 6
    with pytest.raises(ValueError, match=rf"--baud must be a clock of 6 MHz .* not {baud}"):
        __main__._divisor(6e6, baud)


@pytest.mark.parametrize("unit, words", [
    ("quantization_engine", ["input=bfloat16", "metadata=False"]),
    ("accelerator", ["config=lite"]), ("accelerator", ["config=lite", "config.input=none"])])
def test_identity(unit, words):
    parameters = registry.parameters(unit, words)
    text = identity.encode(unit, identity.settings(parameters), buffer=512)
    found = identity.decode(text)
    assert (found["unit"], found["buffer"]) == (unit, 512)
    assert registry.parameters(found["unit"], found["set"]) == parameters
    assert text.count(identity.END) == 1 and text.endswith(identity.END) and len(text) < 1024


@pytest.mark.parametrize("text", [b"", b"\xff\n", b"[]", b'{"unit":"no","set":[],"buffer":1}'])
def test_identity_of_something_else(text):
    with pytest.raises(ToolError, match="the board is none that this version can drive"):
        identity.decode(text)


def test_settings_name_every_field():
    words = identity.settings({"config": CONFIGS["lite"]})
    assert "config.columns=4" in words and "config.input=float32" in words


@pytest.mark.parametrize("words, status, text", [
    ([], 2, "error: BOARD must be given, or --list"),
    (["no"], 2, "error: BOARD must be one of ulx3s, .*, not 'no'"),
    (["icebreaker", "--unit", "top1"], 2,
     "error: top1 cannot go behind a serial line: Ports of Top1 must all be streams"),
    (["icebreaker", "--set", "depth=4"], 2, "error: quantization_engine: "),
    (["icebreaker", "--clock", "0"], 2, "error: --clock must be above 0, not 0"),
    (["icebreaker", "--baud", "5000000"], 2, "error: --baud must be a clock of 12 MHz"),
    (["icebreaker", "-o", ""], 2, "error: -o must be a folder, not ''"),
    (["ArtyA7_35Platform"], 1, "error: ArtyA7_35Platform has a xc7a35ti: only boards with"),
    (["TinyFPGABXPlatform"], 1, "error: TinyFPGABXPlatform has no UART in amaranth-boards")])
def test_wrong_use(words, status, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        found = __main__.main(words)
    except SystemExit as error:
        found = error.code
    told = capsys.readouterr()
    assert found == status and told.out == ""
    line, = told.err.splitlines()
    assert re.match(text, line)


def test_listing():
    text = catalogue.listing()
    assert "versa       LFE5UM-45F    accelerator config=lite" in text
    assert "ICEStickPlatform" in text and "Arty" not in text and "TinyFPGA" not in text


LOG = """Info: Device utilisation:
Info: \t            ICESTORM_LC:  1500/  1280   117%
Info: \t           ICESTORM_RAM:     2/    16    12%
ERROR: Unable to place cell 'x', no Bels remaining of type 'ICESTORM_LC'
"""


def test_overflow():
    assert flow._overflow(LOG) == "1,500 ICESTORM_LC of 1,280"
    assert flow._overflow(LOG.replace(" 1500", "  500")) == ""


@pytest.mark.long
@pytest.mark.parametrize("board, suffix, clock", [
    ("icebreaker", ".bin", 6), ("versa", ".bit", 25)])
def test_bitstream(board, suffix, clock, tmp_path, capsys):
    """A small unit, with a divided clock and with a PLL."""
    words = [board, "--unit", "group_accumulator", "--clock", str(clock), "-o", str(tmp_path)]
    assert __main__.main(words) == 0
    report = json.loads((tmp_path / f"{board}_board.json").read_text())
    assert report["clock_mhz"] == clock and report["fmax_mhz"] >= clock
    assert 500 < report["used"]["luts"] < report["available"]["luts"]
    # The buffers of both streams.
    assert report["used"]["block_rams"] == 2
    assert (tmp_path / f"{board}{suffix}").stat().st_size > 10_000
    assert f"{tmp_path}/{board}{suffix}" in capsys.readouterr().out


@pytest.mark.long
def test_what_does_not_fit_is_one_line(tmp_path, capsys):
    words = ["ICEStickPlatform", "--unit", "group_accumulator", "-o", str(tmp_path)]
    assert __main__.main(words) == 1
    line, = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: group_accumulator on ICEStickPlatform does not fit: ")
    assert "ICESTORM_LC of 1,280" in line and not list(tmp_path.iterdir())
