# SPDX-License-Identifier: BSD-2-Clause
"""Self-checking testbenches in SystemVerilog, with vectors from the golden model.

A testbench needs neither Python nor this project: it runs in Icarus Verilog (``-g2012``), in
Verilator (``--binary --timing``) and in other simulators of SystemVerilog, in the folder that
holds its vectors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from amaranth import Shape
from amaranth.lib import wiring

from golden import stimuli
from golden.accelerator import planner
from golden.accelerator.accelerator import execute, streams

from .. import registry
from ..tools.packing import length, to_bits, to_integers
from . import testbench_text as text

COUNT = 200
"""Vectors of a unit where the command line does not say how many."""

COMMANDS = 6
"""Commands of an accelerator where the command line does not say how many."""

PATIENCE = 20_000
"""Cycles without a transfer after which a testbench gives up."""


def testbench(component: wiring.Component, unit: str, parameters: Mapping[str, Any],
              description: Mapping[str, Any], count: int | None = None) -> dict[str, str]:
    """Makes the testbench of a unit.

    Streams are driven with pauses at both ends for the first half of their transfers, and without
    any for the second half. Every output is compared with golden's, bit by bit, unknown bits
    included; a payload must stay as it is until it is taken. A unit with an AXI wrapper is tested
    inside the wrapper, the AXI machine through its registers.

    Parameters
    ----------
    component : wiring.Component
    unit : str
        Name in the registry.
    parameters : dict
        From `hw.registry.parameters`.
    description : dict
        Description of the emitted unit, see `hw.generate.describe`.
    count : int, optional
        Vectors, or commands of an accelerator; the default is `COUNT` or `COMMANDS`.

    Returns
    -------
    dict of str to str
        Contents by file name: ``NAME_tb.sv`` and ``NAME_tb_*.hex``.

    Raises
    ------
    ValueError
        If there are no vectors for the unit, or the AXI machine has no AXI wrapper.
    """
    machine = bool(description["registers"])
    accelerator = machine or unit == "accelerator"
    if machine and not description["axi"]:
        raise ValueError(f"--testbench of {unit} needs --axi, as it tests the registers, too")
    if not machine and unit not in registry.UNITS:
        raise ValueError(f"--testbench must have a unit with a golden reference, not {unit!r}")
    if count is None:
        count = COMMANDS if accelerator else COUNT
    rng = np.random.default_rng(list(f"{unit} {count}".encode()))
    commands = None
    if accelerator:
        inputs, expected = _products(rng, count, planner.configuration(parameters["config"]))
        if machine:
            # What the registers carry in place of streams.
            commands = _commands(inputs.pop("i_command"), expected.pop("o_status"))
            expected.pop("o_misframed", None)
    else:
        reference = registry.UNITS[unit]
        inputs = reference.stimuli(rng, count, **parameters)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = reference.reference(inputs, **parameters)
    name = description["unit"]
    vectors = {port: _rows(component, port, values) for port, values in (*inputs.items(),
                                                                        *expected.items())}
    if description["streams"]:
        bench = _streams(description, vectors, commands)
    else:
        bench = text.ports(description, {port: len(rows) for port, rows in vectors.items()},
                           set(inputs))
    files = {f"{name}_tb.sv": _head(description, unit, count) + bench}
    if commands is not None:
        vectors |= {"command": commands}
    widths = {port: _width(component, port) for port in (*inputs, *expected)} | {"command": 128}
    for port, rows in vectors.items():
        digits = -(-widths[port] // 4)
        # A memory has at least one word.
        files[f"{name}_tb_{port}.hex"] = "".join(f"{row:0{digits}x}\n" for row in rows or [0])
    return files


def _products(rng, count, config):
    """Streams of an accelerator for random commands; the second one cannot run."""
    # Until each stream has something to carry, if there are commands enough.
    for _ in range(50):
        commands = stimuli.products(rng, count, config, largest=2**14)
        if count > 1:
            # A product without rows is illegal everywhere.
            commands[1] = {"m": 0, "k": 32, "n": 1, "source": 0, "result": 0}
        with np.errstate(over="ignore", invalid="ignore"):
            inputs, expected = streams(config, commands, execute(config, commands))
        if all(length(rows) for name, rows in (inputs | expected).items()
               if name != "o_misframed"):
            break
    return inputs, expected


def _commands(commands, statuses):
    """Commands of the AXI machine with their statuses, as integers of 128 bits."""
    places = {"m": 0, "k": 40, "n": 80, "source": 120, "result": 122}
    return [status << 124 | sum(int(commands[field][row]) << place
                                for field, place in places.items())
            for row, status in enumerate(statuses.tolist())]


def _member(component, port):
    """Shape of a plain port, or of a stream's payload."""
    member = component.signature.members[port]
    return member.signature.members["payload"].shape if member.is_signature else member.shape


