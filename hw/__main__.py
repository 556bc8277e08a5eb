"""The main job, ``python -m hw``: Verilog of every unit, real data in lockstep, area and timing."""

import sys
from pathlib import Path

from tqdm import tqdm

from golden.command import Parser

from . import generate, synth
from .registry import UNITS
from .tools import yosys


def main(arguments=None):
    parser = Parser(
        prog="python -m hw", description=__doc__,
        epilog="See also python -m hw.generate, python -m hw.synth and python -m sim.")
    parser.add_argument("-o", default="build", metavar="DIR", help="folder for all output")
    parser.add_argument("--vcd", type=Path, metavar="FILE",
                        help="write waveforms of the lockstep, to FILE's name with the unit's "
                             "name before the ending")
    options = parser.parse_args(arguments)
    try:
        yosys.prepare()
        print(f"Verilog and descriptions in {options.o}/")
        for name in tqdm(UNITS, desc="generate", unit="unit", disable=None, leave=False):
            generate.generate(name, directory=options.o)
        print(f"  {', '.join(UNITS)}\n")

        # Here, because simulation rests on the units and not the other way round.
        from golden.models import smollm2
        from sim.__main__ import report_lockstep
        status = report_lockstep(smollm2.load(), tokens=32, rows=16, vcd=options.vcd)

        print("\nArea and timing")
        return synth.main(["--json", str(Path(options.o) / "synth.json")]) or status
    except (OSError, ValueError, yosys.ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
