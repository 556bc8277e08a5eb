# SPDX-License-Identifier: BSD-2-Clause
"""Measures everything that the report shows."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from .. import registry
from ..flow import hierarchy_area, measurement, power
from ..flow.liberty import Library
from ..tools import cache as kept
from ..tools.errors import ToolError
from ..tools.progress import progress
from . import comparison, sweep
from .sweep import Point

BROKEN_DOWN = (Point("mac_array", ("columns=4",)), Point("group_mac", ()),
               Point("quantization_engine", ()), Point("accelerator", ("config=lite",)))
"""Units whose area is broken down by submodule."""

COLUMNS = "4"
"""Columns of the arrays that the comparison of formats builds."""

_METADATA: dict[str, tuple[str, ...]] = {"M2XFP": (), "MXFP4": ("metadata=False",)}


def results(library: Library) -> dict[str, Any]:
    """Measures everything that the page shows and the cache does not have.

    Parameters
    ----------
    library : Library

    Returns
    -------
    dict
        ``measured``, results of `hw.flow.measurement.measure` by Point; ``parts``, results of
        `hw.flow.hierarchy_area.areas` by Point; and the entries of
        `hw.flow.measurement.describe`.

    Raises
    ------
    Interrupted, KeyboardInterrupt
        If the user stops it.
    ToolError
        If a point fails.
    """
    estimated = unique([*(point(name) for name in power.UNITS),
                         *(point(name, settings)
                           for _, _, name, settings, _ in comparison.format_units(COLUMNS))])
    others = unique([*(point(name) for name in registry.UNITS), *BROKEN_DOWN, *array_points(),
                      *(chosen for unit in deep_units() for _, _, chosen in depths(unit))])
    measured: dict[Point, dict] = {}
    for points, with_power in ((estimated, True), ([p for p in others if p not in estimated],
                                                   False)):
        found, failed = sweep.run(points, library, power=with_power)
        for failure in failed.values():
            raise ToolError(failure)
        measured |= found
    return {"measured": measured, "parts": _break_down(library), **measurement.describe(library)}


def unique(points: Sequence[Point]) -> list[Point]:
    """Points in their order, each once."""
    return list(dict.fromkeys(points))


def point(name: str, settings: Sequence[str] = ()) -> Point:
    """A unit with a choice of parameters, without the settings that are defaults."""
    defaults = registry.parameters(name)
    return Point(name, tuple(setting for setting in settings
                             if registry.parameters(name, [setting]) != defaults))


def deep_units() -> list[str]:
    """Units whose pipeline depth can be chosen."""
    return [name for name, unit in registry.UNITS.items() if "depth" in unit.parameters]


def depths(name: str) -> list[tuple[str, int, Point]]:
    """Format, depth and point for every depth and format that a unit offers."""
    offered = registry.UNITS[name].parameters
    formats = (_METADATA if "metadata" in offered else
               {"NVFP4" if name.startswith("nvfp4") else "M2XFP": ()})
    return [(format, depth, point(name, (*settings, f"depth={depth}")))
            for (format, settings), depth in product(formats.items(), sorted(offered["depth"]))]


def array_points() -> list[Point]:
    """The array with every number of columns that it offers."""
    return [point("mac_array", (f"columns={columns}",))
            for columns in sorted(registry.UNITS["mac_array"].parameters["columns"])]


def _break_down(library: Library) -> dict[Point, dict]:
    parts = {}
    with progress("breakdown", "unit", len(BROKEN_DOWN)) as step:
        for chosen in BROKEN_DOWN:
            key = kept.digest("areas", sweep.key_of(chosen, library, False),
                              *sweep.sources([Path(hierarchy_area.__file__)]))
            path = kept.folder() / key / "areas.json"
            if (text := kept.read(path)) is None:
                component = registry.build(chosen.unit, chosen.settings)
                text = json.dumps(hierarchy_area.areas(chosen.unit, component, library))
                kept.store(path, text)
            parts[chosen] = json.loads(text)
            step(chosen.label)
    return parts
