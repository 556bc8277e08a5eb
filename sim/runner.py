"""Runs a component on arrays, on Amaranth's simulator or compiled."""

import itertools
import time
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

import numpy as np
from amaranth import Cat, Shape, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hw.tools.packing import from_integers, from_words, to_integers, to_words

from .engines import compiled

# Bits through all ports at which a build begins to pay: 1,800 transfers of a 32 x 4 array, 10,000
# of an accumulator. Either keeps Amaranth's simulator busy for seconds, which a build takes too.
_WORTH_BUILDING = 1_000_000

# Cycles after which pauses repeat.
_PERIOD = 1 << 16


class SimulationError(Exception):
    """The component broke the rules of its streams, or stopped."""


class Deadlock(SimulationError):
    """No payload moved for as long as the run was told to wait."""


class ProtocolError(SimulationError):
    """A stream withdrew or changed a payload that was not taken, or sent more than expected."""


def run(component, inputs, *, outputs=None, stalls=0.0, seed=0, patience=1000, vcd=None,
        progress=None, engine="auto", statistics=None, times=None):
    """Runs a component on arrays.

    Stream inputs are offered in order and stream outputs collected, with random stalls at both
    ends. The run ends a few cycles after the last output, however much of the inputs is left; an
    output that has given all it should must give no more until then. Ports that are no streams
    take one row of their arrays per evaluation, or per cycle in which the component's ``enable``
    is set if its ``latency`` is not 0.

    All engines do the same in every cycle. The compiled ones run the Verilog that `hw.generate`
    emits, need a C++ compiler and build once per component; see `sim.engines.compiled`.

    Parameters
    ----------
    component : wiring.Component
        With ``latency`` in cycles. Only the ``sync`` domain is clocked.
    inputs : mapping of str to array or mapping
        Rows of every input by port or stream name: integers along the first axis, mappings for
        structures, one more axis for each array layout. Streams need not have equally many, and
        some may have none, if ``outputs`` is given.
    outputs : int or mapping of str to int, optional
        Payloads expected of every output stream, or of each by its name, where some may be 0; by
        default as many as the inputs have rows. For ports that are no streams, an int that is not
        above that.
    stalls : float
        Probability, at least 0 and below 1, that an end of a stream pauses in a cycle. An output
        that is ``always_ready`` never does.
    seed : int
        Of the stalls.
    patience : int
        Cycles without a transfer on any stream, input or output, after which the run is given up.
        Cycles in which an end pauses are not counted: an output that is not ready, or an input
        with nothing offered though it has payloads left.
    vcd : str or path, optional
        Waveform file to write; not with a compiled engine.
    progress : callable, optional
        Called with the number of outputs received, of all streams together, after each of them;
        by a compiled engine, from time to time.
    engine : str
        "amaranth", "verilator" or "cxxrtl". "auto" compiles if that pays, which is from a million
        bits through all ports on: with Verilator if it is installed, else with CXXRTL. Without a
        C++ compiler everything runs on Amaranth's simulator, with a warning if an engine was
        asked for by name; with "auto", also what cannot be emitted or built, with a warning.
    statistics : dict, optional
        Receives "engine"; "cycles" from the first input offered to the last output taken;
        "build_s" and "run_s" in seconds.
    times : dict, optional
        Receives a uint64 array for every port or stream: the cycles of its transfers. Cycle 0 is
        that in which the first input is offered, or an output is taken if that is earlier.

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
        If nothing moves any more; the text says what is outstanding.
    ProtocolError
        If the component breaks the rules of streams.
    """
    if not 0 <= stalls < 1:
        raise ValueError(f"stalls must be at least 0 and below 1, not {stalls!r}")
    if patience < 1:
        raise ValueError(f"patience must be at least 1, not {patience!r}")
    ports = component.signature.members
    expected = {name for name, port in ports.items() if port.flow == wiring.In}
    expected.discard("enable")
    if set(inputs) != expected:
        raise ValueError(f"inputs must be {', '.join(sorted(expected)) or 'none'}, "
                         f"not {', '.join(sorted(inputs)) or 'none'}")
    rows = {name: to_words(_shape(ports[name]), inputs[name], name) for name in inputs}
    counts = _counts(outputs, {name: len(words) for name, words in rows.items()}, ports)

    started = time.perf_counter()
    bench = _bench(engine, {name: len(words) for name, words in rows.items()} | counts, vcd,
                   component)(
        component, rows, counts, pauses=_Pauses(stalls, seed, ports), patience=patience,
        progress=progress or (lambda received: None), timed=times is not None)
    built = time.perf_counter()
    received = bench.run(vcd)
    if statistics is not None:
        statistics |= {"engine": bench.engine, "cycles": bench.last - bench.first + 1,
                       "build_s": built - started, "run_s": time.perf_counter() - built}
    if times is not None:
        times |= {name: np.array(cycles, np.uint64) - np.uint64(bench.first)
                  for name, cycles in bench.times.items()}
    return {name: from_words(_shape(ports[name]), words) for name, words in received.items()}


