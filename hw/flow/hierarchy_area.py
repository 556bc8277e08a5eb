"""Which of a unit's submodules takes how much of its area."""

import json

from ..tools import yosys
from ..tools.errors import ToolError
from ..verilog.emit import verilog
from . import mapping


def areas(name, component, library):
    """Maps a unit module by module, for area, and counts what each submodule has.

    Parameters
    ----------
    name : str
    component : Component
    library : Library

    Returns
    -------
    dict of str to dict
        By the names of instances on the way to a submodule, joined by " / " and empty for the unit
        itself: its ``module`` in the Verilog, the number of ``instances`` and their ``area_um2``,
        without the submodules that they have in turn. Instances of one module whose names differ
        only in the number at the end count together; where other modules have such names, too, as
        the first of them and ", ...". All areas together are a little more than
        `hw.flow.measurement.synthesize` gives, which maps small modules as part of larger ones.

    Raises
    ------
    ToolError
        As `hw.flow.measurement.synthesize`.
    """
    try:
        text = verilog(component, name)
        sizes = mapping.memory_sizes(text, name)
        script = (mapping.common_script(name, ["*"], sizes) + mapping.AREA
                  + "write_json modules.json\n" + mapping.FINISH + "write_json flat.json\n")
        _, files = yosys.run(script, inputs={"unit.v": text, "cells.lib": library.path},
                             outputs=["modules.json", "flat.json"])
        modules = json.loads(files["modules.json"])["modules"]
        flat = json.loads(files["flat.json"])["modules"][name]
        mapping.open_memories(flat, sizes)
        mapping.count_cells(flat, library)
    except ToolError as error:
        raise ToolError(f"{name}: {error}") from None
    inside = {kind: {instance: cell["type"] for instance, cell in module["cells"].items()
                     if cell["type"] in modules and cell["type"] not in sizes}
              for kind, module in modules.items()}
    names = {kind: _names(instances) for kind, instances in inside.items()}
    found = {}

    def visit(kind, path):
        part = found.setdefault(path, {"module": kind, "instances": 0, "area_um2": 0.0})
        part["instances"] += 1
        for instance, below in inside[kind].items():
            visit(below, (*path, names[kind][instance]))

    visit(name, ())
    for cell, of in flat["cells"].items():
        path = _submodule(cell, name, inside, names)
        found[path]["area_um2"] += library.cells[of["type"]].area
    return {" / ".join(path): part | {"area_um2": round(part["area_um2"], 3)}
            for path, part in found.items()}


def _names(instances):
    """What each instance counts as, given its module by its name."""
    groups = {}
    for instance, module in instances.items():
        stem = instance.rstrip("0123456789_")
        groups.setdefault(stem, {}).setdefault(module, []).append(instance)
    result = {}
    for stem, by_module in groups.items():
        for members in by_module.values():
            # Where several modules share the name, it is that of the first of each.
            first = min(members, key=lambda name: (len(name), name))
            shared = stem if len(by_module) == 1 else f"{first}, ..."
            result |= {member: shared if len(members) > 1 else member for member in members}
    return result


def _submodule(cell, kind, inside, names):
    """Path of the instance that a cell of a flat netlist comes from."""
    path = ()
    # Yosys puts an instance and a dot before its cells' names, and "$flatten\\" before those that
    # it made up itself.
    while True:
        cell = cell.removeprefix("$flatten").removeprefix("\\")
        instance, dot, rest = cell.partition(".")
        if not dot or instance not in inside[kind]:
            return path
        path, kind, cell = (*path, names[kind][instance]), inside[kind][instance], rest
