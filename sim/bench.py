"""Runs a component on arrays, on Amaranth's simulator or compiled."""

import itertools
import time
import warnings
from contextlib import nullcontext
from functools import partial

import numpy as np
from amaranth import Shape, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from . import compiled
from .payload import from_bits, from_integers, to_bits, to_integers

# Bits through all ports at which a build begins to pay: 1,800 transfers of a 32 x 4 array, 10,000
# of an accumulator. Either keeps Amaranth's simulator busy for seconds, which a build takes too.
_WORTH_BUILDING = 1_000_000

# Cycles after which pauses repeat.
_PERIOD = 1 << 16


class SimulationError(Exception):
    """The component broke the rules of its streams, or stopped."""


class Deadlock(SimulationError):
    """No transfer happened for as long as the run was told to wait."""


class ProtocolError(SimulationError):
    """A stream withdrew or changed a payload that was not taken, or sent more than expected."""


def run(component, inputs, *, outputs=None, stalls=0.0, seed=0, patience=1000, vcd=None,
        progress=None, engine="auto", statistics=None):
    """Runs a component on arrays.

    Stream inputs are offered in order and stream outputs collected, with random stalls at both
    ends. Ports that are no streams take one row of their arrays per evaluation, or per cycle in
    which the component's ``enable`` is set if its ``latency`` is not 0.

    All engines do the same in every cycle. The compiled ones run the Verilog that `hw.generate`
    emits, need a C++ compiler and build once per component; see `sim.compiled`.

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
        Waveform file to write; not with a compiled engine.
    progress : callable, optional
        Called with the number of outputs received after each of them; by a compiled engine, from
        time to time.
    engine : str
        "amaranth", "verilator" or "cxxrtl". "auto" compiles if that pays, which is from a million
        bits through all ports on: with Verilator if it is installed, else with CXXRTL. Without a
        C++ compiler everything runs on Amaranth's simulator, with a warning if an engine was
        asked for by name; with "auto", also what cannot be emitted or built, with a warning.
    statistics : dict, optional
        Receives "engine"; "cycles" from the first input offered to the last output taken;
        "build_s" and "run_s" in seconds.

    Returns
    -------
    dict of str to array or dict
        Rows of every output, in the form of the inputs; the smallest NumPy type that fits.

    Raises
    ------
    TypeError, ValueError
        If the inputs do not fit the ports, an option is out of range, or the component cannot be
        emitted for the engine asked for.
    SimulationError
        If the engine asked for cannot be built.
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
    rows = {name: to_bits(_shape(ports[name]), inputs[name], name) for name in inputs}
    lengths = {len(values) for values in rows.values()}
    if outputs is None and len(lengths) != 1:
        raise ValueError(f"inputs must have equally many rows, not {sorted(lengths)}")
    count = max(lengths) if outputs is None else outputs
    if count == 0:
        raise ValueError("inputs must have at least one row, not 0")

    started = time.perf_counter()
    bench = _bench(engine, max(count, *lengths), vcd, component)(
        component, rows, count, pauses=_Pauses(stalls, seed), patience=patience,
        progress=progress or (lambda received: None))
    built = time.perf_counter()
    received = bench.run(vcd)
    if statistics is not None:
        statistics |= {"engine": bench.engine, "cycles": bench.cycles,
                       "build_s": built - started, "run_s": time.perf_counter() - built}
    return {name: from_bits(_shape(ports[name]), values) for name, values in received.items()}


def _bench(engine, transfers, vcd, component):
    """The bench's class, after the engine has been chosen and built."""
    amaranth = _Streams if all(port.is_signature for port in component.signature.members.values()) \
        else _Ports
    engines = "auto", "amaranth", *compiled.ENGINES
    if engine not in engines:
        raise ValueError(f"engine must be one of {', '.join(engines)}, not {engine!r}")
    bits = transfers * sum(map(_width, component.signature.members.values()))
    if engine == "amaranth" or engine == "auto" and (vcd or bits < _WORTH_BUILDING):
        return amaranth
    if vcd:
        raise ValueError(f"engine must be amaranth or auto to write vcd, not {engine!r}")
    if not compiled.compiler():
        if engine != "auto":
            warnings.warn(f"No C++ compiler for engine {engine}: running on Amaranth's simulator",
                          stacklevel=3)
        return amaranth
    chosen = compiled.fastest() if engine == "auto" else engine
    try:
        return partial(_Compiled, compiled.load(component, chosen), chosen)
    except (ValueError, compiled.BuildError) as error:
        if engine == "auto":
            warnings.warn(f"{error}: running on Amaranth's simulator", stacklevel=3)
            return amaranth
        if isinstance(error, ValueError):
            raise
        raise SimulationError(str(error)) from None


