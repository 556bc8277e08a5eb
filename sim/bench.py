"""Runs a component on arrays, on Amaranth's simulator."""

import random
from contextlib import nullcontext

import numpy as np
from amaranth import Shape, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from .payload import from_bits, from_integers, to_bits, to_integers


class SimulationError(Exception):
    """The component broke the rules of its streams, or stopped."""


class Deadlock(SimulationError):
    """No transfer happened for as long as the run was told to wait."""


class ProtocolError(SimulationError):
    """A stream withdrew or changed a payload that was not taken, or sent more than expected."""


def run(component, inputs, *, outputs=None, stalls=0.0, seed=0, patience=1000, vcd=None,
        progress=None):
    """Runs a component on arrays.

    Stream inputs are offered in order and stream outputs collected, with random stalls at both
    ends. Ports that are no streams take one row of their arrays per evaluation, or per cycle in
    which the component's ``enable`` is set if its ``latency`` is not 0.

    Parameters
    ----------
    component : wiring.Component
        With ``latency`` in cycles. Only the ``sync`` domain is clocked.
    inputs : mapping of str to array or mapping
        Rows of every input by port or stream name: integers along the first axis, mappings for
        structures, one more axis for each array layout.
    outputs : int, optional
        Payloads expected of every output stream; by default as many as the inputs have rows.
    stalls : float
        Probability, at least 0 and below 1, that an end of a stream pauses in a cycle.
    seed : int
        Of the stalls.
    patience : int
        Cycles without an output, while one would be taken, after which the run is given up.
    vcd : str or path, optional
        Waveform file to write.
    progress : callable, optional
        Called with the number of outputs received after each of them.

    Returns
    -------
    dict of str to array or dict
        Rows of every output, in the form of the inputs; the smallest NumPy type that fits.

    Raises
    ------
    TypeError, ValueError
        If the inputs do not fit the ports, or an option is out of range.
    Deadlock
        If nothing comes out any more; the text says what is outstanding.
    ProtocolError
        If the component breaks the rules of streams.
    """
    if not 0 <= stalls < 1:
        raise ValueError(f"stalls must be at least 0 and below 1, not {stalls!r}")
    ports = component.signature.members
    expected = {name for name, port in ports.items() if port.flow == wiring.In}
    expected.discard("enable")
    if set(inputs) != expected:
        raise ValueError(f"inputs must be {', '.join(sorted(expected)) or 'none'}, "
                         f"not {', '.join(sorted(inputs)) or 'none'}")
    rows = {name: to_integers(to_bits(_shape(ports[name]), inputs[name], name))
            for name in inputs}
    lengths = {len(values) for values in rows.values()}
    if outputs is None and len(lengths) != 1:
        raise ValueError(f"inputs must have equally many rows, not {sorted(lengths)}")
    count = max(lengths) if outputs is None else outputs
    if count == 0:
        raise ValueError("inputs must have at least one row, not 0")

    bench = _Streams if all(port.is_signature for port in ports.values()) else _Ports
    received = bench(component, rows, count, stalls=stalls, seed=seed, patience=patience,
                     progress=progress or (lambda received: None)).run(vcd)
    return {name: from_bits(_shape(ports[name]), from_integers(values, _width(ports[name])))
            for name, values in received.items()}


def _shape(port):
    return port.signature.members["payload"].shape if port.is_signature else port.shape


def _width(port):
    return Shape.cast(_shape(port)).width


def _unsigned(value):
    """The bits of a signal, whatever its shape; reads as a Python integer that is not negative."""
    return Value.cast(value).as_unsigned()


class _Ports:
    """Bench of a component without streams."""

    def __init__(self, component, rows, count, *, stalls, seed, patience, progress):
        self.component = component
        self.rows = rows
        self.count = count
        self.random = random.Random(seed)
        self.stalls = stalls
        self.progress = progress
        self.received = {name: [] for name, port in component.signature.members.items()
                         if port.flow == wiring.Out}

    def run(self, vcd):
        simulator = Simulator(self.component)
        if self.component.latency:
            simulator.add_clock(1e-9)
        simulator.add_testbench(self._clocked if self.component.latency else self._settled)
        with simulator.write_vcd(str(vcd)) if vcd else nullcontext():
            simulator.run()
        return self.received

    def _apply(self, ctx, index):
        for name, values in self.rows.items():
            ctx.set(_unsigned(getattr(self.component, name)), values[index])

    def _collect(self, ctx):
        for name, values in self.received.items():
            values.append(ctx.get(_unsigned(getattr(self.component, name))))
        self.progress(len(values))

    async def _settled(self, ctx):
        for index in range(self.count):
            self._apply(ctx, index)
            await ctx.delay(1e-9)
            self._collect(ctx)

    async def _clocked(self, ctx):
        latency = self.component.latency
        for moved in range(self.count + latency):
            self._apply(ctx, min(moved, self.count - 1))
            while self.random.random() < self.stalls:
                ctx.set(self.component.enable, 0)
                await ctx.tick()
            if moved >= latency:
                self._collect(ctx)
            ctx.set(self.component.enable, 1)
            await ctx.tick()


