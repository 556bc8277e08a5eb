# SPDX-License-Identifier: BSD-2-Clause
"""Operators and registers of a netlist, as Yosys' cells give them.

Operands are as wide as Verilog evaluates them, so that no context of an expression matters.
"""

from dataclasses import dataclass, field
from typing import Any

Bits = list[Any]
"""Bits of a netlist, the least significant one first: numbers of nets, "0" and "1"."""

BITWISE = {"$not": "~", "$and": "&", "$or": "|", "$xor": "^", "$xnor": "^"}
REDUCTIONS = {"$reduce_and": "&", "$reduce_or": "|", "$reduce_bool": "|", "$reduce_xor": "^",
              "$reduce_xnor": "~^"}
COMPARED = {"$eq": "==", "$ne": "!=", "$lt": "<", "$le": "<=", "$gt": ">", "$ge": ">="}
ARITHMETIC = {"$add": "+", "$sub": "-", "$mul": "*"}
SHIFTS = {"$shl": "<<", "$sshl": "<<", "$shr": ">>", "$sshr": ">>>"}
REGISTERS = ("$dff", "$dffe", "$sdff", "$sdffe", "$sdffce", "$adff", "$adffe")

RESULT_NAMES = {
    "$not": "not", "$and": "and", "$or": "or", "$xor": "xor", "$xnor": "equal", "$mux": "choice",
    "$pmux": "choice", "$reduce_and": "all", "$reduce_or": "any", "$reduce_bool": "any",
    "$reduce_xor": "parity", "$reduce_xnor": "parity", "$logic_not": "none", "$logic_and": "both",
    "$logic_or": "either", "$eq": "equal", "$ne": "unequal", "$lt": "less", "$le": "at_most",
    "$gt": "greater", "$ge": "at_least", "$add": "sum", "$sub": "difference", "$mul": "product",
    "$neg": "negated", "$shl": "shifted", "$sshl": "shifted", "$shr": "shifted",
    "$sshr": "shifted", "$shift": "slice", "$shiftx": "slice",
}
"""What a value without a name is called, behind the name of what it leads to."""


@dataclass(eq=False)
class Operator:
    """An operator or a register, or some of its bits.

    Attributes
    ----------
    kind : str
        Yosys' type of the cell.
    out : list of bit
    operands : dict of str to list of bit
        Extended to the width in which Verilog evaluates them. Those of ``by_bit`` have a bit for
        every bit of ``out``.
    signed : bool
        Whether a comparison or a shift to the right takes its operands as signed.
    place : tuple
        Where it stands in the netlist.
    target : str
        The name of what it leads to.
    source : str
        File and line of the Python that made it, or nothing.
    name : str
        Its own name, if it has a wire without a name in the design.
    uses : list of (low, high)
        Bits of ``out`` that others read, once for every time.
    """

    kind: str
    out: Bits
    operands: dict[str, Bits]
    signed: bool = False
    place: tuple = ()
    target: str = ""
    source: str = ""
    name: str = ""
    uses: list[tuple[int, int]] = field(default_factory=list)

    @property
    def by_bit(self) -> list[str]:
        """Operands of which every bit of the result needs only its own bit."""
        return {"$mux": ["A", "B"], "$pmux": [], **dict.fromkeys(REGISTERS, ["D", "reset"])}.get(
            self.kind, [port for port in self.operands if self.kind in BITWISE])

    @property
    def divisible(self) -> bool:
        """Whether some of its bits are an operator of the same kind."""
        return self.kind in BITWISE or self.kind in ("$mux", "$pmux", *REGISTERS)

    def part(self, low: int, high: int) -> "Operator":
        """The operator of bits ``low`` to ``high``."""
        operands = dict(self.operands)
        for port in self.by_bit:
            if port in operands:
                operands[port] = operands[port][low:high + 1]
        if self.kind == "$pmux":
            width = len(self.out)
            operands["A"] = operands["A"][low:high + 1]
            operands["B"] = [bit for start in range(0, len(operands["B"]), width)
                             for bit in operands["B"][start + low:start + high + 1]]
        return Operator(self.kind, self.out[low:high + 1], operands, self.signed,
                        (*self.place, low), self.target, self.source)


def extended(bits: Bits, width: int, signed: bool) -> Bits:
    """Bits cut or extended to a width."""
    fill = bits[-1] if signed and bits else "0"
    return (bits + [fill] * width)[:width]


def operator_of(place: int, cell: dict[str, Any]) -> Operator:
    """The operator that a cell of Yosys' is."""
    kind = cell["type"]
    pins = {port: ["0" if bit == "x" else bit for bit in bits]
            for port, bits in cell["connections"].items()}
    parameters = cell["parameters"]

    def value(key):
        return int(parameters.get(key, "0"), 2)

    if kind in REGISTERS:
        return _register(place, cell, pins, value)
    out = pins["Y"]
    width = len(out)
    signed = {port: bool(value(f"{port}_SIGNED")) for port in ("A", "B")}
    widths = {port: len(pins[port]) for port in pins if port != "Y"}
    if kind in BITWISE or kind in ARITHMETIC or kind in ("$neg", "$pos"):
        widths = dict.fromkeys(widths, width)
    elif kind in COMPARED:
        widths = dict.fromkeys(widths, max(widths.values()))
    elif kind in SHIFTS:
        widths["A"] = max(widths["A"], width)
        if kind in ("$shl", "$sshl"):
            widths["A"] = width
    both = kind in COMPARED and all(signed.values()) or kind == "$sshr" and signed["A"]
    if kind in COMPARED and signed["A"] != signed["B"]:
        raise ValueError(f"A {kind} of a signed and an unsigned operand cannot be emitted")
    if kind in ("$shl", "$sshl", "$shr", "$sshr", "$shift", "$shiftx") and signed["B"]:
        raise ValueError(f"A {kind} by a signed amount cannot be emitted")
    operands = {port: extended(pins[port], widths[port], signed.get(port, False))
                for port in widths}
    if kind == "$sshr" and not signed["A"]:
        kind = "$shr"
    return Operator(kind, out, operands, both, (place,))


def _register(place, cell, pins, value):
    """The register that a cell of Yosys' is; refuses all but the rising edge of a clock."""
    kind = cell["type"]
    if not value("CLK_POLARITY"):
        raise ValueError(f"A {kind} with a falling clock edge cannot be emitted")
    operands = {"D": pins["D"], "clock": pins["CLK"]}
    if "EN" in pins:
        operands["enable" if value("EN_POLARITY") else "disable"] = pins["EN"]
    for pin in {"SRST", "ARST"} & pins.keys():
        operands["clear" if value(f"{pin}_POLARITY") else "keep"] = pins[pin]
        text = cell["parameters"][f"{pin}_VALUE"]
        operands["reset"] = ["1" if bit == "1" else "0" for bit in reversed(text)]
    return Operator(kind, pins["Q"], operands, False, (place,))
