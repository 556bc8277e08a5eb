# SPDX-License-Identifier: BSD-2-Clause
"""Measures area, timing and power of units.

Every unit is mapped twice onto the cell library, for area and for delay, and the second netlist
is timed by `hw.flow.timing`.
"""

import math
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from .. import registry
from ..tools.yosys import ToolError
from ..verilog.emit import verilog, versions
from . import emitted, mapping, timing
from .buffering import buffer_nets
from .liberty import Library
from .partition import partition


def measure(name: str, settings: Sequence[str], library: Library, *, flatten: bool = False,
            amap: bool = False, inspect: Callable[..., dict[str, Any]] | None = None,
            fresh: set[Path] | None = None) -> dict[str, Any]:
    """Maps and times a unit of the registry.

    Parameters
    ----------
    name : str
        Of the unit in the registry.
    settings : sequence of str
        As in `registry.parameters`.
    library : Library
    flatten : bool
        Whether to map the unit as a whole even if the registry says otherwise.
    amap : bool
        As in `hw.flow.mapping.map_twice`.
    inspect : callable, optional
        As in `synthesize`, but called with the unit's name and settings before the rest.
    fresh : set of Path, optional
        As in `hw.tools.cache.forget`, for the unit's Verilog and netlists in the cache.

    Returns
    -------
    dict
        ``parameters``, ``tiles`` (their number, or None) and ``area_per_tile_um2``, then the
        entries that `synthesize` returns.

    Raises
    ------
    ValueError
        If the unit has not all of the settings.
    ToolError
        As in `synthesize`.
    """
    unit, chosen = registry.UNITS[name], registry.parameters(name, settings)
    result = _synthesize(name, lambda: emitted.emitted(name, settings, fresh=fresh),
                         library, fresh=fresh,
                         hierarchical=unit.hierarchical and not flatten, amap=amap,
                         inspect=inspect and partial(inspect, name, settings))
    tiles = unit.tiles and unit.tiles(**chosen)
    return {
        "parameters": {key: value if isinstance(value, int) else str(value)
                       for key, value in chosen.items()},
        "tiles": tiles,
        "area_per_tile_um2": tiles and _round_area(result["area_um2"] / tiles),
        **result,
    }


def synthesize(name: str, component: wiring.Component, library: Library, *,
               hierarchical: bool = False, amap: bool = False,
               inspect: Callable[..., dict[str, Any]] | None = None) -> dict[str, Any]:
    """Maps a component onto a library, for area and for delay, and times it.

    Parameters
    ----------
    name : str
        Of the top module.
    component : Component
    library : Library
    hierarchical : bool
        Whether modules are mapped by themselves, for units too large to be mapped as a whole;
        `hw.flow.partition.partition` chooses them. Nothing is then shared or sized across them; in
        the netlist mapped for delay, `hw.flow.buffering.buffer_nets` buffers the nets that many
        of them read.
    amap : bool
        As in `hw.flow.mapping.map_twice`.
    inspect : callable, optional
        Called with the netlist mapped for delay and the library. The entry ``power`` of the
        result is what it returns.

    Returns
    -------
    dict
        Can be written as JSON. Areas are in um2, delays in ns. Delays and paths come from the
        netlist mapped for delay; cells and their area from the netlist mapped for area.

        ``delay_ns`` is the smallest clock period: the slowest path from register to register with
        clock-to-output delay and setup. A unit without such a path has the delay of its slowest
        path here; ``path_class`` is the kind of that path. ``io_delay_ns`` is the slowest path from
        or to a port, and ``fmax_io_mhz`` the clock with ideal registers on all ports.

        ``hold_slack_ns`` is that of the fastest path from register to register, None without one.
        ``violations`` are the pins beyond the library's ``max_capacitance`` and ``max_transition``.
        If the library has other corners, ``corners`` has these and the delays for each of them.

        Memories are left out: ``memory_bits`` counts them, ``memories`` is the number of modules
        that hold them, and their pins are ports of the unit.

    Raises
    ------
    ToolError
        If Yosys fails or leaves a latch or anything that is not a cell of the library, or a
        module holds logic beside a memory.
    """
    return _synthesize(name, lambda: verilog(component, name), library, hierarchical=hierarchical,
                       amap=amap, inspect=inspect)


