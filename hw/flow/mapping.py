# SPDX-License-Identifier: BSD-2-Clause
"""Maps units onto a cell library with Yosys, for area and for delay."""

import json
import re
from collections import Counter

from ..tools import yosys
from ..tools.yosys import ToolError
from ..verilog.emit import verilog
from . import timing
from .partition import partition

# What is measured is the Verilog that is delivered. `proc` comes before all else: `opt` before it
# would delete logic.
COMMON = """\
read_verilog unit.v
{blackboxes}{kept}proc
synth -flatten -top {top}
dfflibmap -liberty cells.lib
opt
delete t:$scopeinfo
"""

# With several modules, ABC runs on one after the other.
AREA = """\
abc -liberty cells.lib
"""

# What Yosys' default script does, with another mapper in the place of &nf.
AMAP = """\
abc -liberty cells.lib -script +strash;&get,-n;&fraig,-x;&put;scorr;dc2;dretime;strash;&get,-n;\
&dch,-f;&put;amap,-m
"""

# Only with a driver and a load does ABC buffer and size; 100 ps is less than any unit takes.
TIMING = """\
abc -liberty cells.lib -constr drive.txt -D 100
"""

# Changes nothing in what is flat already.
FINISH = """\
setattr -mod -unset keep_hierarchy *
flatten
delete t:$scopeinfo
opt_clean
"""

DRIVE = "set_driving_cell {driver}\nset_load {load}\n"


def netlists(name, component, library, *, hierarchical=False):
    """Maps a component as `map_twice` does its Verilog; the memories' pins are ports then."""
    text = verilog(component, name)
    sizes = memory_sizes(text, name)
    modules = map_twice(name, text, partition(text, name) if hierarchical else (), sizes, library)
    for module in modules:
        open_memories(module, sizes)
    return modules


def map_twice(name, text, kept, memories, library, *, amap=False):
    """Maps Verilog for area and for delay.

    Parameters
    ----------
    name : str
        Of the top module.
    text : str
    kept, memories : collection of str
        As of `common_script`.
    library : Library
    amap : bool
        Whether area is that of ABC's ``amap``, which takes less of it than what Yosys runs.

    Returns
    -------
    area, timed : dict
        Modules of Yosys' ``write_json``, flat.
    """
    inputs = {"unit.v": text, "cells.lib": library.path, "drive.txt": _drive(library)}
    _, files = yosys.run(script(name, kept, memories, amap=amap), inputs=inputs,
                         outputs=["area.json", "timed.json"])
    return tuple(json.loads(text)["modules"][name] for text in files.values())


def script(name, kept, memories, *, amap=False):
    """All that Yosys does for a unit; parameters as of `map_twice`."""
    return (common_script(name, kept, memories) + "design -save common\n"
            + (AMAP if amap else AREA) + FINISH
            + "write_json area.json\ndesign -load common\n" + TIMING + FINISH
            + "write_json timed.json\n")


def common_script(name, kept, memories):
    """What comes before any mapping.

    Parameters
    ----------
    name : str
        Of the top module.
    kept : collection of str
        Modules that are mapped by themselves; all others become part of those that hold them.
    memories : collection of str
        Modules that stay as they are.

    Returns
    -------
    str
    """
    return COMMON.format(
        top=name, blackboxes="".join(f"blackbox {kind}\n" for kind in memories),
        kept="".join(f"setattr -mod -set keep_hierarchy 1 {kind}\n" for kind in kept))


def scripts(library, *, amap=False):
    """The scripts of all units by what they map for, with places for a unit's name and options."""
    return {"area": COMMON + (AMAP if amap else AREA) + FINISH,
            "timing": COMMON + TIMING + FINISH, "drive.txt": _drive(library)}


def _drive(library):
    """Driver and load that ABC sizes for."""
    return DRIVE.format(driver=library.driver, load=timing.OUTPUT_LOAD)


def memory_sizes(text, name):
    """Bits of each module that holds a memory, which must hold nothing else."""
    sizes = {}
    for module in re.split(r"^(?=module )", text, flags=re.M)[1:]:
        found = re.findall(r"^  reg \[(\d+):0\] \w+ \[0:(\d+)\];$", module, flags=re.M)
        if not found:
            continue
        kind = re.match(r"module (\w+)", module)[1]
        # What remains without declarations, names for names and the two clocked blocks is logic.
        rest = re.sub(_MEMORY_ALONE, "", module, flags=re.M | re.X)
        if kind == name or re.search(r"\w", rest):
            raise ToolError(f"{kind} holds a memory, which must be in a module of its own "
                            "below the top")
        sizes[kind] = sum((int(high) + 1) * (int(last) + 1) for high, last in found)
    return sizes


_MEMORY_ALONE = r"""
    ^ (?: module .* | endmodule | `line .* | [ ]+end | \s+ wire[ ]unused .*
    | [ ]+ (?: input | output | wire | reg ) [ ] [^=]*;
    | [ ]+ assign [ ] \w+ [ ] = [ ] \w+;
    | [ ]+ always [ ] @\(posedge[ ]clk\) [ ] begin
    | [ ]+ if [ ] \(\w+\) (?: [ ] begin )?
    | [ ]+ \w+ \[\w+\] [ ] <= [ ] \w+;
    | [ ]+ \w+ [ ] <= [ ] \w+ \[\w+\];
    ) $
"""


def open_memories(module, memories):
    """Replaces the memories of a flat netlist by ports; returns their number by module.

    The clock and the reset, which a memory does not need, end here.
    """
    found = Counter()
    for name, cell in [*module["cells"].items()]:
        if cell["type"] not in memories:
            continue
        found[cell["type"]] += 1
        del module["cells"][name]
        for pin, bits in cell["connections"].items():
            if pin not in ("clk", "rst"):
                given = cell["port_directions"][pin] == "output"
                port = {"direction": "input" if given else "output", "bits": bits}
                module["ports"][f"{name}.{pin}"] = port
                module["netnames"][f"{name}.{pin}"] = {"hide_name": 0, "bits": bits,
                                                       "attributes": {}}
    return found


def count_cells(module, library):
    """Cells by type, their area, the flip-flops' area and number; refuses all that is unmapped."""
    cells = Counter(cell["type"] for cell in module["cells"].values())
    for kind in cells:
        if kind not in library.cells:
            raise ToolError(f"Yosys left {kind}, which is not a cell of {library.name}")
        if library.cells[kind].latch:
            raise ToolError(f"the unit has a latch, {kind}")
    area = {kind: number * library.cells[kind].area for kind, number in cells.items()}
    registers = [kind for kind in cells if library.cells[kind].flip_flop]
    return (cells, sum(area.values()), sum(area[kind] for kind in registers),
            sum(cells[kind] for kind in registers))
