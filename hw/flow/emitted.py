# SPDX-License-Identifier: BSD-2-Clause
"""Keeps the Verilog of the registry's units in the user's cache: elaboration takes seconds."""

import threading
from collections.abc import Iterable
from pathlib import Path

from .. import registry
from ..tools import cache
from ..tools.errors import ToolError
from ..verilog.emit import verilog, versions

DESIGN = ("hw/lib/*.py", "hw/units/*.py", "hw/accelerator/*.py", "hw/bus/*.py", "hw/verilog/*.py")
"""Sources that a component's Verilog is made from."""


def emitted(name: str, settings: Iterable[str] = (), *, fresh: set[Path] | None = None) -> str:
    """Returns the Verilog of a unit, from the cache if its sources have not changed.

    A component from outside this project is emitted each time, because its sources are not known.

    Parameters
    ----------
    name : str
        Of the unit in the registry.
    settings : iterable of str
        As in `registry.parameters`.
    fresh : set of Path, optional
        As in `hw.tools.cache.forget`.

    Returns
    -------
    str
        Verilog as `hw.verilog.emit.verilog` emits it, without the header.

    Raises
    ------
    ValueError
        If the unit has not all of the settings.
    """
    unit, chosen = registry.UNITS[name], registry.parameters(name, settings)
    if not unit.component.__module__.startswith("hw."):
        return without_header(verilog(unit.component(**chosen), name))
    path = _path(name, unit, chosen)
    # Amaranth counts its signals, so one thread elaborates at a time.
    with _elaborating:
        cache.forget(path, fresh)
        if (text := cache.read(path)) is None:
            text = without_header(verilog(unit.component(**chosen), name))
            cache.store(path, text)
    return text


_elaborating = threading.Lock()


def keep(name: str, text: str) -> None:
    """Keeps Verilog that was just emitted of a unit with its default parameters.

    Parameters
    ----------
    name : str
        Of the unit in the registry.
    text : str
        Verilog as `hw.verilog.emit.verilog` emits it.
    """
    path = _path(name, registry.UNITS[name], registry.parameters(name))
    cache.store(path, without_header(text))


def _path(name, unit, chosen):
    return cache.folder() / cache.digest(
        "verilog", name, unit.component.__qualname__, str(chosen), str(versions()),
        *sources(files(*DESIGN))) / "unit.v"


def without_header(text: str) -> str:
    """Drops the header of Verilog, which names parameters and versions."""
    return text[text.index("\nmodule ") + 1:]


def files(*patterns: str) -> list[Path]:
    """Finds the project's files that match patterns, in a fixed order.

    Parameters
    ----------
    *patterns : str
        As `pathlib.Path.glob` takes them, from the project's folder.

    Returns
    -------
    list of Path

    Raises
    ------
    ToolError
        If a pattern finds nothing: a figure would then depend on less than it should.
    """
    root = Path(__file__).parents[2]
    found = [sorted(path for path in root.glob(pattern) if path.is_file()) for pattern in patterns]
    for pattern, paths in zip(patterns, found, strict=True):
        if not paths:
            raise ToolError(f"no source file matches {pattern}")
    return [path for paths in found for path in paths]


def sources(paths: Iterable[Path]) -> list[str]:
    """Reads the texts of source files."""
    return [path.read_text(encoding="utf-8") for path in paths]
