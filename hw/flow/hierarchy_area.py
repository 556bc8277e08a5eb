# SPDX-License-Identifier: BSD-2-Clause
"""Area of each submodule of a unit."""

import json
from typing import Any

from amaranth.lib.wiring import Component

from ..tools import yosys
from ..tools.errors import ToolError
from ..verilog.emit import verilog
from . import mapped_library, mapping
from .liberty import Library


def areas(name: str, component: Component, library: Library) -> dict[str, dict[str, Any]]:
    """Maps a unit module by module, for area, and sums up the area of each submodule.

    Parameters
    ----------
    name : str
    component : Component
    library : Library

    Returns
    -------
    dict of str to dict
        By path: the instance names on the way to a submodule, joined by " / "; empty for the unit
        itself. The values have the submodule's ``module`` in the Verilog, the number of
        ``instances`` and their ``area_um2`` together, without their own submodules. Instances of
        one module whose names differ only in the number at the end count together. If other
        modules have such names too, the path has the first name and ", ...". The sum of all
        areas is a little more than `hw.flow.measurement.synthesize` returns, because that
        function maps small modules as part of larger ones.

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
        _, files = yosys.run(script, outputs=["modules.json", "flat.json"], inputs={
            "unit.v": text, "cells.lib": mapped_library.text(library)})
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
    found: dict[tuple[str, ...], dict[str, Any]] = {}

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
    """Name under which each instance is counted, given the instances' modules by name."""
    groups: dict[str, dict[str, list[str]]] = {}
    for instance, module in instances.items():
        stem = instance.rstrip("0123456789_")
        groups.setdefault(stem, {}).setdefault(module, []).append(instance)
    result: dict[str, str] = {}
    for stem, by_module in groups.items():
        for members in by_module.values():
            # If several modules share the stem, each takes the name of its first instance.
            first = min(members, key=lambda name: (len(name), name))
            shared = stem if len(by_module) == 1 else f"{first}, ..."
            result |= {member: shared if len(members) > 1 else member for member in members}
    return result


def _submodule(cell, kind, inside, names):
    """Path of the instance that a cell of a flat netlist comes from."""
    path = ()
    # Yosys puts the instance and a dot before the names of its cells, and "$flatten\\" before names
    # that it has made up.
    while True:
        cell = cell.removeprefix("$flatten").removeprefix("\\")
        instance, dot, rest = cell.partition(".")
        if not dot or instance not in inside[kind]:
            return path
        path, kind, cell = (*path, names[kind][instance]), inside[kind][instance], rest
