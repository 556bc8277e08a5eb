# SPDX-License-Identifier: BSD-2-Clause
"""Emits units as Verilog-2001 with a JSON description: ``python -m hw.generate --help``."""

import enum
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data, stream, wiring

from golden import command

from . import kit, registry
from .flow import emitted
from .tools import cache, components, yosys
from .tools.errors import ToolError
from .tools.files import make_folder, write_set
from .tools.progress import busy
from .verilog import sram
from .verilog.axi_wrapper import wrap
from .verilog.emit import ports_of, verilog, versions
from .verilog.emit import split as divide
from .verilog.equivalence import prove
from .verilog.style import DEFAULT, Style
from .verilog.words import WORDS


@command.run
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``. Returns the exit status."""
    parser = command.Parser(
        prog="python -m hw.generate", description="Emits units as Verilog with a description.")
    parser.add_argument("units", metavar="UNIT", nargs="*",
                        help=f"default: all but {', '.join(registry.ASSEMBLIES)}")
    parser.add_argument("--list", action="store_true", help="list the units and their parameters")
    registry.add_settings(parser)
    parser.add_argument("--axi", action="store_true",
                        help="also write UNIT_axi.v, a module around the unit with AXI4-Stream and "
                             "AXI4-Lite interfaces")
    parser.add_argument("--name", metavar="NAME",
                        help="name of the top module and prefix of all others, in place of UNIT, "
                             "so that two configurations fit into one chip")
    parser.add_argument("--split", action="store_true",
                        help="write a file for each module; NAME.f lists them")
    parser.add_argument("--reset", metavar="KIND", default="sync",
                        help="sync (default) or async: whether the reset waits for the clock")
    parser.add_argument("--reset-level", metavar="LEVEL", default="high",
                        help="level at which the reset is active: high (default), on the port rst, "
                             "or low, on rst_n")
    parser.add_argument("--sram", action="store_true",
                        help="make memories instances that macros can replace, and write a "
                             "behavioural model of each size, NAME_sram_DEPTHxWIDTH.v")
    parser.add_argument("--testbench", metavar="COUNT", nargs="?", const="0",
                        help="also write NAME_tb.sv, a self-checking testbench, with COUNT golden "
                             "vectors or commands (default: 200 vectors, 6 commands)")
    parser.add_argument("--prove", action="store_true",
                        help="also prove the Verilog equivalent to what is simulated")
    parser.add_argument("-o", metavar="DIR", default="build", help="folder (default: build)")
    options = parser.parse_args(arguments)
    if options.list:
        print(listing())
        return
    if not options.o:
        raise ValueError("-o must be a folder, not ''")
    style = Style(reset=options.reset, level=options.reset_level, sram=options.sram)
    settings = registry.settings_of(options)
    units = registry.select(options.units or registry.UNITS, settings, units=registry.offered())
    if options.name is not None and len(units) != 1:
        raise ValueError(f"--name {options.name} needs exactly one unit, not {len(units)}")
    vectors = _vectors(options.testbench)
    make_folder(Path(options.o), f"write to -o {options.o}")
    yosys.prepare()
    for name in units:
        try:
            with busy(f"generate {name}"):
                paths = generate(name, settings, options.o, proof=options.prove, axi=options.axi,
                                 split=options.split, module=options.name, style=style,
                                 vectors=vectors)
        except OSError as error:
            raise ToolError(f"cannot write to -o {error.filename or options.o}: {error.strerror}; "
                            "a folder that can be written is needed") from None
        print(*paths, sep="\n", flush=True)
    print(kit.bender(Path(options.o)))


def _vectors(text):
    """The number of vectors of ``--testbench``: None without it, 0 for the default."""
    if text in (None, "0"):
        return text and 0
    if not (text.isdecimal() and text.isascii() and 0 < int(text) <= 1_000_000):
        raise ValueError(f"--testbench must be a number from 1 to 1000000, not {text!r}")
    return int(text)


def listing() -> str:
    """The units with their parameters, offered values and defaults, as text."""
    lines = ["The values are those that are tested. A parameter of integers takes others, too."]
    for name, unit in registry.offered().items():
        lines.append(f"{name}: {unit.summary}")
        for parameter, values in unit.parameters.items():
            default, *others = map(str, values)
            lines.append(f"    {parameter}={default} (default){''.join(', ' + o for o in others)}")
    return "\n".join(lines)


def generate(name: str, settings: Sequence[str] = (), directory: str | Path = "build", *,
             proof: bool = False, axi: bool = False, split: bool = False,
             module: str | None = None, style: Style = DEFAULT,
             vectors: int | None = None) -> tuple[Path, ...]:
    """Writes a unit's Verilog and its description, each file as a whole or not at all.

    The description is written last, and one that was there is removed before the first other file
    is replaced. So files beside a description are those that it describes.

    Parameters
    ----------
    name : str
        Name in the registry, of a unit or an assembly.
    settings : iterable of str
        Texts of the form "parameter=value".
    directory : str or Path
        Folder for the files; it is made if it does not exist.
    proof : bool
        Whether to prove the Verilog first, see `hw.verilog.equivalence.prove`.
    axi : bool
        Whether to write also a module with AXI interfaces, see `hw.verilog.axi_wrapper.wrap`.
    split : bool
        Whether every module has a file of its own. ``NAME.f`` then lists the files.
    module : str, optional
        Name of the top module, which begins the names of all other modules and files, and of the C
        header; the default is the name of the unit.
    style : Style
        What the chip around the unit needs of it.
    vectors : int, optional
        Vectors of a testbench, 0 for the default number; see `hw.kit.testbench.testbench`.

    Returns
    -------
    tuple of Path
        The files: ``NAME.v``, or with ``split`` one for each module, ``NAME.json``, models of
        memories that the style makes instances, with ``axi`` ``NAME_axi.v``, a C header if the unit
        has registers, and those of `hw.kit.files`.

    Raises
    ------
    ValueError
        If the registry does not offer the unit or a setting, the component cannot be emitted or
        wrapped, ``module`` cannot name a module, or there can be no testbench.
    ToolError
        If Yosys or the proof fails.
    OSError
        If the files cannot be written.
    """
    parameters = registry.parameters(name, settings, units=registry.offered())
    component = registry.build(name, settings, units=registry.offered())
    summary = registry.offered()[name].summary
    if module is not None:
        if not re.fullmatch(r"[A-Za-z_]\w*", module, re.ASCII) or module in WORDS:
            raise ValueError(f"--name must be a name in Verilog, not {module!r}")
        name, unit = module, name
    else:
        unit = name
    text = verilog(component, name, parameters, style)
    if proof:
        prove(registry.build(unit, settings, units=registry.offered()), name, text, style)
    description = describe(component, name, text, parameters, style) | {"summary": summary}
    sources = ({f"{part}.v": content for part, content in divide(text).items()} if split
               else {f"{name}.v": text})
    sources |= {f"{part}.v": content for part, content in sram.models(name, text).items()}
    files = {**sources, f"{name}.json": None}
    if axi:
        wrapper, interfaces = wrap(description)
        files[f"{name}_axi.v"] = sources[f"{name}_axi.v"] = wrapper
        description["axi"] = {"file": f"{name}_axi.v", **interfaces}
    if description["registers"]:
        header = component.registers.header()
        if module is not None:
            header = _renamed(header, component.registers.name, module)
            description["registers"]["header"] = f"{module}_registers.h"
        files[description["registers"]["header"]] = header
    files |= kit.files(component, unit, parameters, description, [*sources], vectors=vectors)
    files[f"{name}.json"] = json.dumps(description, indent=2) + "\n"
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory, files, f"{name}.json")
    return tuple(directory / file for file in files)


def _write(directory, files, description):
    """Writes files by name; the description is there only when all others are its own."""
    write_set({directory / file: files[file]
               for file in (*(file for file in files if file != description), description)})


def _renamed(header, old, new):
    """A C header with another prefix of all its names."""
    for before, after in ((old, new), (old.upper(), new.upper())):
        header = re.sub(rf"\b{before}_", f"{after}_", header)
    return header


def generate_and_keep(name: str, directory: Path) -> None:
    """Writes a unit's files as `generate` does and keeps them in the user's cache."""
    paths = generate(name, directory=directory)
    files = {path.name: path.read_text(encoding="utf-8") for path in paths}
    cache.store(_kept(name), json.dumps(files))
    emitted.keep(name, files[f"{name}.v"])


def write_kept(name: str, directory: Path) -> bool:
    """Writes a unit's files as `generate_and_keep` kept them; False where it did not."""
    if (text := cache.read(_kept(name))) is None:
        return False
    files = json.loads(text)
    _write(directory, files, f"{name}.json")
    emitted.keep(name, files[f"{name}.v"])
    return True


