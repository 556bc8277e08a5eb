"""Proof that emitted Verilog does what Amaranth simulates."""

import json

from amaranth.back import rtlil
from amaranth.hdl import Fragment

from . import yosys
from .verilog import LOAD, UNESCAPE, direction, ports_of, rename, verilog


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


_FLATTEN = UNESCAPE + """
flatten
opt_clean
check -assert
"""


_READ = ("read_rtlil reference.il" + LOAD + _FLATTEN + "write_json reference.json\ndesign -reset\n"
         "read_verilog emitted.v" + LOAD + _FLATTEN + "write_json emitted.json\n")


_PROVE = """
read_json reference.json
read_json emitted.json
equiv_make reference emitted proof
hierarchy -top proof
opt_clean
equiv_simple
equiv_status -assert
"""


def _reference(component, name):
    """Amaranth's own conversion of the component, under the names that `_Netlist` gives."""
    ports = {port: (value, direction(member)) for port, member, value in ports_of(component)}
    design = Fragment.get(component, None).prepare(ports, hierarchy=(name,))
    rename(design)
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
