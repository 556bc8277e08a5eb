# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Timing diagrams of the units, recorded while they are simulated.

A recording has the values of every port in every cycle. What leaves the unit is compared with its
golden reference, so that a diagram shows what the unit does or the build fails.
"""

import json
from dataclasses import dataclass, field

import numpy as np
from amaranth import Shape, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from golden import quantize_activations, quantize_weights
from golden.accelerator import planner
from golden.accelerator.accelerator import execute, streams
from hw import registry
from hw.accelerator.config import configuration
from hw.bus.axi_lite import register_map
from hw.tools.packing import from_words, to_integers, to_words
from sim import mismatches

OFFERED = registry.UNITS | registry.ASSEMBLIES

QUIET = 4
"""Cycles without any change that are drawn as they are; of more, all but two are left out."""


@dataclass(kw_only=True)
class Recording:
    """Values of ports over cycles.

    Attributes
    ----------
    streams : dict of str to dict
        For each stream ``valid`` and ``ready``, a list of bits, and ``transfer``, for each cycle
        the index of the transfer whose payload is offered.
    plain : dict of str to list of int
        Value of each other port.
    sources : set of str
        Streams that go into the component.
    """

    streams: dict = field(default_factory=dict)
    plain: dict = field(default_factory=dict)
    sources: set = field(default_factory=set)


def shape(port):
    """Shape of a port's payload."""
    return port.signature.members["payload"].shape if port.is_signature else port.shape


def unsigned(value):
    """The bits of a signal, whatever its shape."""
    return Value.cast(value).as_unsigned()


def record(component, inputs, counts, pauses, *, limit=2000):
    """Simulates a component and records its streams.

    Parameters
    ----------
    component : wiring.Component
        Every port of it is a stream.
    inputs : dict of str to array or dict
        Rows of every input, as `sim.run` takes them.
    counts : dict of str to int
        Transfers of each output; the recording ends with the last of them.
    pauses : dict of str to set of int
        Cycles in which an output is not ready, or an input has nothing new to offer.
    limit : int
        Cycles after which to give up.

    Returns
    -------
    Recording
    dict of str to array or dict
        Rows of every output, in the form of the inputs.
    """
    members = component.signature.members
    rows = {name: to_integers(to_words(shape(members[name]), value, name))
            for name, value in inputs.items()}
    recording = Recording(sources=set(rows), streams={
        name: {"valid": [], "ready": [], "transfer": []} for name, member in members.items()
        if member.is_signature})
    received = {name: [] for name in counts}

    async def bench(ctx):
        given = dict.fromkeys(rows, 0)
        offered = dict.fromkeys(rows, False)
        for cycle in range(limit):
            for name, values in rows.items():
                port = getattr(component, name)
                begins = given[name] < len(values) and cycle not in pauses.get(name, ())
                offered[name] = offered[name] or begins
                ctx.set(port.valid, offered[name])
                if offered[name]:
                    ctx.set(unsigned(port.payload), values[given[name]])
            for name in counts:
                ctx.set(getattr(component, name).ready, cycle not in pauses.get(name, ()))
            for name, seen in recording.streams.items():
                port = getattr(component, name)
                valid, ready = ctx.get(port.valid), ctx.get(port.ready)
                seen["valid"].append(valid)
                seen["ready"].append(ready)
                seen["transfer"].append(given.get(name, len(received.get(name, ()))))
                if valid and ready and name in rows:
                    given[name] += 1
                    offered[name] = False
                elif valid and ready:
                    received[name].append(ctx.get(unsigned(port.payload)))
            await ctx.tick()
            if all(len(received[name]) >= count for name, count in counts.items()):
                return
        raise RuntimeError(f"outputs are {({n: len(r) for n, r in received.items()})} "
                           f"after {limit} cycles, not {counts}")

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return recording, {name: rows_of(shape(members[name]), values)
                       for name, values in received.items()}