def _synthesize(name, emit, library, *, hierarchical, amap, inspect, fresh=None):
    """Does what `synthesize` does, with the Verilog that a function emits."""
    start = time.monotonic()
    try:
        text = emit()
        sizes = mapping.memory_sizes(text, name)
        kept = partition(text, name) if hierarchical else ()
        small, timed = mapping.map_twice(name, text, kept, sizes, library, amap=amap, fresh=fresh)
        macros = mapping.open_memories(small, sizes)
        mapping.open_memories(timed, sizes)
        cells, area, sequential, registers = mapping.count_cells(small, library)
        buffers = buffer_nets(timed, library) if hierarchical else 0
        area_timed = mapping.count_cells(timed, library)[1]
        found = timing.examine(timed, library)
        paths = found.paths
        corners = {each.corner: timing.examine(timed, each) for each in library.corners}
        elapsed = time.monotonic() - start
        inspected = {"power": inspect(timed, library)} if inspect else {}
    except ToolError as error:
        raise ToolError(f"{name}: {error}") from None
    period, ports = timing.unit_delay(paths)
    worst = max(paths.values(), key=lambda path: path.delay_ns, default=None)
    return {
        "hierarchical": hierarchical,
        "script": mapping.script(name, kept, sizes, amap=amap),
        "memories": sum(macros.values()),
        "memory_bits": sum(number * sizes[kind] for kind, number in macros.items()),
        "cells": sum(cells.values()),
        "area_um2": _round_area(area),
        "sequential_area_um2": _round_area(sequential),
        "flip_flops": registers,
        "area_timed_um2": _round_area(area_timed),
        "fanout_buffers": buffers,
        "delay_ns": _round(period and period.delay_ns),
        "fmax_mhz": period and round(1000 / period.delay_ns, 1),
        "path_class": period and period.kind,
        "startpoint": period and period.startpoint,
        "endpoint": period and period.endpoint,
        "io_delay_ns": _round(ports and ports.delay_ns),
        "fmax_io_mhz": worst and round(1000 / worst.delay_ns, 1),
        "path": _steps(period) if period else [],
        "paths": {kind: {"delay_ns": _round(path.delay_ns), "startpoint": path.startpoint,
                         "endpoint": path.endpoint} for kind, path in paths.items()},
        "hold_slack_ns": _round(found.hold_slack_ns),
        "violations": [vars(one) for one in found.violations],
        **({"corners": {library.corner: _corner(found)}
            | {name: _corner(each) for name, each in corners.items()}} if corners else {}),
        "cells_by_type": dict(sorted(cells.items())),
        "synthesis_s": round(elapsed, 1),
        **inspected,
    }


def describe(library: Library, *, amap: bool = False) -> dict[str, Any]:
    """Describes what the figures depend on: library, versions and scripts.

    Parameters
    ----------
    library : Library
    amap : bool
        As in `hw.flow.mapping.map_twice`.

    Returns
    -------
    dict
        ``library``, ``versions`` and ``script``, without any path of this machine. The scripts
        have placeholders for a unit's name and options; the result of `measure` has the script
        with those of the unit.
    """
    return {
        "library": {"name": library.name, "sha256": library.sha256, "driver": library.driver,
                    "output_load_ff": timing.OUTPUT_LOAD,
                    **({"files": {source.path.name: source.sha256 for source in library.sources}}
                       if len(library.sources) > 1 else {}),
                    **({"wire_load": library.wire_load} if library.wire_load else {}),
                    **({"corners": {each.corner: each.sha256 for each in library.corners}}
                       if library.corners else {}),
                    **({"left_out": library.left_out} if library.left_out else {})},
        "versions": {**versions(), "numpy": metadata.version("numpy"),
                     "python": platform.python_version()},
        "script": mapping.scripts(library, amap=amap),
    }


def _corner(found):
    """Figures of a corner, as in the result of `synthesize`."""
    period, ports = timing.unit_delay(found.paths)
    return {"delay_ns": _round(period and period.delay_ns),
            "io_delay_ns": _round(ports and ports.delay_ns),
            "hold_slack_ns": _round(found.hold_slack_ns),
            "violations": [vars(one) for one in found.violations]}


def _steps(path):
    return [step | {"arrival_ns": _round(step["arrival_ns"])} for step in path.steps]


def _round_area(area):
    """Rounds to 0.001 um2, and an area below 100 um2 to five digits."""
    return round(area, max(3, 5 - math.ceil(math.log10(area))) if area > 0 else 3)


def _round(delay):
    return None if delay is None else round(delay, 5)
