# SPDX-License-Identifier: BSD-2-Clause
"""Points of the Verilog that no run can reach, each with its reason and, where it can be, a proof.

A waiver that matches nothing that was missed, or something that was seen, is an error: the table
cannot hide what has become reachable.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from golden.command import Failure
from hw.tools import yosys
from hw.verilog.emit import hierarchy


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """Points that cannot be reached.

    Attributes
    ----------
    unit, module, text : str
        Regular expressions that match the whole of the unit's name with its settings, of the
        module's without the unit's, and of the line of Verilog.
    what : str
        The outcome of the branch, which also waives its lines; or the state.
    reason : str
    always : str
        An expression in the module's signals that is true in all reachable states, so that the
        point is not reached; "" if there is no proof.
    inside : bool
        Whether the proof needs the whole unit around the module; else the module's inputs are free.
    """

    unit: str
    module: str
    text: str
    what: str
    reason: str
    always: str = ""
    inside: bool = False

    def matches(self, unit: str, point: Any) -> bool:
        """Whether it is about this point."""
        return (point.kind != "toggles" and point.what in ("", self.what)
                and bool(re.fullmatch(self.unit, unit))
                and bool(re.fullmatch(self.module, point.module))
                and bool(re.fullmatch(self.text, point.text)))


_NAMED = "The register holds no other states than the named ones."

WAIVERS: tuple[Waiver, ...] = (
    Waiver(unit="weight_encoder( .*)?", module=r"register(_2)?", text=r"if \(enable\) begin",
           what="else", reason="This register is always enabled.", always="enable", inside=True),
    Waiver(unit="weight_encoder( .*)?", module="sequencer",
           text=r"case \(phase_state\) .*default: begin end", what="case", reason=_NAMED,
           always="phase_state <= 3'd4"),
    Waiver(unit="(axi_)?accelerator( .*)?", module="accelerator|", text=r"case \(fsm_state\) "
           r"FsmPlan: .*default: begin end", what="case", reason=_NAMED, always="fsm_state <= 2"),
    Waiver(unit="(axi_)?accelerator( .*)?", module="planner", text=r"case \(fsm_state\) "
           r"FsmCommand: .*default: begin end", what="case", reason=_NAMED,
           always="fsm_state <= 9"),
    Waiver(unit="axi_accelerator( .*)?", module="accelerator",
           text=r"if \(o_status__ready\) begin", what="else",
           reason="The registers have a place for the status of every command that they let pass."),
    Waiver(unit="(axi_)?accelerator( .*)?", module="loop_nest_2",
           text=r"end else if \(index_last\) begin tile <= .*|tile <= tile \+ \d'd1;", what="if",
           reason="Activations are loaded once for all tiles of a bundle, so this loop has no "
                  "tiles: the condition before is the same.", always="!(~index_last & index_last)"),
    Waiver(unit="axi_accelerator config=lite", module="planner", text=r"& ~\(kept .*StatusNotKept",
           what="cond_then", reason="A machine of 4 columns refuses the source before.",
           always="code != StatusNotKept"),
    Waiver(unit="axi_accelerator config=lite", module="planner", text=r"\? StatusTooLarge",
           what="cond_then", reason="A machine of 4 columns refuses the result before.",
           always="code != StatusTooLarge"),
)


def apply(unit: str, counts: dict[Any, int], verilog: str,
          table: Iterable[Waiver] = WAIVERS) -> dict[Any, Waiver]:
    """Finds the points of a unit that are waived, and proves what can be.

    Parameters
    ----------
    unit : str
        Name with its settings.
    counts : dict of Point to int
        How often each point was seen.
    verilog : str
        The unit's, with "unit" as the name of the top module.
    table : iterable of Waiver

    Returns
    -------
    dict of Point to Waiver

    Raises
    ------
    Failure
        If a waiver matches no point that was missed, or one that was seen, or its proof fails.
    """
    waived: dict[Any, Waiver] = {}
    chosen = [waiver for waiver in table if re.fullmatch(waiver.unit, unit)]
    for waiver in chosen:
        found = [point for point in counts if waiver.matches(unit, point)]
        name = f"waiver of {waiver.what} in {waiver.module} of {unit}: {waiver.text}"
        if seen := [point for point in found if counts[point] and point.what]:
            raise Failure(f"{name} matches what was seen: line {seen[0].line} of "
                          f"{seen[0].module or 'the unit'}")
        if not any(point.what for point in found):
            raise Failure(f"{name} matches nothing")
        waived |= {point: waiver for point in found if not counts[point]}
    prove(chosen, verilog)
    return waived


def prove(table: Iterable[Waiver], verilog: str) -> None:
    """Proves by induction from the reset what waivers say is always true.

    Parameters
    ----------
    table : iterable of Waiver
    verilog : str
        As `apply` takes it.

    Raises
    ------
    Failure
        If something cannot be proven.
    """
    texts, _ = hierarchy(verilog)
    whole: dict[str, list[str]] = {}
    for waiver in table:
        if not waiver.always:
            continue
        modules = [name for name in texts
                   if re.fullmatch(waiver.module, name.removeprefix("unit").removeprefix("_"))]
        for module in modules:
            if waiver.inside:
                whole.setdefault(module, []).append(waiver.always)
            else:
                _induction(verilog, module, {module: [waiver.always]}, alone=True)
    if whole:
        _induction(verilog, "unit", whole, alone=False)


def _induction(verilog, top, claims, *, alone):
    """Proves claims by module, in all instances below a top module.

    Of a module alone, what its submodules give is free. A claim begins to hold with the first
    reset, before which registers hold anything.
    """
    for module, expressions in claims.items():
        ports = re.search(rf"^module {module} \((.*?)\);", verilog, re.M | re.S)[1]
        clocked = re.search(r"\brst\b", ports) is not None
        text = ("  reg was_reset = 0;\n"
                "  always @(posedge clk) if (rst) was_reset <= 1;\n") * clocked
        text += "".join(f"  always @* {'if (was_reset) ' * clocked}assert ({expression});\n"
                        for expression in expressions)
        verilog = re.sub(rf"(^module {module} \(.*?)^endmodule",
                         lambda found, text=text: found[1] + text + "endmodule", verilog,
                         count=1, flags=re.M | re.S)
    method = "-tempinduct -seq 1 -maxsteps 4 " if "posedge clk" in verilog else ""
    whole = "" if alone else "flatten\n"
    free = "-ignore_unknown_cells " if alone else ""
    try:
        yosys.run(f"read_verilog -formal unit.v\nhierarchy -top {top}\ncd {top}\nproc\n{whole}"
                  "memory_map\nopt\nchformal -lower\nopt\n"
                  f"sat -verify {free}{method}-prove-asserts\n", inputs={"unit.v": verilog})
    except yosys.ToolError as error:
        raise Failure(f"what a waiver says of {', '.join(claims)} is not proven: {error}") from None
