# SPDX-License-Identifier: BSD-2-Clause
"""Runs a component on arrays: the inputs are checked, an engine is chosen, the outputs unpacked."""

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import wiring

from hw.tools import components
from hw.tools.packing import from_words, to_words

from .engines import amaranth, build, compiled
from .engines.protocol import (
    Deadlock,
    Pauses,
    ProtocolError,
    SimulationError,
    Task,
    payload_shape,
    payload_width,
)

__all__ = ["Deadlock", "ProtocolError", "SimulationError", "mismatches", "run"]

# Bits through all ports from which on "auto" compiles: 1,800 transfers of a 32 x 4 array, or 10,000
# of an accumulator. Amaranth's simulator takes seconds for either, and so does a build.
_WORTH_BUILDING = 1_000_000


def run(component: wiring.Component, inputs: Mapping[str, Any], *,
        outputs: int | Mapping[str, int] | None = None,
        stalls: float | Mapping[str, float] = 0.0, seed: int = 0, patience: int = 1000,
        vcd: Any = None, progress: Callable[[int], Any] | None = None, engine: str = "auto",
        statistics: dict | None = None, times: dict | None = None,
        coverage: Path | None = None) -> dict[str, Any]:
    """Runs a component on arrays.

    Stream inputs are offered in order and stream outputs are collected, with random stalls at both
    ends. The run ends a few cycles after the last output, even if inputs are left. Until then, an
    output that has sent all expected payloads must not send more. Plain ports take one row of
    their arrays per evaluation or, if the component's ``latency`` is not 0, per cycle in which its
    ``enable`` is set.

    All engines do the same in every cycle. The compiled engines run the Verilog that `hw.generate`
    emits, need a C++ compiler and build once per component; see `sim.engines.build`.

    Parameters
    ----------
    component : wiring.Component
        With ``latency`` in cycles. Only the ``sync`` domain is clocked.
    inputs : mapping of str to array or mapping
        Rows of every input by port or stream name: integers along the first axis, mappings for
        structures, one more axis for each array layout. If ``outputs`` is given, the streams may
        have different numbers of rows, and none.
    outputs : int or mapping of str to int, optional
        Number of payloads expected of every output stream, or of each by its name, where some may
        be 0. The default is the number of rows of the inputs. For plain ports, an int of at most
        that number.
    stalls : float or mapping of str to float
        Probability, at least 0 and below 1, that an end of a stream pauses in a cycle: of all
        streams, or of each by its name. An output that is ``always_ready`` never pauses.
    seed : int
        Seed of the stalls.
    patience : int
        Number of cycles without a transfer on any stream after which the run is a deadlock. Cycles
        in which an end pauses do not count: an output that is not ready, or an input that offers
        nothing although it has payloads left.
    vcd : str or path, optional
        Waveform file to write. A compiled engine writes none.
    progress : callable, optional
        Called with the number of outputs received on all streams together: after each output, or
        by a compiled engine from time to time.
    engine : str
        "amaranth", "verilator" or "cxxrtl". "auto" compiles if a million bits or more pass through
        all ports: with Verilator if it is installed, else with CXXRTL. Without a C++ compiler it
        runs on Amaranth's simulator instead, and says so once on stderr; so it does, with a
        warning, if the component cannot be emitted or built.
    statistics : dict, optional
        Receives "engine", the engine's name; "cycles" from the first input offered to the last
        output taken; and the durations "build_s" and "run_s" in seconds.
    times : dict, optional
        Receives a uint64 array for every port or stream: the cycles of its transfers. In cycle 0,
        the first input is offered or the first output is taken, whichever is earlier.
    coverage : path, optional
        File for Verilator's counts of what was covered, see `sim.coverage`. They are those of a
        build of its own, whatever the engine.

    Returns
    -------
    dict of str to array or dict
        Rows of every output, in the form of the inputs and the smallest NumPy type that fits.

    Raises
    ------
    TypeError, ValueError
        If the component is none, such as a class in place of an instance, or has no latency; if the
        inputs do not fit the ports, an option is out of range, or the component cannot be emitted
        for the chosen engine.
    SimulationError
        If the chosen engine cannot be built, or there is no compiler for it.
    Deadlock
        If nothing moves any more; the text says which transfers are outstanding.
    ProtocolError
        If the component breaks the rules of streams.
    """
    components.check(component)
    streams = {name for name, port in component.signature.members.items() if port.is_signature}
    if isinstance(stalls, Mapping) and set(stalls) != streams:
        raise ValueError(f"stalls must be of {', '.join(sorted(streams)) or 'no stream'}, "
                         f"not of {', '.join(map(str, stalls)) or 'none'}")
    for share in stalls.values() if isinstance(stalls, Mapping) else (stalls,):
        if not isinstance(share, int | float | np.number) or not 0 <= share < 1:
            raise ValueError(f"stalls must be at least 0 and below 1, not {share!r}")
    _count(patience, "patience", 1)
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs must be a mapping of ports to arrays, not {inputs!r}")
    ports = component.signature.members
    expected = {name for name, port in ports.items() if port.flow == wiring.In}
    expected.discard("enable")
    if set(inputs) != expected:
        raise ValueError(f"inputs must be {', '.join(sorted(expected)) or 'none'}, "
                         f"not {', '.join(sorted(map(str, inputs))) or 'none'}")
    rows = {name: to_words(payload_shape(ports[name]), inputs[name], name) for name in inputs}
    counts = _counts(outputs, {name: len(words) for name, words in rows.items()}, ports)

    started = time.perf_counter()
    chosen = _engine(engine, Task(
        component=component, rows=rows, counts=counts, pauses=Pauses(stalls, seed, ports),
        patience=patience, progress=progress or (lambda received: None),
        timed=times is not None, vcd=vcd, coverage=coverage))
    built = time.perf_counter()
    outcome = chosen.run()
    if statistics is not None:
        statistics |= {"engine": chosen.name, "cycles": outcome.last - outcome.first + 1,
                       "build_s": built - started, "run_s": time.perf_counter() - built}
    if times is not None:
        times |= {name: np.array(cycles, np.uint64) - np.uint64(outcome.first)
                  for name, cycles in outcome.times.items()}
    return {name: from_words(payload_shape(ports[name]), words)
            for name, words in outcome.words.items()}


