"""The README's tables, made from the code and from a synthesis report: see ``--help``."""

import json
import re
import sys
from pathlib import Path

from amaranth import Shape
from amaranth.lib import data, wiring

from golden.command import Parser

from ..accelerator.config import CONFIGS
from ..bus.axi_lite import register_map
from ..registry import UNITS, build


def main(arguments=None):
    parser = Parser(prog="python -m hw.report.tables", description=__doc__)
    parser.add_argument("--readme", type=Path, metavar="FILE",
                        help="write the tables between this file's markers, instead of to stdout")
    parser.add_argument("--synth", type=Path, metavar="FILE",
                        help="report of `python -m hw.synth --json FILE`, for the figures")
    options = parser.parse_args(arguments)
    try:
        tables = {"units": units(), "registers": registers()}
        if options.synth:
            tables["figures"] = figures(json.loads(options.synth.read_text()))
        if options.readme:
            options.readme.write_text(insert(options.readme.read_text(), tables))
        else:
            print("\n\n".join(tables.values()))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def insert(text, tables):
    """A text with each table in place of what stands between the markers of its name."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: python -m hw.report.tables -->\n", f"<!-- end of {name} -->\n"
        text, found = re.subn(f"(?s)({re.escape(begin)}).*?({re.escape(end)})",
                              lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
        if found != 1:
            raise ValueError(f"Text must have one pair of markers for {name}, not {found}")
    return text


def units():
    """One section per unit: what it does, parameters, ports and latency, as Markdown."""
    return "\n\n".join(_unit(name, unit) for name, unit in UNITS.items())


def registers():
    """The registers of the accelerator in the paper's configuration, as Markdown."""
    return register_map(CONFIGS["paper"]).markdown()


def figures(report):
    """Area and delay of a synthesis report's units, as Markdown."""
    rows = ["| unit | cells | area A um2 | flip-flops' share | area T um2 | delay T ns | path | "
            "I/O delay T ns | clock with registered ports MHz |", "|---" * 9 + "|"]
    for name, unit in report["units"].items():
        share = unit["sequential_area_um2"] / unit["area_um2"]
        mark = " *" if unit["hierarchical"] else ""
        rows.append(f"| `{name}`{mark} | {unit['cells']} | {unit['area_um2']:.0f} | {share:.0%} | "
                    f"{unit['area_timed_um2']:.0f} | {unit['delay_ns']:.2f} | "
                    f"{unit['path_class']} | {unit['io_delay_ns']:.2f} | "
                    f"{unit['fmax_io_mhz']:.0f} |")
    notes = [f"`{name}`, {', '.join(f'{key}={value}' for key, value in unit['parameters'].items())}"
             f": {unit['area_per_tile_um2']:.0f} um2 (A) for each of its {unit['tiles']} 8-MAC "
             "tiles, with all that is around them."
             for name, unit in report["units"].items() if unit["area_per_tile_um2"] is not None]
    notes += [f"`{name}`: {unit['memory_bits']} bits in {unit['memories']} memories, which are not "
              "in its area; paths end at their pins."
              for name, unit in report["units"].items() if unit["memory_bits"]]
    return "\n".join(rows) + "".join(f"\n\n{note}" for note in notes)


def _unit(name, unit):
    component = build(name)
    latency, interval = component.latency, getattr(component, "cycles", 1)
    lines = [f"### `{name}`", "", f"{unit.summary}. "
             + ("Combinational." if latency == 0 else
                f"Latency {latency} cycle{'s' if latency > 1 else ''}, one transfer "
                f"{'per cycle' if interval == 1 else f'every {interval} cycles'}."), ""]
    if unit.parameters:
        lines += ["| parameter | default | also |", "|---|---|---|"]
        lines += [f"| `{parameter}` | {values[0]} | {', '.join(map(str, values[1:]))} |"
                  for parameter, values in unit.parameters.items()]
        lines.append("")
    lines += ["| port | | payload |", "|---|---|---|"]
    for port, member in component.signature.members.items():
        direction = "in" if member.flow == wiring.In else "out"
        if member.is_signature:
            direction += " stream"
            shape = member.signature.members["payload"].shape
        else:
            shape = member.shape
        lines.append(f"| `{port}` | {direction} | {_payload(shape)} |")
    return "\n".join(lines)


def _payload(shape):
    width = Shape.cast(shape).width
    text = f"{width} bit{'s' if width > 1 else ''}"
    if isinstance(shape, data.ArrayLayout):
        return f"{text}: {shape.length} x {Shape.cast(shape.elem_shape).width}"
    if isinstance(shape, data.StructLayout):
        return f"{text}: " + ", ".join(
            f"`{key}` {Shape.cast(field).width}" for key, field in shape.members.items())
    return text + (", signed" if Shape.cast(shape).signed else "")


if __name__ == "__main__":
    sys.exit(main())