class _Streams:
    """Bench of a component whose every port is a stream."""

    def __init__(self, component, rows, count, *, stalls, seed, patience, progress):
        self.component = component
        self.rows = rows
        self.count = count
        self.stalls = stalls
        self.seed = seed
        self.patience = patience
        self.progress = progress
        self.sent = dict.fromkeys(rows, 0)
        self.received = {name: [] for name, port in component.signature.members.items()
                         if port.flow == wiring.Out}

    def run(self, vcd):
        simulator = Simulator(self.component)
        simulator.add_clock(1e-9)
        for name in self.rows:
            simulator.add_testbench(self._driver(name), background=True)
        for name in self.received:
            simulator.add_testbench(self._monitor(name))
        with simulator.write_vcd(str(vcd)) if vcd else nullcontext():
            simulator.run()
        return self.received

    def _pauses(self, name):
        generator = random.Random(f"{self.seed} {name}")
        return lambda: generator.random() < self.stalls

    def _driver(self, name):
        port = getattr(self.component, name)
        payload = _unsigned(port.payload)
        pauses = self._pauses(name)

        async def drive(ctx):
            for row in self.rows[name]:
                ctx.set(port.valid, 0)
                while pauses():
                    await ctx.tick()
                ctx.set(payload, row)
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                self.sent[name] += 1
            ctx.set(port.valid, 0)

        return drive

    def _monitor(self, name):
        port = getattr(self.component, name)
        payload = _unsigned(port.payload)
        pauses = self._pauses(name)
        received = self.received[name]

        async def monitor(ctx):
            offered = None
            idle = 0
            # A few more cycles than are needed show whether there is more than expected.
            after = 2 * self.component.latency + 2
            while len(received) < self.count or after:
                ready = not pauses()
                ctx.set(port.ready, ready)
                _, _, valid, value = await ctx.tick().sample(port.valid, payload)
                if offered is not None and (not valid or value != offered):
                    raise ProtocolError(f"{name} withdrew or changed payload {len(received)} "
                                        f"before it was taken")
                offered = value if valid and not ready else None
                if len(received) == self.count:
                    after -= 1
                    if valid:
                        raise ProtocolError(f"{name} sent more than {self.count} payloads")
                elif valid and ready:
                    received.append(value)
                    self.progress(len(received))
                    idle = 0
                elif ready:
                    idle += 1
                    if idle >= self.patience:
                        raise Deadlock(self._outstanding(ctx))

        return monitor

    def _outstanding(self, ctx):
        ends = [
            *((name, "took", done, len(self.rows[name])) for name, done in self.sent.items()),
            *((name, "gave", len(done), self.count) for name, done in self.received.items()),
        ]
        states = []
        for name, verb, done, total in ends:
            port = getattr(self.component, name)
            states.append(f"{name} {verb} {done} of {total} "
                          f"(valid {ctx.get(port.valid)}, ready {ctx.get(port.ready)})")
        return f"No output for {self.patience} cycles: " + "; ".join(states)


def mismatches(outputs, expected):
    """Rows in which two results of `run` differ.

    Parameters
    ----------
    outputs, expected : mapping of str to array or mapping
        In the form that `run` returns.

    Returns
    -------
    bool array, shape (rows,)
    """
    if isinstance(expected, np.ndarray):
        if outputs.shape != expected.shape:
            raise ValueError(f"outputs must have shape {expected.shape}, not {outputs.shape}")
        return (outputs != expected).reshape(len(expected), -1).any(axis=-1)
    if set(outputs) != set(expected):
        raise ValueError(f"outputs must be {', '.join(expected)}, not {', '.join(outputs)}")
    return np.logical_or.reduce([mismatches(outputs[name], expected[name]) for name in expected])
