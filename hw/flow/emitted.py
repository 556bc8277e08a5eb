# SPDX-License-Identifier: BSD-2-Clause
"""Verilog of the registry's units, kept in the user's cache: elaboration takes seconds."""

import threading
from pathlib import Path

from .. import registry
from ..tools import cache
from ..tools.errors import ToolError
from ..verilog.emit import verilog, versions

DESIGN = ("hw/lib/*.py", "hw/units/*.py", "hw/accelerator/*.py", "hw/bus/*.py", "hw/verilog/*.py")
"""Sources that a component's Verilog is made from."""


def emitted(name, settings=(), *, fresh=None):
    """Verilog of a unit, from the cache where its sources are the same as then.

    A component from elsewhere, whose sources are not known, is emitted each time.

    Parameters
    ----------
    name : str
    settings : iterable of str
        As in `registry.parameters`.
    fresh : set of Path, optional
        As in `hw.tools.cache.forget`.

    Returns
    -------
    str
        Up to its header as `hw.verilog.emit.verilog` gives it.
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


def keep(name, text):
    """Keeps Verilog of a unit with its default parameters that has just been emitted."""
    path = _path(name, registry.UNITS[name], registry.parameters(name))
    cache.store(path, without_header(text))


def _path(name, unit, chosen):
    return cache.folder() / cache.digest(
        "verilog", name, unit.component.__qualname__, str(chosen), str(versions()),
        *sources(files(*DESIGN))) / "unit.v"


def without_header(text):
    """Verilog from its first module on: the header names parameters and versions."""
    return text[text.index("\nmodule ") + 1:]


def files(*patterns):
    """The package's files of these patterns, in a fixed order.

    Raises
    ------
    ToolError
        If a pattern finds nothing, so that a figure would depend on less than it should.
    """
    root = Path(__file__).parents[2]
    found = [sorted(path for path in root.glob(pattern) if path.is_file()) for pattern in patterns]
    for pattern, paths in zip(patterns, found, strict=True):
        if not paths:
            raise ToolError(f"no source file matches {pattern}")
    return [path for paths in found for path in paths]


def sources(paths):
    """Texts of source files."""
    return [path.read_text(encoding="utf-8") for path in paths]
