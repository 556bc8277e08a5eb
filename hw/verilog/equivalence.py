# SPDX-License-Identifier: BSD-2-Clause
"""Proof that emitted Verilog does the same as the component in Amaranth's simulator."""

import json

from amaranth.back import rtlil
from amaranth.hdl import Fragment

from ..tools import yosys
from . import sram
from .emit import LOAD, UNESCAPE, direction, ports_of, rename, verilog
from .style import DEFAULT


def prove(component, name, text=None, style=DEFAULT):
    """Proves emitted Verilog equivalent to the component, by induction over its registers.

    The reference is Amaranth's own conversion of the whole component. It shares neither the
    division into modules nor the cleaning with `hw.verilog.emit`. Registers of both sides
    correspond by name. The proof shows: if all registers are equal, then all outputs and all next
    values are equal. Other signals that both sides name are proved equal on the way, which keeps
    each proof small. Memories correspond by name, too: both sides read equal rows, and write
    equal rows at equal addresses.

    The reference is the same for every `Style`, as Amaranth simulates a synchronous reset. With a
    reset that is active low, an inverter goes before the port of the Verilog. An asynchronous reset
    is taken as if it acted at the clock edge, which makes both sides comparable, and its port may
    reach nothing but the asynchronous resets of registers. So the proof shows for this Verilog:
    outside reset it behaves as the reference in every state, the same registers have a reset, to
    the same values, and nothing else depends on the reset. That these registers change before the
    clock edge is the meaning of their event list, and not proven. Nor does the proof cover a reset
    with glitches, or one that ends too near to a clock edge.

    Memories that are instances are proven with their behavioural models. Where a model gives X, the
    proof takes what the component reads there: all else that a macro may give has no proof here,
    but simulation shows that an X does not reach an output (tests/hw/verilog/test_sram.py).

    Parameters
    ----------
    component : Component
    name : str
    text : str, optional
        Verilog of the component; the default is the result of `verilog`.
    style : Style, optional
        The style in which the Verilog was emitted.

    Raises
    ------
    ToolError
        If the two differ, or if a register or memory of one has no counterpart in the other.
    """
    text = verilog(component, name, style=style) if text is None else text
    undefined = ""
    if style.sram:
        text += "".join(sram.models(name, text).values())
        undefined = "opt_expr -mux_undef"
    script = _READ.format(name=name, undefined=undefined)
    _, files = yosys.run(script, outputs=["reference.json", "emitted.json"],
                         inputs={"reference.il": _reference(component, name), "emitted.v": text})
    for everywhere in (True, False):
        sides = {file: json.loads(files[f"{file}.json"])["modules"][name]
                 for file in ("reference", "emitted")}
        _meet_reset(sides["emitted"], style)
        if style.sram:
            _meet_memories(sides["emitted"])
        _cut(*sides.values(), everywhere=everywhere)
        try:
            yosys.run(_PROVE, inputs={f"{side}.json": json.dumps({"modules": {side: module}})
                                      for side, module in sides.items()})
            return
        except yosys.ToolError:
            if not everywhere:
                raise


# Memories keep asynchronous read ports, and their read registers become registers like others.
_FLATTEN = UNESCAPE + """
flatten
memory_nordff
memory_collect
dffunmap
opt_clean
check -assert
"""


_READ = ("read_rtlil reference.il" + LOAD + _FLATTEN + "write_json reference.json\ndesign -reset\n"
         "read_verilog emitted.v" + LOAD + "{undefined}" + _FLATTEN
         + "write_json emitted.json\n")


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
    """Amaranth's own conversion of the component, with the names that `_Netlist` gives."""
    ports = {port: (value, direction(member)) for port, member, value in ports_of(component)}
    design = Fragment.get(component, None).prepare(ports, hierarchy=(name,))
    rename(design)
    return rtlil.convert_fragment(design, emit_src=False)[0]


