# SPDX-License-Identifier: BSD-2-Clause
"""Runs a component on Amaranth's simulator."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

from amaranth import Cat, Elaboratable, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from golden.output import check_output
from hw.tools.packing import from_integers, to_integers

from . import waveform
from .protocol import PERIOD, Outcome, Task, broken, deadlock, payload_width, surplus

NAME = "amaranth"


def engine(task: Task) -> "Ports | Streams":
    """The engine for a component with streams, or for one without; its `run` does the task."""
    return (Streams if task.has_streams else Ports)(task)


class Simulated:
    """A clocked design on Amaranth's simulator, for many runs from its initial state.

    For a large design the simulator takes longer to construct than to run.
    """

    def __init__(self, design: Elaboratable, *, clocked: bool = True) -> None:
        self.simulator = Simulator(design)
        if clocked:
            self.simulator.add_clock(1e-9)
        self.simulator.add_testbench(self._run)
        self.used = False

    def run(self, testbench: Callable) -> None:
        """Runs the design until this testbench, a coroutine function of a context, ends."""
        self.testbench = testbench
        if self.used:
            self.simulator.reset()
        self.used = True
        self.simulator.run()

    async def _run(self, ctx):
        await self.testbench(ctx)


@functools.lru_cache(maxsize=16)
def simulated(component: wiring.Component, clocked: bool) -> Simulated:
    """The simulator of a component, kept for those that were run last."""
    return Simulated(component, clocked=clocked)


class Ports:
    """Drives a component without streams: one row of the inputs in every enabled cycle."""

    name = NAME

    def __init__(self, task: Task) -> None:
        component, rows = task.component, task.rows
        self.component = component
        self.vcd = task.vcd
        # All inputs as one value, because the simulator settles after each one that is set.
        self.names = list(rows)
        ports = [_unsigned(getattr(component, name)) for name in self.names]
        self.inputs = Cat(ports)
        starts = itertools.accumulate(map(len, ports), initial=0)
        self.rows = [0] * max(map(len, rows.values()), default=0)
        for start, words in zip(starts, rows.values(), strict=False):
            self.rows = [row | value << start
                         for row, value in zip(self.rows, to_integers(words), strict=True)]
        self.count = max(task.counts.values())
        self.pauses = task.pauses["enable"]
        self.progress = task.progress
        self.received: dict[str, list[int]] = {name: [] for name in task.counts}
        self.moves: list[int] = []

    def run(self) -> Outcome:
        """Runs the task to its end."""
        clocked = bool(self.component.latency)
        _simulate(self.component, self._clocked if clocked else self._settled, clocked, self.vcd)
        # A row is taken in each move, and its results are there `latency` moves later.
        times = dict.fromkeys(self.names, self.moves[: self.count]) | dict.fromkeys(
            self.received, self.moves[self.component.latency:])
        return Outcome(words=_words(self.component, self.received), first=self.moves[0],
                       last=self.moves[-1], times=times)

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
            while self.pauses[cycle % PERIOD]:
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
    """One end of a stream during a run; `compiled.End` is its counterpart in C++."""

    def __init__(self, port, pauses, *, total, rows):
        self.port = port
        self.payload = _unsigned(port.payload)
        self.pauses = pauses
        self.total = total
        # Payloads to give, or payloads received.
        self.rows = rows
        self.times = []
        self.valid = self.ready = 0
        self.held = None

    @property
    def done(self):
        return len(self.times)

    def paused(self, cycle):
        return self.pauses[cycle % PERIOD]


class Streams:
    """Drives a component whose every port is a stream.

    ``engine.cpp`` does the same for compiled components: both see the same in every cycle.
    """

    name = NAME

    def __init__(self, task: Task) -> None:
        component, rows, counts, pauses = task.component, task.rows, task.counts, task.pauses
        self.component = component
        self.vcd = task.vcd
        self.patience = task.patience
        self.progress = task.progress
        ports = component.signature.members
        self.sources = {name: _End(getattr(component, name), pauses[name], total=len(rows[name]),
                                   rows=to_integers(rows[name])) for name in ports if name in rows}
        self.sinks = {name: _End(getattr(component, name), pauses[name], total=counts[name],
                                 rows=[]) for name in ports if name in counts}
        self.first: int | None = None

    def run(self) -> Outcome:
        """Runs the task to its end; raises `Deadlock` or `ProtocolError`."""
        _simulate(self.component, self._transfer, True, self.vcd)
        assert self.first is not None
        return Outcome(
            words=_words(self.component, {name: end.rows for name, end in self.sinks.items()}),
            first=self.first,
            last=max(end.times[-1] for end in self.sinks.values() if end.times),
            times={name: end.times for name, end in (self.sources | self.sinks).items()})

    async def _transfer(self, ctx):
        readies = [end.port.ready for end in self.sources.values()]
        given = [signal for end in self.sinks.values() for signal in (end.port.valid, end.payload)]
        idle = 0
        # A few cycles after the last output show whether the component sends too much.
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
                    raise deadlock(self.patience, self.sources, self.sinks)

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
                raise broken(name, end.done)
            end.valid = valid
            end.held = payload if valid and not end.ready else None
            if valid and end.done == end.total:
                raise surplus(name, end.total)
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


def _simulate(component, testbench, clocked, vcd):
    if vcd:
        for path in (vcd, waveform.save_file(Path(vcd))):
            check_output(path, "vcd")
        # It says where it writes before its first run.
        new = Simulated(component, clocked=clocked)
        with waveform.written(new.simulator, component, Path(vcd)):
            new.run(testbench)
        return
    try:
        simulated(component, clocked).run(testbench)
    except BaseException:
        # Nothing is known of the state in which a run ends in its middle.
        simulated.cache_clear()
        raise


def _words(component, received):
    ports = component.signature.members
    return {name: from_integers(values, payload_width(ports[name]))
            for name, values in received.items()}


def _unsigned(value):
    """The bits of a signal, whatever its shape, as an unsigned value."""
    return Value.cast(value).as_unsigned()
