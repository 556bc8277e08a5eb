# SPDX-License-Identifier: BSD-2-Clause
"""A compiled component that goes on from run to run, as hardware does.

`sim.run` starts a component anew, and ends it with the run. Here it keeps its state.
"""

from collections.abc import Callable, Mapping

import numpy as np
from amaranth.lib import wiring

from . import build, compiled
from .protocol import (
    PERIOD,
    SimulationError,
    broken,
    deadlock,
    payload_width,
    surplus,
)


class Session:
    """A component of streams on a compiled engine.

    It is a context manager, which ends the simulation.

    Parameters
    ----------
    component : wiring.Component
        Plain ports are not looked at.
    engine : str
        One of `build.ENGINES`, or "auto" for the faster one.

    Attributes
    ----------
    cycles : int
        Cycles of the last run, from the first payload offered or taken to the last output taken.

    Raises
    ------
    SimulationError
        If there is no C++ compiler, or the component cannot be built.
    """

    def __init__(self, component: wiring.Component, engine: str = "auto") -> None:
        ports = component.signature.members
        self._ports = {name: port for flow in (wiring.In, wiring.Out)
                       for name, port in ports.items() if port.is_signature and port.flow == flow}
        self._sinks = [name for name, port in self._ports.items() if port.flow == wiring.Out]
        try:
            self._library = compiled.load(
                component, build.fastest() if engine == "auto" else engine)
        except build.BuildError as error:
            raise SimulationError(str(error)) from None
        self._latency = component.latency
        self._pauses = bytes(PERIOD)
        self._running = None
        self.cycles = 0

    def __enter__(self) -> "Session":
        self.restart()
        return self

    def __exit__(self, *error: object) -> None:
        if self._running is not None:
            self._library.stop(self._running)
            self._running = None

    def restart(self) -> None:
        """Resets the component, which forgets all."""
        self.__exit__()
        self._rows = {name: self._empty(name, 0) for name in self._ports}
        self._ends = (compiled.End * len(self._ports))(*(
            compiled.End(rows=rows.ctypes.data, pauses=self._pauses)
            for rows in self._rows.values()))
        self._job = compiled.Job(latency=self._latency, period=PERIOD)
        self._running = self._library.start(self._ends, self._job)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, int], *,
            patience: int = 1000,
            progress: Callable[[int], object] | None = None) -> dict[str, np.ndarray]:
        """Offers payloads and runs until all outputs that are expected have come.

        Payloads of earlier runs that were not taken stay offered on streams that get none.

        Parameters
        ----------
        inputs : mapping of str to uint32 array, shape (n, words)
            Payloads by stream, see `hw.tools.packing.to_words`.
        outputs : mapping of str to int
            Payloads that are expected, at least one in all; of other streams none are.
        patience : int
            Cycles without a transfer after which the run is a deadlock.
        progress : callable, optional
            Called with the number of payloads that came, from time to time.

        Returns
        -------
        dict of str to uint32 array, shape (n, words)
            By the names of ``outputs``.

        Raises
        ------
        ValueError
            If payloads of an earlier run are left on a stream that gets new ones.
        Deadlock, ProtocolError
            As `sim.run` raises them.
        """
        ends = dict(zip(self._ports, self._ends, strict=True))
        for name, rows in inputs.items():
            if ends[name].done != ends[name].total:
                raise ValueError(f"{name} must have taken its payloads, not "
                                 f"{ends[name].done} of {ends[name].total}")
            self._give(ends[name], name, rows)
        for name in self._sinks:
            self._give(ends[name], name, self._empty(name, outputs.get(name, 0)))
        # What comes too much comes in the next run.
        self._job.after, self._job.patience, self._job.first = 0, patience, 2**64 - 1
        status = self._library.MORE
        while status == self._library.MORE:
            status = self._library.advance(self._running, compiled.Compiled.STEP)
            if progress:
                progress(sum(ends[name].done for name in self._sinks))
        self._check(status, ends, patience)
        self.cycles = self._job.last - self._job.first + 1
        return {name: self._rows[name] for name in outputs}

    def left(self, name: str) -> int:
        """Payloads of an input that were not taken."""
        end = self._ends[list(self._ports).index(name)]
        return end.total - end.done

    def _empty(self, name, count):
        return np.zeros((count, -(-payload_width(self._ports[name]) // 32)), np.uint32)

    def _give(self, end, name, rows):
        self._rows[name] = rows
        end.rows, end.total, end.done = rows.ctypes.data, len(rows), 0

    def _check(self, status, ends, patience):
        culprit = self._sinks[self._job.culprit]
        sources = {name: end for name, end in ends.items() if name not in self._sinks}
        match status:
            case self._library.DEADLOCK:
                raise deadlock(patience, sources, {name: ends[name] for name in self._sinks})
            case self._library.BROKEN:
                raise broken(culprit, ends[culprit].done)
            case self._library.SURPLUS:
                raise surplus(culprit, ends[culprit].total)