def _counts(outputs, rows, ports):
    """Number of payloads expected of each output."""
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
            raise TypeError("outputs must be an integer for ports that are not streams, not a "
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
        raise ValueError(f"outputs must be at most {max(lengths)}, the rows of ports that are not "
                         f"streams, not {count}")
    return dict.fromkeys(names, count)


def _count(value, name, least):
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return int(value)


def _engine(engine, task):
    """Chooses and builds the engine for a task."""
    engines = "auto", amaranth.NAME, *build.ENGINES
    if engine not in engines:
        raise ValueError(f"engine must be one of {', '.join(engines)}, not {engine!r}")
    if task.coverage is not None:
        try:
            return compiled.Compiled(task, compiled.load(task.component, build.COVERAGE),
                                     build.COVERAGE)
        except build.BuildError as error:
            raise SimulationError(str(error)) from None
    ports = task.component.signature.members
    transfers = {name: len(words) for name, words in task.rows.items()} | task.counts
    bits = sum(count * payload_width(ports[name]) for name, count in transfers.items())
    if engine == amaranth.NAME or engine == "auto" and (task.vcd or bits < _WORTH_BUILDING):
        return amaranth.engine(task)
    if task.vcd:
        raise ValueError(f"engine must be amaranth or auto to write vcd, not {engine!r}")
    if not build.compiler():
        if engine != "auto":
            raise SimulationError(f"engine {engine} needs a C++ compiler: set CXX, or install g++ "
                                  "or clang++; engine amaranth needs none")
        build.note_fallback()
        return amaranth.engine(task)
    chosen = build.fastest() if engine == "auto" else engine
    try:
        return compiled.Compiled(task, compiled.load(task.component, chosen), chosen)
    except (ValueError, build.BuildError) as error:
        if engine == "auto":
            warnings.warn(f"{error}: running on Amaranth's simulator", stacklevel=3)
            return amaranth.engine(task)
        if isinstance(error, ValueError):
            raise
        raise SimulationError(str(error)) from None


def mismatches(outputs: Any, expected: Any) -> np.ndarray:
    """Finds the rows in which two results of `run` differ.

    Parameters
    ----------
    outputs, expected : mapping of str to array or mapping
        Results of `run`.

    Returns
    -------
    bool array, shape (rows,)
        As long as the longest stream; a shorter one does not differ after its end.
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