def _kept(name: str) -> Path:
    """Where the cache has a unit's files; they depend on all sources here and on the tools."""
    sources = emitted.sources(emitted.files("hw/**/*.py"))
    return cache.folder() / cache.digest("files", name, str(versions()), *sources) / "files.json"


def describe(component: wiring.Component, name: str, text: str,
             parameters: dict[str, Any] | None = None, style: Style = DEFAULT) -> dict[str, Any]:
    """Describes an emitted unit for an integrator's tools.

    Parameters
    ----------
    component : Component
    name : str
    text : str
        The Verilog that `hw.verilog.emit.verilog` returned for them.
    parameters : dict, optional
    style : Style
        The style of the Verilog.

    Returns
    -------
    dict
        All types are those of JSON. Bits of ``fields`` count from the port's bit 0. "axi" is None;
        `hw.verilog.axi_wrapper.wrap` returns the entry for a wrapper. "registers" is None for a
        component without registers.

    Raises
    ------
    TypeError
        If the component is none, such as a class in place of an instance, or has no latency.
    """
    components.check(component)
    ports = []
    for port, member, value in ports_of(component):
        shape = Shape.cast(member.shape)
        entry = {"name": port, "direction": "input" if member.flow == wiring.In else "output",
                 "width": len(value), "signed": shape.signed}
        ports.append(entry | _fields(member.shape))
    clocked = re.search(r"^  input +wire +clk\b", text, re.M) is not None
    return {
        "unit": name,
        "summary": (unit := registry.offered().get(name)) and unit.summary,
        "parameters": {key: value if isinstance(value, int) else str(value)
                       for key, value in (parameters or {}).items()},
        "latency": component.latency,
        "clock": {"name": "clk", "edge": "rising"} if clocked else None,
        "reset": {"name": style.reset_port, "active": style.level,
                  "synchronous": not style.asynchronous} if clocked else None,
        "ports": ports,
        "streams": _streams(component),
        "axi": None,
        "registers": _registers(component),
        "modules": _modules(text),
        "memories": sram.listed(name, text),
        "versions": versions(),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def _registers(component):
    """The registers of a component and the name of their C header, or None without registers."""
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
    """Fields, elements or named values of a shape, recursively; empty for a plain number."""
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
