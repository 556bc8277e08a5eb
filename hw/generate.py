"""Emits units as Verilog-2001 with a JSON description: ``python -m hw.generate --help``."""

import enum
import hashlib
import json
import re
import sys
from pathlib import Path

from amaranth.hdl import Shape
from amaranth.lib import data, stream, wiring

from golden.command import Parser

from . import registry
from .tools import yosys
from .tools.files import write
from .verilog.axi_wrapper import wrap
from .verilog.emit import ports_of, verilog, versions
from .verilog.equivalence import prove

OFFERED = registry.UNITS | registry.ASSEMBLIES


def main(arguments=None):
    """Command line; see ``--help``. Returns the exit status."""
    parser = Parser(
        prog="python -m hw.generate", description="Emits units as Verilog with a description.")
    parser.add_argument("units", metavar="UNIT", nargs="*",
                        help=f"default: all but {', '.join(registry.ASSEMBLIES)}")
    parser.add_argument("--list", action="store_true", help="list the units and their parameters")
    parser.add_argument("--set", metavar="PARAMETER=VALUE", action="append", default=[],
                        help="set a parameter of the unit (repeatable)")
    parser.add_argument("--axi", action="store_true",
                        help="also write UNIT_axi.v, a module around the unit with AXI4-Stream and "
                             "AXI4-Lite interfaces")
    parser.add_argument("--prove", action="store_true",
                        help="also prove the Verilog equivalent to what is simulated")
    parser.add_argument("-o", metavar="DIR", default="build", help="folder (default: build)")
    options = parser.parse_args(arguments)
    if options.list:
        print(listing())
        return 0
    try:
        units = dict.fromkeys(options.units or registry.UNITS)
        if options.set and len(units) != 1:
            raise ValueError(f"--set {options.set[0]} needs exactly one unit, not {len(units)}")
        for name in units:
            registry.parameters(name, options.set, units=OFFERED)
        yosys.prepare()
        for name in units:
            for path in generate(name, options.set, options.o, proof=options.prove,
                                 axi=options.axi):
                print(path)
    except (ValueError, yosys.ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or options.o
        print(f"error: cannot write to -o {where}: {error.strerror}; a folder that can be written "
              "is needed", file=sys.stderr)
        return 1
    return 0


def listing():
    """The units with their parameters, offered values and defaults, as text."""
    lines = []
    for name, unit in OFFERED.items():
        lines.append(f"{name}: {unit.summary}")
        for parameter, values in unit.parameters.items():
            default, *others = map(str, values)
            lines.append(f"    {parameter}={default} (default){''.join(', ' + o for o in others)}")
    return "\n".join(lines)


def generate(name, settings=(), directory="build", *, proof=False, axi=False):
    """Writes a unit's Verilog and its description, each at once or not at all.

    Parameters
    ----------
    name : str
        Name in the registry, of a unit or an assembly.
    settings : iterable of str
        Texts of the form "parameter=value".
    directory : str or Path
        Made when absent.
    proof : bool
        Whether to `prove` the Verilog first.
    axi : bool
        Whether to write a module with AXI interfaces, too, see `hw.verilog.axi_wrapper.wrap`.

    Returns
    -------
    tuple of Path
        The files: ``NAME.v``, ``NAME.json``; ``NAME_axi.v`` if asked for; a C header if the unit
        has registers.

    Raises
    ------
    ValueError
        If the registry does not offer this, or the component cannot be emitted or wrapped.
    ToolError
        If Yosys fails or the proof does.
    OSError
        If the files cannot be written.
    """
    parameters = registry.parameters(name, settings, units=OFFERED)
    component = registry.build(name, settings, units=OFFERED)
    text = verilog(component, name, parameters)
    if proof:
        prove(registry.build(name, settings, units=OFFERED), name, text)
    description = describe(component, name, text, parameters)
    files = {f"{name}.v": text, f"{name}.json": None}
    if axi:
        wrapper, interfaces = wrap(description)
        files[f"{name}_axi.v"] = wrapper
        description["axi"] = {"file": f"{name}_axi.v", **interfaces}
    if description["registers"]:
        files[description["registers"]["header"]] = component.registers.header()
    files[f"{name}.json"] = json.dumps(description, indent=2) + "\n"
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        write(directory / file, content)
    return tuple(directory / file for file in files)


def describe(component, name, text, parameters=None):
    """What an integrator's tools need to know of an emitted unit.

    Parameters
    ----------
    component : Component
    name : str
    text : str
        The Verilog that `verilog` returned for them.
    parameters : dict, optional

    Returns
    -------
    dict
        Only of types that JSON has. Bits of ``fields`` count from the port's bit 0. "axi" is None
        until there is a wrapper, see `hw.verilog.axi_wrapper.wrap`; "registers" is None for a
        component without.
    """
    ports = []
    for port, member, value in ports_of(component):
        shape = Shape.cast(member.shape)
        entry = {"name": port, "direction": "input" if member.flow == wiring.In else "output",
                 "width": len(value), "signed": shape.signed}
        ports.append(entry | _fields(member.shape))
    clocked = re.search(r"^  input clk;$", text, re.M) is not None
    return {
        "unit": name,
        "summary": OFFERED[name].summary if name in OFFERED else None,
        "parameters": {key: value if isinstance(value, int) else str(value)
                       for key, value in (parameters or {}).items()},
        "latency": component.latency,
        "clock": {"name": "clk", "edge": "rising"} if clocked else None,
        "reset": {"name": "rst", "active": "high", "synchronous": True} if clocked else None,
        "ports": ports,
        "streams": _streams(component),
        "axi": None,
        "registers": _registers(component),
        "modules": _modules(text),
        "versions": versions(),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def _registers(component):
    """The registers of a component that has them, with the name of their C header."""
    table = getattr(component, "registers", None)
    return table and {"header": f"{table.name}_registers.h", "table": table.describe()}


def _modules(text):
    """The modules of emitted Verilog with the modules they instantiate."""
    modules = re.split(r"^module ", text, flags=re.M)[1:]
    return [{"name": re.match(r"\w+", module)[0],
             "instances": {instance: name for name, instance
                           in re.findall(r"^  (\w+) (\w+) \($", module, re.M)}}
            for module in modules]


def _streams(component):
    """The streams of a component with the ports they consist of."""
    names = [port for port, _, _ in ports_of(component)]
    streams = []
    for path, member in component.signature.members.flatten():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            base = "__".join(map(str, path))
            parts = {part: f"{base}__{part}" for part in ("payload", "valid", "ready")}
            streams.append({
                "name": base, "direction": "input" if member.flow == wiring.In else "output",
                **{part: port if port in names else None for part, port in parts.items()}})
    return streams


def _fields(shape):
    """What there is to say about a shape beyond width and sign, recursively."""
    if isinstance(shape, type) and issubclass(shape, enum.Enum):
        return {"values": {member.name: member.value for member in shape}}
    try:
        layout = data.Layout.cast(shape)
    except TypeError:
        return {}
    if isinstance(layout, data.ArrayLayout):
        return {"length": layout.length, "element": _shape(layout.elem_shape)}
    return {"fields": [{"name": str(key), "lsb": field.offset, **_shape(field.shape)}
                       for key, field in layout]}


def _shape(shape):
    plain = Shape.cast(shape)
    return {"width": plain.width, "signed": plain.signed, **_fields(shape)}


if __name__ == "__main__":
    sys.exit(main())