def record_plain(component, inputs, pauses):
    """Simulates a component without streams: a row of the inputs per cycle.

    With a pipeline, ``enable`` is 0 in the cycles of ``pauses["enable"]``.
    """
    members = component.signature.members
    rows = {name: to_integers(to_words(shape(members[name]), value, name))
            for name, value in inputs.items()}
    count = len(next(iter(rows.values())))
    stopped = pauses.get("enable", ())
    recording = Recording(plain={name: [] for name in members})
    received = {name: [] for name, port in members.items() if port.flow == wiring.Out}

    async def bench(ctx):
        moved = cycle = 0
        while moved < count + component.latency:
            for name, values in rows.items():
                ctx.set(unsigned(getattr(component, name)), values[min(moved, count - 1)])
            enabled = cycle not in stopped
            if "enable" in members:
                ctx.set(component.enable, enabled)
            if not component.latency:
                await ctx.delay(1e-6)
            for name, seen in recording.plain.items():
                known = name not in received or moved >= component.latency
                seen.append(ctx.get(unsigned(getattr(component, name))) if known else None)
            if enabled:
                if moved >= component.latency:
                    for name, values in received.items():
                        values.append(recording.plain[name][-1])
                moved += 1
            if component.latency:
                await ctx.tick()
            cycle += 1

    simulator = Simulator(component)
    if component.latency:
        simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return recording, {name: rows_of(shape(members[name]), values)
                       for name, values in received.items()}