def _shape(port):
    return port.signature.members["payload"].shape if port.is_signature else port.shape


def _width(port):
    return Shape.cast(_shape(port)).width


def _unsigned(value):
    """The bits of a signal, whatever its shape; reads as a Python integer that is not negative."""
    return Value.cast(value).as_unsigned()


class _Pauses:
    """In which cycles which end pauses, as all engines see it."""

    def __init__(self, stalls, seed):
        self.stalls = stalls
        self.seed = seed

    def __getitem__(self, name):
        """A byte per cycle; the pattern repeats."""
        generator = np.random.default_rng(list(f"{self.seed} {name}".encode()))
        pauses = generator.random(_PERIOD) < self.stalls
        # However many stalls, none lasts forever.
        pauses[-1] = False
        return pauses.tobytes()


class _Ports:
    """Bench of a component without streams, on Amaranth's simulator."""

    engine = "amaranth"

    def __init__(self, component, rows, count, *, pauses, patience, progress):
        self.component = component
        self.rows = {name: to_integers(bits) for name, bits in rows.items()}
        self.count = count
        self.pauses = pauses["enable"]
        self.progress = progress
        self.received = {name: [] for name, port in component.signature.members.items()
                         if port.flow == wiring.Out}
        self.simulator = Simulator(component)
        if component.latency:
            self.simulator.add_clock(1e-9)
        self.simulator.add_testbench(self._clocked if component.latency else self._settled)

    def run(self, vcd):
        with self.simulator.write_vcd(str(vcd)) if vcd else nullcontext():
            self.simulator.run()
        return _bits(self.component, self.received)

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
        self.cycles = self.count

    async def _clocked(self, ctx):
        latency = self.component.latency
        cycle = 0
        for moved in range(self.count + latency):
            self._apply(ctx, min(moved, self.count - 1))
            while self.pauses[cycle % _PERIOD]:
                ctx.set(self.component.enable, 0)
                await ctx.tick()
                cycle += 1
            if moved == 0:
                first = cycle
            ctx.set(self.component.enable, 1)
            if moved >= latency:
                self._collect(ctx)
                self.cycles = cycle - first + 1
            await ctx.tick()
            cycle += 1


class _Streams:
    """Bench of a component whose every port is a stream, on Amaranth's simulator."""

    engine = "amaranth"

    def __init__(self, component, rows, count, *, pauses, patience, progress):
        self.component = component
        self.rows = {name: to_integers(bits) for name, bits in rows.items()}
        self.count = count
        self.pauses = pauses
        self.patience = patience
        self.progress = progress
        self.sent = dict.fromkeys(rows, 0)
        self.received = {name: [] for name, port in component.signature.members.items()
                         if port.flow == wiring.Out}
        self.offered = []
        self.taken = []
        self.simulator = Simulator(component)
        self.simulator.add_clock(1e-9)
        for name in self.rows:
            self.simulator.add_testbench(self._driver(name), background=True)
        for name in self.received:
            self.simulator.add_testbench(self._monitor(name))

    def run(self, vcd):
        with self.simulator.write_vcd(str(vcd)) if vcd else nullcontext():
            self.simulator.run()
        return _bits(self.component, self.received)

    @property
    def cycles(self):
        return max(self.taken) - min(self.offered, default=0) + 1

    def _driver(self, name):
        port = getattr(self.component, name)
        payload = _unsigned(port.payload)
        pauses = self.pauses[name]

        async def drive(ctx):
            cycle = 0
            for index, row in enumerate(self.rows[name]):
                while pauses[cycle % _PERIOD]:
                    ctx.set(port.valid, 0)
                    await ctx.tick()
                    cycle += 1
                if index == 0:
                    self.offered.append(cycle)
                ctx.set(payload, row)
                ctx.set(port.valid, 1)
                taken = False
                while not taken:
                    _, _, taken = await ctx.tick().sample(port.ready)
                    cycle += 1
                self.sent[name] += 1
            ctx.set(port.valid, 0)

        return drive

    def _monitor(self, name):
        port = getattr(self.component, name)
        payload = _unsigned(port.payload)
        pauses = self.pauses[name]
        received = self.received[name]

        async def monitor(ctx):
            offered = None
            idle = 0
            # A few more cycles than are needed show whether there is more than expected.
            after = 2 * self.component.latency + 2
            for cycle in itertools.count():
                if len(received) == self.count and not after:
                    break
                ready = not pauses[cycle % _PERIOD]
                ctx.set(port.ready, ready)
                _, _, valid, value = await ctx.tick().sample(port.valid, payload)
                if offered is not None and (not valid or value != offered):
                    raise _broken(name, len(received))
                offered = value if valid and not ready else None
                if len(received) == self.count:
                    after -= 1
                    if valid:
                        raise _surplus(name, self.count)
                elif valid and ready:
                    received.append(value)
                    if len(received) == self.count:
                        self.taken.append(cycle)
                    self.progress(len(received))
                    idle = 0
                elif ready:
                    idle += 1
                    if idle >= self.patience:
                        raise self._deadlock(ctx)

        return monitor

    def _deadlock(self, ctx):
        done = self.sent | {name: len(values) for name, values in self.received.items()}
        total = {name: len(values) for name, values in self.rows.items()}
        ports = {name: getattr(self.component, name) for name in done}
        return _deadlock(self.patience, [
            (name, name in total, done[name], total.get(name, self.count),
             ctx.get(port.valid), ctx.get(port.ready)) for name, port in ports.items()])