def _width(component, port):
    return Shape.cast(_member(component, port)).width


def _rows(component, port, values):
    """The rows of a port as integers."""
    return to_integers(to_bits(_member(component, port), values, port))


def _head(description, unit, count):
    """The comment at the top of the file."""
    what = "commands" if description["registers"] else "vectors"
    name = description["unit"]
    tools = ", ".join(f"{tool} {version}" for tool, version in description["versions"].items())
    top = description["axi"]["module"] if description["axi"] else name
    return text.HEAD.format(name=name, top=top, count=count, what=what, tools=tools)


def _streams(description, vectors: Mapping[str, Sequence[int]], commands):
    """The testbench of a unit of streams, or of the AXI wrapper around it."""
    axi = description["axi"]
    ends = []
    for number, stream in enumerate(stream for stream in description["streams"]
                                    if stream["name"] in vectors):
        name = stream["name"]
        port = next((port for port in description["ports"] if port["name"] == stream["payload"]),
                    None)
        ends.append({
            "name": name, "direction": stream["direction"], "count": len(vectors[name]),
            "width": port["width"] if port else 0, "valid": stream["valid"],
            "ready": stream["ready"], "payload": stream["payload"],
            "seed": 0x9E3779B9 * (number + 1) % 2**32,
            "fields": (port or {}).get("fields", [])})
    connections = _axi_connections(description, ends) if axi else _connections(description, ends)
    return text.streams(description, ends, connections, commands=len(commands or []),
                        patience=PATIENCE)


def _connections(description, ends):
    """What the ports of the unit are connected to."""
    connections = [(description["clock"]["name"], "clk"),
                   (description["reset"]["name"], _reset(description["reset"]))]
    for end in ends:
        connections += [(end[part], f"{end['name']}_{part}")
                        for part in ("payload", "valid", "ready") if end[part]]
    return connections


def _reset(reset):
    return "reset" if reset["active"] == "high" else "~reset"


def _axi_connections(description, ends):
    """What the ports of the AXI wrapper are connected to; payloads stay those of the unit."""
    axi = description["axi"]
    by_stream = {end["name"]: end for end in ends}
    connections = [(axi["clock"]["name"], "clk"), (axi["reset"]["name"], _reset(axi["reset"]))]
    for interface in axi["interfaces"]:
        if interface["protocol"] != "axi4-stream":
            continue
        end = by_stream[interface["streams"][0]]
        name, prefix, width = interface["name"], end["name"], interface["payload_width"]
        payload = f"{prefix}_payload"
        last = next((field["lsb"] for field in end["fields"]
                     if field["name"] == "last" and field["width"] == 1), None)
        parts = _parts(payload, width, last)
        if interface["tdata_width"] > width:
            fill = interface["tdata_width"] - width
            if end["direction"] == "input":
                parts.insert(0, f"{{{fill}{{1'b0}}}}")
            else:
                parts.insert(0, f"{prefix}_fill")
                end["fill"] = fill
        if interface["tdata_width"]:
            connections.append((f"{name}_tdata", text.joined(parts)))
        if last is not None:
            connections.append((f"{name}_tlast", f"{payload}[{last}]"))
        ports = {port["name"] for port in axi["ports"]}
        connections += [(f"{name}_t{part}", f"{prefix}_{part}") for part in ("valid", "ready")
                        if f"{name}_t{part}" in ports]
        end["ready"] = f"{name}_tready" in ports
        end["valid"] = f"{name}_tvalid" in ports
    known = {port for port, _ in connections}
    # The AXI4-Lite channels and outputs that are no streams have signals of their own names.
    connections += [(port["name"], port["name"])
                    for port in axi["ports"] if port["name"] not in known]
    return connections


def _parts(payload, width, last):
    """The payload without its field ``last``, most significant part first."""
    if last is None:
        return [payload]
    parts = [(width, last + 1), (last - 1, 0)]
    return [f"{payload}[{high}:{low}]" if high > low else f"{payload}[{low}]"
            for high, low in parts if high >= low]