def _counts(outputs, rows, ports):
    """Payloads expected of each output."""
    names = [name for name, port in ports.items() if port.flow == wiring.Out]
    streams = all(port.is_signature for port in ports.values())
    lengths = set(rows.values())
    if outputs is None and not rows:
        raise ValueError("outputs must be given for a component without inputs")
    if (outputs is None or not streams) and len(lengths) != 1:
        raise ValueError(f"inputs must have equally many rows, not {sorted(lengths)}")
    if outputs is None:
        outputs, = lengths
        if not outputs:
            raise ValueError("inputs must have at least one row, not 0")
    if isinstance(outputs, Mapping):
        if not streams:
            raise TypeError("outputs must be an integer for ports that are no streams, not a "
                            "mapping")
        if set(outputs) != set(names):
            raise ValueError(f"outputs must be {', '.join(names)}, "
                             f"not {', '.join(map(str, outputs)) or 'none'}")
        counts = {name: _count(outputs[name], f"outputs[{name!r}]", 0) for name in names}
        if not any(counts.values()):
            raise ValueError("outputs must be at least 1 for some stream, not 0 for all")
        return counts
    count = _count(outputs, "outputs", 1)
    if not streams and count > max(lengths):
        raise ValueError(f"outputs must be at most {max(lengths)}, the rows of ports that are no "
                         f"streams, not {count}")
    return dict.fromkeys(names, count)


def _count(value, name, least):
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return int(value)


def _bench(engine, transfers, vcd, component):
    """The bench's class, after the engine has been chosen and built."""
    amaranth = _Streams if all(port.is_signature for port in component.signature.members.values()) \
        else _Ports
    engines = "auto", "amaranth", *compiled.ENGINES
    if engine not in engines:
        raise ValueError(f"engine must be one of {', '.join(engines)}, not {engine!r}")
    bits = sum(count * _width(component.signature.members[name])
               for name, count in transfers.items())
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

    def __init__(self, stalls, seed, ports):
        self.stalls = stalls
        self.seed = seed
        self.tireless = {name for name, port in ports.items() if port.is_signature
                         and port.flow == wiring.Out and port.signature.always_ready}

    def __getitem__(self, name):
        """A byte per cycle; the pattern repeats."""
        if name in self.tireless:
            return bytes(_PERIOD)
        generator = np.random.default_rng(list(f"{self.seed} {name}".encode()))
        pauses = generator.random(_PERIOD) < self.stalls
        # However many stalls, none lasts forever.
        pauses[-1] = False
        return pauses.tobytes()


class _Ports:
    """Bench of a component without streams, on Amaranth's simulator."""

    engine = "amaranth"

    def __init__(self, component, rows, counts, *, pauses, patience, progress, timed):
        self.component = component
        # All inputs as one value: the simulator settles after each that is set.
        self.names = list(rows)
        ports = [_unsigned(getattr(component, name)) for name in self.names]
        self.inputs = Cat(ports)
        starts = itertools.accumulate(map(len, ports), initial=0)
        self.rows = [0] * max(map(len, rows.values()), default=0)
        for start, words in zip(starts, rows.values(), strict=False):
            self.rows = [row | value << start
                         for row, value in zip(self.rows, to_integers(words), strict=True)]
        self.count = max(counts.values())
        self.pauses = pauses["enable"]
        self.progress = progress
        self.received = {name: [] for name in counts}
        self.moves = []
        self.simulator = Simulator(component)
        if component.latency:
            self.simulator.add_clock(1e-9)
        self.simulator.add_testbench(self._clocked if component.latency else self._settled)

    def run(self, vcd):
        with self.simulator.write_vcd(str(vcd)) if vcd else nullcontext():
            self.simulator.run()
        return _words(self.component, self.received)

    @property
    def first(self):
        return self.moves[0]

    @property
    def last(self):
        return self.moves[-1]

    @property
    def times(self):
        # A row is taken in each move, and its results are there `latency` moves later.
        latency = self.component.latency
        return dict.fromkeys(self.names, self.moves[: self.count]) | dict.fromkeys(
            self.received, self.moves[latency:])

    def _apply(self, ctx, index):
        if self.names:
            ctx.set(self.inputs, self.rows[index])

    def _collect(self, ctx):
        for name, values in self.received.items():
            values.append(ctx.get(_unsigned(getattr(self.component, name))))
        self.progress(len(values))

    async def _settled(self, ctx):
        for index in range(self.count):
            self._apply(ctx, index)
            await ctx.delay(1e-9)
            self._collect(ctx)
            self.moves.append(index)

    async def _clocked(self, ctx):
        latency = self.component.latency
        cycle = 0
        for moved in range(self.count + latency):
            self._apply(ctx, min(moved, self.count - 1))
            while self.pauses[cycle % _PERIOD]:
                ctx.set(self.component.enable, 0)
                await ctx.tick()
                cycle += 1
            ctx.set(self.component.enable, 1)
            if moved >= latency:
                self._collect(ctx)
            self.moves.append(cycle)
            await ctx.tick()
            cycle += 1


