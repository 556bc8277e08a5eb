# SPDX-License-Identifier: BSD-2-Clause
"""Builds a bitstream with a unit behind the serial line of a board: ``--help``."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from golden import command

from .. import registry
from ..tools import yosys
from ..tools.errors import ToolError
from ..tools.files import make_folder, write_set
from . import catalogue, flow, identity, top

BUFFERS = {"ecp5": 2048, "ice40": 512}
"""Bytes of the buffer of each stream: what a block RAM holds."""

CLOCKS = {"ecp5": 25.0, "ice40": 12.0}
"""Most megahertz of a unit's clock unless ``--clock`` says otherwise."""

MOST_ERROR = 0.02
"""Of the line's rate. Each end may be off by so much, as the middle of the tenth bit may move by
half a bit."""


@command.run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, see ``--help``, and returns the exit status."""
    parser = command.Parser(
        prog="python -m hw.boards",
        description="Builds a bitstream with a unit behind the serial line of a board.",
        epilog="python -m sim.uart is the other end of the line.")
    parser.add_argument("board", metavar="BOARD", nargs="?",
                        help=f"{', '.join(catalogue.BOARDS)}, or a class of amaranth-boards")
    parser.add_argument("--list", action="store_true", help="list the boards")
    parser.add_argument("--unit", metavar="UNIT",
                        help="a unit whose ports are all streams (default: the accelerator with "
                             "config lite on ECP5, quantization_engine on iCE40)")
    registry.add_settings(parser)
    parser.add_argument("--clock", metavar="MHZ", type=float,
                        help="most megahertz of the unit's clock; the next frequency below that "
                             "the board can make is used (default: 25 on ECP5, 12 on iCE40, or "
                             "less if the timing asks for it)")
    parser.add_argument("--baud", type=int, default=1_000_000,
                        help="rate of the line (default: 1000000)")
    parser.add_argument("--seed", type=int, default=1, help="of the placement (default: 1)")
    parser.add_argument("-o", metavar="DIR", default="build", help="folder (default: build)")
    options = parser.parse_args(arguments)
    if options.list:
        print(catalogue.listing())
        return 0
    if options.board is None:
        raise ValueError("BOARD must be given, or --list")
    if not options.o:
        raise ValueError("-o must be a folder, not ''")
    if options.clock is not None and not options.clock > 0:
        raise ValueError(f"--clock must be above 0, not {options.clock:g}")
    board = catalogue.board(options.board)
    words = registry.settings_of(options)
    if options.unit is None and not words:
        unit, words = board.unit, [*board.set]
    else:
        unit = options.unit or board.unit
        # Settings of the default unit come on top of the board's own.
        if unit == board.unit:
            given = {word.partition("=")[0] for word in words}
            words = [word for word in board.set if word.partition("=")[0] not in given] + words
    parameters = registry.parameters(unit, words)
    platform = catalogue.platform(board)
    family = catalogue.family_of(type(platform)) or ""
    flow.check(family)
    make_folder(Path(options.o), f"write to -o {options.o}")
    return _build(board, unit, parameters, platform, family, options)


def _build(board, unit, parameters, platform, family, options):
    """Builds, and once more with a slower clock if the timing asks for it and the user does not."""
    most = options.clock or CLOCKS[family]
    made = None
    while made is None:
        frequency, how = top.clock(family, platform.default_clk_frequency, most * 1e6)
        divisor = _divisor(frequency, options.baud)
        # Twice the frames of all streams may be under way, and the host may answer late.
        streams = 10
        timeout = int(frequency * 0.05) + 2 * streams * (BUFFERS[family] // 4) * 10 * divisor
        link = identity.link(unit, parameters, divisor=divisor, buffer=BUFFERS[family],
                             timeout=timeout)
        yosys.prepare()
        built = flow.build(platform, top.Top(top.Clock(family, frequency, how), link), family,
                           name=f"{unit} on {board.name}", seed=options.seed)
        if built.fmax >= frequency:
            made = built
        elif options.clock:
            raise ToolError(f"{unit} on {board.name} reaches {built.fmax / 1e6:.1f} MHz, not the "
                            f"{frequency / 1e6:g} MHz of its clock; --clock asks for less")
        else:
            most = built.fmax / 1e6
            platform = catalogue.platform(board)
    report = _report(board, unit, parameters, platform, family, frequency, divisor, made)
    paths = _write(made, report, Path(options.o), board.name)
    for line in _lines(report):
        print(line)
    print(*paths, sep="\n")
    return 0


def _divisor(frequency, baud):
    """Cycles per bit of the line.

    Raises
    ------
    ValueError
        If no whole number is close enough, or it is too small.
    """
    least = 4
    divisor = round(frequency / baud) if baud > 0 else 0
    if divisor < least or abs(frequency / baud / divisor - 1) > MOST_ERROR:
        raise ValueError(f"--baud must be a clock of {frequency / 1e6:g} MHz over a whole number "
                         f"of at least {least}, within {MOST_ERROR:.0%}, not {baud}")
    return divisor


def _report(board, unit, parameters, platform, family, frequency, divisor, made) -> dict[str, Any]:
    return {
        "board": board.name, "platform": board.platform, "device": platform.device,
        "family": family, "unit": unit, "set": identity.settings(parameters),
        "clock_mhz": round(frequency / 1e6, 6), "fmax_mhz": round(made.fmax / 1e6, 2),
        "baud": round(frequency / divisor), "cycles_per_bit": divisor,
        "buffer_bytes": BUFFERS[family], "used": made.used, "available": made.available,
    }


def _lines(report):
    def share(kind):
        used, there = report["used"][kind], report["available"][kind]
        return f"{used:,} of {there:,} {kind.replace('_', ' ').replace('luts', 'LUTs')}"

    yield (f"{report['unit']} {' '.join(report['set'])} on {report['board']} "
           f"({report['device']})")
    yield "  " + ", ".join(share(kind) for kind in report["used"])
    yield (f"  clock {report['clock_mhz']:g} MHz, could be {report['fmax_mhz']:.1f} MHz; "
           f"line {report['baud']:,} baud, {report['cycles_per_bit']} cycles per bit")


def _write(made, report, folder, name):
    """Writes bitstreams, report and log; returns their paths."""
    contents = {f"{name}{suffix}": content for suffix, content in sorted(made.files.items())}
    contents[f"{name}_nextpnr.log"] = made.log.encode()
    contents[f"{name}_board.json"] = (json.dumps(report, indent=2) + "\n").encode()
    paths = [folder / file for file in contents]
    try:
        write_set({folder / file: content for file, content in contents.items()})
    except OSError as error:
        raise ToolError(f"cannot write to -o {folder}: {error.strerror}") from None
    return paths


if __name__ == "__main__":
    sys.exit(main())