def rows_of(shape, values):
    """Rows of a port in the form of `sim.run`, from integers."""
    words = -(-Shape.cast(shape).width // 32)
    return from_words(shape, np.array([[value >> 32 * n & 0xFFFFFFFF for n in range(words)]
                                       for value in values], np.uint32).reshape(-1, words))


def wavejson(name, settings=(), *, transfers=4, seed=1, pauses=None):
    """Simulates a unit and gives its timing diagram.

    Parameters
    ----------
    name : str
        Unit or assembly of the registry.
    settings : iterable of str
        Texts of the form "parameter=value".
    transfers : int
        Rows of random stimuli.
    seed : int
        Of the stimuli.
    pauses : dict of str to set of int
        See `record` and `record_plain`.

    Returns
    -------
    dict
        WaveJSON.

    Raises
    ------
    RuntimeError
        If the outputs are not those of the golden reference, or do not come.
    """
    component = registry.build(name, settings, units=OFFERED)
    chosen = registry.parameters(name, settings, units=OFFERED)
    pauses = pauses or {}
    if name == "axi_accelerator":
        return draw(component, bus(component, pauses))
    unit = registry.UNITS[name]
    if name == "accelerator":
        inputs = product(chosen["config"])
    else:
        inputs = unit.stimuli(np.random.default_rng(seed), transfers, **chosen)
    expected = unit.reference(inputs, **chosen)
    if all(port.is_signature for port in component.signature.members.values()):
        counts = {port: len(next(iter(rows.values())) if isinstance(rows, dict) else rows)
                  for port, rows in expected.items()}
        recording, outputs = record(component, inputs, counts, pauses)
    else:
        recording, outputs = record_plain(component, inputs, pauses)
    if mismatches(outputs, expected).any():
        raise RuntimeError(f"{name} must do what golden does, and does not")
    return draw(component, recording)


def product(config):
    """A command for an accelerator, M x K x N = 2 x 64 x 4, and its operands."""
    machine = planner.CONFIGS[config]
    rng = np.random.default_rng(1)
    command = {"m": 2, "k": 64, "n": 4, "source": planner.RECORDS, "result": planner.VALUES_OUT,
               "w": quantize_weights(rng.standard_normal((4, 64), dtype=np.float32)),
               "a": quantize_activations(rng.standard_normal((2, 64), dtype=np.float32))}
    return streams(machine, [command], execute(machine, [command]))[0]


def bus(component, pauses):
    """Recording of an AXI4-Lite bus: M is written, then STATUS is read, then ID written."""
    offsets = {register.name: register.offset
               for register in register_map(configuration(component.config)).registers}
    writes = [offsets["M"], offsets["K"], offsets["ID"]]
    inputs = {"i_aw": {"addr": np.array(writes), "prot": np.zeros(3, int)},
              "i_w": {"data": np.array([2, 64, 1]), "strb": np.full(3, 15)},
              "i_ar": {"addr": np.array([offsets["STATUS"], offsets["M"]]),
                       "prot": np.zeros(2, int)}}
    recording, outputs = record(component, inputs, {"o_b": 3, "o_r": 2}, pauses)
    okay, error = 0, 2
    if (outputs["o_b"]["resp"].tolist() != [okay, okay, error]
            or outputs["o_r"]["data"].tolist() != [4, 2]):
        raise RuntimeError(f"axi_accelerator must write M and K, refuse ID and read 4 and 2, "
                           f"and gives {outputs}")
    recording.streams = {name: recording.streams[name]
                         for name in ("i_aw", "i_w", "o_b", "i_ar", "o_r")}
    return recording


# Drawing

def draw(component, recording):
    """A recording as WaveJSON; long times in which nothing changes are left out."""
    rows = []
    clocked = bool(component.latency)
    for name, seen in recording.streams.items():
        rows.append((name, [
            ("valid", seen["valid"]),
            ("ready", seen["ready"]),
            ("payload", [str(index) if valid else None
                         for valid, index in zip(seen["valid"], seen["transfer"], strict=True)]),
        ]))
    plain = []
    members = component.signature.members
    for name, values in recording.plain.items():
        plain.append((name, [None if value is None else value if name == "enable"
                             else text(shape(members[name]), value) for value in values]))
    length = len((rows[0][1] if rows else plain)[0][1])
    kept, gaps = shorten([values for _, group in rows for _, values in group]
                         + [values for _, values in plain], length)

    def wave(name, values):
        return {"name": name, **encode([values[cycle] for cycle in kept], gaps,
                                       coloured=name == "payload")}

    signal = []
    if clocked:
        signal.append({"name": "clk", "wave": "".join(
            "|" if n in gaps else "p" if not n else "." for n in range(len(kept)))})
    signal.append({"name": "cycle" if clocked else "row", "wave": "".join(
        "|" if n in gaps else "=" for n in range(len(kept))),
        "data": [str(cycle) for n, cycle in enumerate(kept) if n not in gaps]})
    signal += [wave(name, values) for name, values in plain]
    for name, group in rows:
        signal += [{}, [name, *(wave(label, values) for label, values in group)]]
    # A cycle is 40 wide for each unit of the scale; a character takes 8.
    longest = max((len(label) for row in signal if isinstance(row, dict)
                   for label in row.get("data", ())),
                  default=1)
    return {"signal": signal, "config": {"hscale": 1 if longest <= 4 else 2}}


def text(shape, value):
    """A value of a port: signed and narrow ones in decimal, others in hexadecimal."""
    width = Shape.cast(shape).width
    if Shape.cast(shape).signed:
        return str(value - (value >> (width - 1) << width))
    return str(value) if width <= 5 else f"{value:0{-(-width // 4)}x}"


def shorten(signals, length):
    """Cycles to draw, and which of their places stand for a gap."""
    kept, gaps, start = [], set(), 0
    changes = [cycle for cycle in range(1, length)
               if any(values[cycle] != values[cycle - 1] for values in signals)]
    for end in [*changes, length]:
        if end - start > QUIET:
            gaps.add(len(kept) + 1)
            kept += [start, start + 1, end - 1]
        else:
            kept += range(start, end)
        start = end
    return kept, gaps


def encode(values, gaps, *, coloured=False):
    """Values over cycles as a wave of WaveJSON.

    None is drawn as unknown, text in a box, numbers as levels. Where ``coloured``, texts are the
    indices of transfers, and each has a colour, the same on every stream.
    """
    wave, data, before = [], [], object()
    for place, value in enumerate(values):
        if place in gaps:
            wave.append("|")
        elif value == before:
            wave.append(".")
        elif value is None:
            wave.append("x")
        elif isinstance(value, str):
            wave.append("345679"[int(value) % 6] if coloured else "=")
            data.append(value)
        else:
            wave.append(str(int(value)))
        before = value
    return {"wave": "".join(wave)} | ({"data": data} if data else {})


def svg(wave):
    """A WaveJSON as SVG."""
    import wavedrom  # Of the extra docs; recordings are made without it.

    return wavedrom.render(json.dumps(wave)).tostring()