class _End:
    """A stream's end during a run on Amaranth's simulator, as `compiled.End` is elsewhere."""

    def __init__(self, port, pauses, *, total, rows):
        self.port = port
        self.payload = _unsigned(port.payload)
        self.pauses = pauses
        self.total = total
        # To give, or received.
        self.rows = rows
        self.times = []
        self.valid = self.ready = 0
        self.held = None

    @property
    def done(self):
        return len(self.times)

    def paused(self, cycle):
        return self.pauses[cycle % _PERIOD]


class _Streams:
    """Bench of a component whose every port is a stream, on Amaranth's simulator.

    Its twin for compiled components is in ``bench.cpp``: either sees the same in every cycle.
    """

    engine = "amaranth"

    def __init__(self, component, rows, counts, *, pauses, patience, progress, timed):
        self.component = component
        self.patience = patience
        self.progress = progress
        ports = component.signature.members
        self.sources = {name: _End(getattr(component, name), pauses[name], total=len(rows[name]),
                                   rows=to_integers(rows[name])) for name in ports if name in rows}
        self.sinks = {name: _End(getattr(component, name), pauses[name], total=counts[name],
                                 rows=[]) for name in ports if name in counts}
        self.first = None
        self.simulator = Simulator(component)
        self.simulator.add_clock(1e-9)
        self.simulator.add_testbench(self._transfer)

    def run(self, vcd):
        with self.simulator.write_vcd(str(vcd)) if vcd else nullcontext():
            self.simulator.run()
        return _words(self.component, {name: end.rows for name, end in self.sinks.items()})

    @property
    def last(self):
        return max(end.times[-1] for end in self.sinks.values() if end.times)

    @property
    def times(self):
        return {name: end.times for name, end in (self.sources | self.sinks).items()}

    async def _transfer(self, ctx):
        readies = [end.port.ready for end in self.sources.values()]
        given = [signal for end in self.sinks.values() for signal in (end.port.valid, end.payload)]
        idle = 0
        # A few more cycles than are needed show whether there is more than expected.
        after = 2 * self.component.latency + 2
        for cycle in itertools.count():
            paused = self._drive(ctx, cycle)
            _, _, *seen = await ctx.tick().sample(*readies, *given)
            taken = self._look_at_sources(cycle, seen[: len(readies)])
            received = self._look_at_sinks(cycle, seen[len(readies) :: 2],
                                           seen[len(readies) + 1 :: 2])
            if all(end.done == end.total for end in self.sinks.values()):
                if not after:
                    return
                after -= 1
            elif taken or received:
                idle = 0
            elif not paused:
                idle += 1
                if idle == self.patience:
                    raise _deadlock(self.patience, self.sources, self.sinks)

    def _drive(self, ctx, cycle):
        """Offers payloads and takes them; returns whether any end pauses."""
        paused = False
        for end in self.sources.values():
            if not end.valid and end.done < end.total:
                if end.paused(cycle):
                    paused = True
                else:
                    ctx.set(end.payload, end.rows[end.done])
                    end.valid = 1
                    self._begin(cycle)
            ctx.set(end.port.valid, end.valid)
        for end in self.sinks.values():
            end.ready = int(not end.paused(cycle))
            paused |= not end.ready
            if not end.port.signature.always_ready:
                ctx.set(end.port.ready, end.ready)
        return paused

    def _look_at_sources(self, cycle, readies):
        """Returns whether a payload was taken."""
        moved = False
        for end, ready in zip(self.sources.values(), readies, strict=True):
            end.ready = ready
            if end.valid and ready:
                end.times.append(cycle)
                end.valid = 0
                moved = True
        return moved

    def _look_at_sinks(self, cycle, valids, payloads):
        """Returns whether a payload was received."""
        moved = False
        for (name, end), valid, payload in zip(self.sinks.items(), valids, payloads, strict=True):
            if end.held is not None and (not valid or payload != end.held):
                raise _broken(name, end.done)
            end.valid = valid
            end.held = payload if valid and not end.ready else None
            if valid and end.done == end.total:
                raise _surplus(name, end.total)
            if valid and end.ready:
                self._begin(cycle)
                end.rows.append(payload)
                end.times.append(cycle)
                self.progress(sum(sink.done for sink in self.sinks.values()))
                moved = True
        return moved

    def _begin(self, cycle):
        if self.first is None:
            self.first = cycle