def _bits(component, received):
    ports = component.signature.members
    return {name: from_integers(values, _width(ports[name])) for name, values in received.items()}


class _Compiled:
    """Bench of any component in a compiled library."""

    # Cycles between reports of progress, and looks at Ctrl-C.
    STEP = 10_000

    def __init__(self, library, engine, component, rows, count, *, pauses, patience, progress):
        self.library = library
        self.engine = engine
        self.patience = patience
        self.progress = progress
        # In the order of the ports, which is the library's.
        ports = {name: port for name, port in component.signature.members.items()
                 if name != "enable"}
        self.widths = {name: _width(port) for name, port in ports.items()}
        self.inputs = {name: _words(rows[name]) for name in ports if name in rows}
        self.outputs = {name: np.zeros((count, -(-self.widths[name] // 32)), np.uint32)
                        for name in ports if name not in rows}
        self.pauses = {name: pauses[name if port.is_signature else "enable"]
                       for name, port in ports.items()}
        self.job = compiled.Job(latency=component.latency, patience=patience, period=_PERIOD,
                                first=-1)

    def run(self, vcd):
        rows = self.inputs | self.outputs
        ends = [compiled.End(rows=array.ctypes.data, pauses=self.pauses[name], total=len(array))
                for name, array in rows.items()]
        sinks = slice(len(self.inputs), None)

        def report():
            self.progress(min(end.done for end in ends[sinks]))

        status = self.library.run(ends, self.job, step=self.STEP, report=report)
        name = [*self.outputs][self.job.culprit]
        done = {name: end.done for name, end in zip(rows, ends, strict=True)}
        match status:
            case self.library.DEADLOCK:
                raise _deadlock(self.patience, [
                    (name, name in self.inputs, end.done, end.total, end.valid, end.ready)
                    for name, end in zip(rows, ends, strict=True)])
            case self.library.BROKEN:
                raise _broken(name, done[name])
            case self.library.SURPLUS:
                raise _surplus(name, done[name])
        return {name: np.unpackbits(array.view(np.uint8), axis=-1, count=self.widths[name],
                                    bitorder="little")
                for name, array in self.outputs.items()}

    @property
    def cycles(self):
        return self.job.last - self.job.first + 1


def _words(bits):
    """Rows of bits in words, the last of them filled up with zeros."""
    packed = np.packbits(bits, axis=-1, bitorder="little")
    words = np.zeros((len(bits), -(-packed.shape[1] // 4) * 4), np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view(np.uint32)


def _broken(name, number):
    return ProtocolError(f"{name} withdrew or changed payload {number} before it was taken")


def _surplus(name, count):
    return ProtocolError(f"{name} sent more than {count} payloads")


def _deadlock(patience, ends):
    states = (f"{name} {'took' if source else 'gave'} {done} of {total} "
              f"(valid {valid}, ready {ready})" for name, source, done, total, valid, ready in ends)
    return Deadlock(f"No output for {patience} cycles: " + "; ".join(states))


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