def _cut(reference, emitted, *, everywhere):
    """Cuts two flat netlists at their registers and, with ``everywhere``, at all common nets.

    At a cut, a new input of the netlist feeds the readers of the net, and its driver becomes an
    output. Equal outputs for all inputs are then the step of an induction: over time at
    registers, and over the logic at other nets, which have no combinational cycles. Cutting
    everywhere makes each proof small, but fails if equality follows only from logic before a cut.
    """
    if reference["ports"].keys() != emitted["ports"].keys():
        raise yosys.ToolError("The Verilog has other ports than the component")
    sides = reference, emitted
    _cut_memories(reference, emitted)
    states = [_cut_registers(side) for side in sides]
    known = [{bit for port in side["ports"].values() if port["direction"] == "input"
              for bit in port["bits"]} for side in sides]
    cuts = {}
    for name in filter(emitted["netnames"].get, reference["netnames"]):
        for pair in zip(*(_placed(side["netnames"][name]) for side in sides), strict=False):
            stored = [bit in state for bit, state in zip(pair, states, strict=True)]
            new = all(isinstance(bit, int) and bit not in bits
                      for bit, bits in zip(pair, known, strict=True))
            if new and (all(stored) or everywhere and not any(stored)):
                cuts.setdefault(name, []).append(pair)
                for bit, bits in zip(pair, known, strict=True):
                    bits.add(bit)
    for i, (side, state) in enumerate(zip(sides, states, strict=True)):
        # A register that nothing reads has no effect.
        if lost := (state.keys() - known[i]) & _read(side):
            name = next((name for name, net in side["netnames"].items()
                         if not lost.isdisjoint(net["bits"])), "without name")
            raise yosys.ToolError(f"Register {name} has no counterpart of that name")
        _open(side, {name: [pair[i] for pair in pairs] for name, pairs in cuts.items()}, state)


def _meet_reset(module, style):
    """Gives a flat netlist the reset of the reference: synchronous and active high."""
    ports, nets = module["ports"], module["netnames"]
    if style.reset_port not in ports:
        return
    pin, = ports[style.reset_port]["bits"]
    if style.level == "low":
        del ports["rst_n"], nets["rst_n"]
        reset = _free(module, pin)
        ports["rst"] = {"direction": "input", "bits": [reset]}
        nets["rst"] = {"bits": [reset]}
    else:
        reset = pin
    if style.asynchronous:
        _make_synchronous(module, pin, reset, "0" if style.level == "low" else "1")
    elif style.level == "low":
        _add_gate(module, "$rst", "$not", [pin], A=[reset])


def _meet_memories(module):
    """Gives memories in models the names that the component has for them."""
    cells = module["cells"]
    for name in [name for name, cell in cells.items() if cell["type"] == "$mem_v2"]:
        cell = cells[name.removesuffix(".rows")] = cells.pop(name)
        cell["parameters"]["MEMID"] = cell["parameters"]["MEMID"].removesuffix(".rows")


def _make_synchronous(module, pin, reset, active):
    """Makes the asynchronous resets of a flat netlist take effect at the clock edge."""
    registers = {name: cell for name, cell in module["cells"].items() if cell["type"] == "$adff"}
    for name, cell in registers.items():
        del cell["port_directions"]["ARST"]
        if (cell["connections"].pop("ARST") != [pin]
                or cell["parameters"]["ARST_POLARITY"][-1] != active):
            raise yosys.ToolError(f"Register {name} has another reset than the port")
    if pin in _read(module):
        raise yosys.ToolError("The reset reaches something else than asynchronous resets")
    for name, cell in registers.items():
        cell["type"] = "$dff"
        pins = cell["connections"]
        first = _free(module)
        value = [*range(first, first + len(pins["D"]))]
        _add_gate(module, f"{name}.reset", "$mux", value, A=pins["D"],
                  B=[*reversed(cell["parameters"]["ARST_VALUE"])], S=[reset])
        pins["D"] = value


def _free(module, *others):
    """A number that no net of a netlist has."""
    return 1 + max(bit for bits in (
        others, *(net["bits"] for net in module["netnames"].values()),
        *(bits for cell in module["cells"].values() for bits in cell["connections"].values()))
        for bit in bits if isinstance(bit, int))