def _words(component, received):
    ports = component.signature.members
    return {name: from_integers(values, _width(ports[name])) for name, values in received.items()}


class _Compiled:
    """Bench of any component in a compiled library."""

    # Cycles between reports of progress, and looks at Ctrl-C.
    STEP = 10_000

    def __init__(self, library, engine, component, rows, counts, *, pauses, patience, progress,
                 timed):
        self.library = library
        self.engine = engine
        self.patience = patience
        self.progress = progress
        self.timed = timed
        # In the order of the ports, which is the library's.
        ports = {name: port for name, port in component.signature.members.items()
                 if name != "enable"}
        self.inputs = {name: rows[name] for name in ports if name in rows}
        self.outputs = {name: np.zeros((counts[name], -(-_width(ports[name]) // 32)), np.uint32)
                        for name in ports if name in counts}
        self.pauses = {name: pauses[name if port.is_signature else "enable"]
                       for name, port in ports.items()}
        self.streams = all(port.is_signature for port in ports.values())
        self.job = compiled.Job(latency=component.latency, patience=patience, period=_PERIOD,
                                first=-1)

    def run(self, vcd):
        rows = self.inputs | self.outputs
        cycles = {name: np.empty(len(words), np.uint64) for name, words in rows.items()} \
            if self.timed else {}
        ends = [compiled.End(rows=words.ctypes.data, pauses=self.pauses[name], total=len(words),
                             times=cycles[name].ctypes.data if self.timed else None)
                for name, words in rows.items()]

        def report():
            done = [end.done for end in ends[len(self.inputs) :]]
            self.progress(sum(done) if self.streams else done[0])

        status = self.library.run(ends, self.job, step=self.STEP, report=report)
        sources = dict(zip(self.inputs, ends, strict=False))
        sinks = dict(zip(self.outputs, ends[len(self.inputs) :], strict=True))
        culprit = [*sinks][self.job.culprit]
        match status:
            case self.library.DEADLOCK:
                raise _deadlock(self.patience, sources, sinks)
            case self.library.BROKEN:
                raise _broken(culprit, sinks[culprit].done)
            case self.library.SURPLUS:
                raise _surplus(culprit, sinks[culprit].total)
        self.times = {name: array[: (sources | sinks)[name].done]
                      for name, array in cycles.items()}
        return self.outputs

    @property
    def first(self):
        return self.job.first

    @property
    def last(self):
        return self.job.last


def _broken(name, number):
    return ProtocolError(f"{name} withdrew or changed payload {number} before it was taken")


def _surplus(name, count):
    return ProtocolError(f"{name} sent more than {count} payloads")


def _deadlock(patience, sources, sinks):
    states = (f"{name} {did} {end.done} of {end.total} (valid {end.valid}, ready {end.ready})"
              for did, ends in (("took", sources), ("gave", sinks)) for name, end in ends.items())
    return Deadlock(f"No transfer for {patience} cycles: " + "; ".join(states))


def mismatches(outputs, expected):
    """Rows in which two results of `run` differ.

    Parameters
    ----------
    outputs, expected : mapping of str to array or mapping
        In the form that `run` returns.

    Returns
    -------
    bool array, shape (rows,)
        As long as the longest stream; a shorter one does not differ beyond its end.
    """
    if isinstance(expected, np.ndarray):
        if outputs.shape != expected.shape:
            raise ValueError(f"outputs must have shape {expected.shape}, not {outputs.shape}")
        return (outputs != expected).any(axis=tuple(range(1, expected.ndim)))
    if set(outputs) != set(expected):
        raise ValueError(f"outputs must be {', '.join(expected)}, not {', '.join(outputs)}")
    parts = [mismatches(outputs[name], expected[name]) for name in expected]
    wrong = np.zeros(max(map(len, parts)), bool)
    for part in parts:
        wrong[: len(part)] |= part
    return wrong
