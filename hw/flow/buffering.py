# SPDX-License-Identifier: BSD-2-Clause
"""Buffers for the nets between modules that were mapped one by one."""

from typing import Any

from .liberty import Library

FANOUT = 32
"""Largest load of a net, in inputs of the buffer."""


def buffer_nets(module: dict[str, Any], library: Library) -> int:
    """Puts trees of buffers behind the nets of a mapped netlist whose load is too large.

    The readers of such a net are divided, in their order, into equal loads, each behind a buffer
    of its own, until the net's load is at most ``FANOUT`` inputs of the buffer. The buffer is the
    library's ``driver``. Clocks are ideal and get no buffers.

    Parameters
    ----------
    module : dict
        A module of Yosys' ``write_json``, flat and of the library's cells only; it is changed.
    library : Library

    Returns
    -------
    int
        Number of buffers added.
    """
    kind = library.driver
    (source,), (target,) = library.cells[kind].inputs, library.cells[kind].functions
    own = max(library.cells[kind].inputs[source])
    limit = FANOUT * own
    readers = _readers(module, library)
    fresh = 1 + max((bit for net in module["netnames"].values() for bit in net["bits"]
                     if isinstance(bit, int)), default=1)
    added = 0
    for net, pins in readers.items():
        load = sum(capacitance for capacitance, *_ in pins)
        while load > limit and len(pins) > 1:
            # At most one buffer for two readers, so that the tree ends.
            share = load / min(-(-load // limit), len(pins) // 2)
            buffers: list[tuple] = []
            passed = 0.0
            for capacitance, connections, pin in pins:
                # A reader whose load begins in the next share gets the next buffer.
                if passed >= len(buffers) * share:
                    below = {source: [net], target: [fresh + added]}
                    module["cells"][f"fanout{added}"] = {
                        "hide_name": 1, "type": kind, "parameters": {}, "attributes": {},
                        "port_directions": {source: "input", target: "output"},
                        "connections": below}
                    buffers.append((own, below, source))
                    added += 1
                connections[pin] = below[target]
                passed += capacitance
            pins, load = buffers, len(buffers) * own
    return added


def _readers(module, library):
    """Input pins on each net other than a clock: capacitance, the cell's connections, the pin."""
    readers = {}
    for cell in module["cells"].values():
        kind, connections = library.cells[cell["type"]], cell["connections"]
        clocks = {arc.related for arc in kind.arcs if arc.kind == "rising_edge"}
        for pin in kind.inputs:
            net = connections.get(pin, ["x"])[0]
            if isinstance(net, int) and pin not in clocks:
                readers.setdefault(net, []).append((max(kind.inputs[pin]), connections, pin))
    return readers