def _add_gate(module, name, kind, out, **inputs):
    """Adds an operator to a netlist."""
    connections = {**inputs, "Y": out}
    if kind == "$mux":
        parameters = {"WIDTH": len(out)}
    else:
        parameters = {f"{key}_{part}": value for key, bits in connections.items()
                      for part, value in (("WIDTH", len(bits)), ("SIGNED", 0))
                      if (key, part) != ("Y", "SIGNED")}
    module["cells"][name] = {
        "type": kind, "connections": connections, "parameters": parameters,
        "port_directions": dict.fromkeys(inputs, "input") | {"Y": "output"}}


def _placed(net):
    """Bits of a net by their place, which begin with None where the net begins above 0."""
    return [None] * net.get("offset", 0) + net["bits"]


def _read(module):
    """Bits that a cell or an output of a netlist reads."""
    pins = [bits for cell in module["cells"].values() for pin, bits in cell["connections"].items()
            if cell["port_directions"][pin] == "input"]
    pins += [port["bits"] for port in module["ports"].values() if port["direction"] == "output"]
    return {bit for bits in pins for bit in bits}


def _open(module, cuts, state):
    """Cuts nets of a netlist, given by name, into inputs and outputs."""
    # Readers move to a new net; drivers keep the old one.
    first = _free(module)
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


def _cut_memories(reference, emitted):
    """Replaces the memories of two flat netlists by ports; refuses memories that differ."""
    sides = reference, emitted
    memories = [{name: cell["parameters"] for name, cell in side["cells"].items()
                 if cell["type"] == "$mem_v2"} for side in sides]
    for name in sorted({**memories[0], **memories[1]}):
        if not all(name in memory for memory in memories):
            raise yosys.ToolError(f"Memory {name} has no counterpart of that name")
        # Read ports have no clock, so the polarity of their clock means nothing.
        parameters = [memory[name] | {"RD_CLK_POLARITY": None} for memory in memories]
        if other := [key for key in parameters[0] if parameters[0][key] != parameters[1].get(key)]:
            raise yosys.ToolError(f"Memory {name} has another {', '.join(other)} "
                                  "than its counterpart")
        for side in sides:
            _open_memory(side, name)


def _open_memory(module, name):
    """Replaces a memory by ports: its read rows become inputs, all its own inputs outputs.

    Data and address of a write port count only while it is enabled; Yosys leaves them undefined
    otherwise, so they are masked.
    """
    memory = module["cells"].pop(name)
    pins = {pin: bits for pin, bits in memory["connections"].items() if bits}
    size = {key: int(memory["parameters"][key], 2) for key in ("ABITS", "WIDTH", "WR_PORTS")}
    if {*pins["WR_CLK"]} != {*module["ports"]["clk"]["bits"]} \
            or "0" in memory["parameters"]["WR_CLK_ENABLE"] \
            or "0" in memory["parameters"]["WR_CLK_POLARITY"]:
        raise yosys.ToolError(f"Memory {name} is not written by the rising edge of clk")

    def add_port(pin, direction, bits):
        module["ports"][f"{name}.{pin}"] = {"direction": direction, "bits": bits}
        module["netnames"][f"{name}.{pin}"] = {"bits": bits}

    def add_gate(pin, kind, width, **inputs):
        first = _free(module)
        bits = [*range(first, first + width)]
        _add_gate(module, f"${name}.{pin}", kind, bits, **inputs)
        add_port(pin, "output", bits)
        return bits

    add_port("RD_DATA", "input", pins["RD_DATA"])
    add_port("RD_ADDR", "output", pins["RD_ADDR"])
    add_port("WR_EN", "output", pins["WR_EN"])
    add_gate("WR_DATA", "$and", len(pins["WR_DATA"]), A=pins["WR_DATA"], B=pins["WR_EN"])
    for i in range(size["WR_PORTS"]):
        enables, address = (pins[pin][i * size[key]:(i + 1) * size[key]]
                            for pin, key in (("WR_EN", "WIDTH"), ("WR_ADDR", "ABITS")))
        enable = add_gate(f"enable{i}", "$reduce_or", 1, A=enables)
        add_gate(f"WR_ADDR{i}", "$and", len(address), A=address, B=enable * len(address))


def _cut_registers(module):
    """Removes the registers of a flat netlist; returns the next value of each by its output."""
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
