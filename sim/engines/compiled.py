# SPDX-License-Identifier: BSD-2-Clause
"""Runs a component as a compiled library.

The C++ around the component, ``engine.cpp``, takes whole arrays of payloads, so that Python is
called once per some thousand cycles.
"""

import ctypes
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import wiring

from hw.tools.cache import folder

from . import build
from .build import BuildError
from .protocol import PERIOD, Outcome, Task, broken, deadlock, payload_width, surplus


def load(component: wiring.Component, engine: str) -> "Library":
    """A component's library, built unless the cache has it.

    Parameters
    ----------
    component : wiring.Component
    engine : str
        One of `build.ENGINES`, or `build.COVERAGE`.

    Returns
    -------
    Library

    Raises
    ------
    ValueError
        If the component cannot be emitted as Verilog.
    BuildError
        If a tool fails, or there is none.
    """
    # Emitting the Verilog of a large component takes a while.
    known = _loaded.setdefault(component, {})
    if engine not in known:
        try:
            known[engine] = Library(build.library(component, engine))
        except OSError as error:
            raise BuildError(f"cannot build in or load from {folder()}: {error.strerror or error}; "
                             "M2XFP_CACHE_DIR sets another folder") from None
    return known[engine]


_loaded: "weakref.WeakKeyDictionary[wiring.Component, dict]" = weakref.WeakKeyDictionary()


class End(ctypes.Structure):
    """One port or stream during a run; the layout is that of ``End`` in ``engine.cpp``.

    Attributes
    ----------
    rows : pointer to uint32
        Payloads, each in as many words as it needs.
    pauses : pointer to bool
        Whether it pauses, by the cycle modulo their number.
    times : pointer to uint64, or None
        Receives the cycle of each transfer.
    total, done : int
        Payloads to transfer and transferred.
    valid, ready : int
        Of a stream, in the present cycle.
    """

    _fields_ = [("rows", ctypes.c_void_p), ("pauses", ctypes.c_char_p),
                ("times", ctypes.c_void_p), ("total", ctypes.c_uint64), ("done", ctypes.c_uint64),
                ("valid", ctypes.c_uint32), ("ready", ctypes.c_uint32)]


class Job(ctypes.Structure):
    """A run; the layout is that of ``Job`` in ``engine.cpp``.

    Attributes
    ----------
    latency, patience, period : int
        In cycles; the period is that of the pauses.
    after : int
        Cycles to run after the last output. They show whether more comes.
    cycle, first, last : int
        Present cycle, cycle of the first payload offered or taken, and of the last output taken.
    culprit : int
        Output whose rules were broken.
    """

    _fields_ = [(name, ctypes.c_uint64) for name in (
        "latency", "patience", "period", "after", "cycle", "first", "last", "culprit")]


class Library:
    """A compiled component with the C++ engine around it."""

    MORE, DONE, DEADLOCK, BROKEN, SURPLUS = range(5)

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.start.restype = ctypes.c_void_p
        self._library.start.argtypes = [ctypes.POINTER(End), ctypes.POINTER(Job)]
        self._library.advance.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self._library.stop.argtypes = [ctypes.c_void_p]
        self._library.stop.restype = None

    def start(self, ends: Any, job: Job) -> Any:
        """Starts a job with a ctypes array of `End`, which stays in use; `stop` must follow."""
        return self._library.start(ends, ctypes.byref(job))

    def advance(self, engine: Any, cycles: int) -> int:
        """Runs some cycles of what `start` returned, and returns ``MORE`` or how it ended."""
        return self._library.advance(engine, cycles)

    def stop(self, engine: Any) -> None:
        """Frees what `start` returned."""
        self._library.stop(engine)

    def save(self, engine: Any, path: Path) -> None:
        """Writes what was covered; only of a library that counts it."""
        self._library.save(ctypes.c_void_p(engine), str(path).encode())

    def run(self, ends: list[End], job: Job, *, step: int, report: Callable[[], object],
            coverage: Path | None = None) -> int:
        """Runs a job to its end.

        Parameters
        ----------
        ends : list of End
            Inputs, then outputs, as in the component's signature.
        job : Job
        step : int
            Cycles between reports.
        report : callable
            Called without arguments.
        coverage : path, optional
            File for what was covered.

        Returns
        -------
        int
            ``DONE``, or what went wrong.
        """
        array = (End * len(ends))(*ends)
        engine = self.start(array, job)
        try:
            status = self.MORE
            while status == self.MORE:
                status = self.advance(engine, step)
                ends[:] = array
                report()
            if coverage is not None:
                self.save(engine, coverage)
        finally:
            self.stop(engine)
        return status


class Compiled:
    """Drives any component in a compiled library.

    Parameters
    ----------
    task : Task
        Without ``vcd``.
    library : Library
    name : str
        The engine that the library was built with.
    """

    # Cycles between reports of progress, and checks for Ctrl-C.
    STEP = 10_000

    def __init__(self, task: Task, library: Library, name: str) -> None:
        self.task = task
        self.library = library
        self.name = name

    def run(self) -> Outcome:
        """Runs the task to its end; raises `Deadlock` or `ProtocolError`."""
        task = self.task
        # In the order of the ports, which is the library's.
        ports = {name: port for name, port in task.component.signature.members.items()
                 if name != "enable"}
        inputs = {name: task.rows[name] for name in ports if name in task.rows}
        outputs = {name: np.zeros((task.counts[name], -(-payload_width(ports[name]) // 32)),
                                  np.uint32)
                   for name in ports if name in task.counts}
        pauses = {name: task.pauses[name if port.is_signature else "enable"]
                  for name, port in ports.items()}
        rows = inputs | outputs
        cycles = {name: np.empty(len(words), np.uint64) for name, words in rows.items()} \
            if task.timed else {}
        ends = [End(rows=words.ctypes.data, pauses=pauses[name], total=len(words),
                    times=cycles[name].ctypes.data if task.timed else None)
                for name, words in rows.items()]
        latency = task.component.latency
        job = Job(latency=latency, patience=task.patience, period=PERIOD, after=2 * latency + 2,
                  first=-1)

        def report():
            done = [end.done for end in ends[len(inputs) :]]
            task.progress(sum(done) if task.has_streams else done[0])

        status = self.library.run(ends, job, step=self.STEP, report=report,
                                  coverage=task.coverage)
        sources = dict(zip(inputs, ends, strict=False))
        sinks = dict(zip(outputs, ends[len(inputs) :], strict=True))
        culprit = [*sinks][job.culprit]
        match status:
            case self.library.DEADLOCK:
                raise deadlock(task.patience, sources, sinks)
            case self.library.BROKEN:
                raise broken(culprit, sinks[culprit].done)
            case self.library.SURPLUS:
                raise surplus(culprit, sinks[culprit].total)
        return Outcome(words=outputs, first=job.first, last=job.last,
                       times={name: array[: (sources | sinks)[name].done]
                              for name, array in cycles.items()})
