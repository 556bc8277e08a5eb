# SPDX-License-Identifier: BSD-2-Clause
"""What all engines share: the task, streams and ports, pauses, and the errors of streams."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from amaranth import Shape
from amaranth.lib import wiring

from golden.command import Failure

PERIOD = 1 << 16
"""Cycles after which the pattern of pauses repeats."""


class SimulationError(Failure):
    """The component broke the rules of its streams, or stopped, or could not be built."""


class Deadlock(SimulationError):
    """No payload moved for as many cycles as the run was told to wait."""


class ProtocolError(SimulationError):
    """A stream withdrew or changed a payload that was not taken, or sent more than expected."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What an engine runs.

    Attributes
    ----------
    component : wiring.Component
    rows : dict of str to uint32 array, shape (n, words)
        Payloads of every input by port or stream name, see `hw.tools.packing.to_words`.
    counts : dict of str to int
        Payloads expected of every output.
    pauses : Pauses
    patience : int
        Cycles without a transfer after which the run is given up.
    progress : callable
        Called with the number of outputs received.
    timed : bool
        Whether the cycles of the transfers are wanted.
    vcd : str or path, optional
        Waveform file.
    coverage : path, optional
        File for what was covered.
    """

    component: Any
    rows: dict
    counts: dict
    pauses: "Pauses"
    patience: int
    progress: Callable[[int], Any]
    timed: bool
    vcd: Any = None
    coverage: Path | None = None

    @property
    def has_streams(self) -> bool:
        """Whether the component's ports are streams; else they are plain ports."""
        return all(port.is_signature for port in self.component.signature.members.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What an engine returns.

    Attributes
    ----------
    words : dict of str to uint32 array, shape (n, words)
        Payloads of every output.
    first, last : int
        Cycle of the first payload offered or taken, and of the last output taken.
    times : dict of str to sequence of int
        Cycles of the transfers by port or stream name; an engine may leave them out unless the
        task is timed.
    """

    words: dict
    first: int
    last: int
    times: dict


class EndState(Protocol):
    """What the text of a deadlock says about one end of a stream."""

    done: int
    total: int
    valid: int
    ready: int


class Pauses:
    """The cycles in which each end of a stream pauses, the same for all engines.

    Parameters
    ----------
    stalls : float or mapping of str to float
        Probability that an end pauses in a cycle, of all or of each by its name.
    seed : int
    ports : mapping of str to wiring.Member
        Ports of the component. An output that is ``always_ready`` never pauses.
    """

    def __init__(self, stalls: float | Mapping[str, float], seed: int,
                 ports: Mapping[str, Any]) -> None:
        self.stalls = stalls
        self.seed = seed
        self.tireless = {name for name, port in ports.items() if port.is_signature
                         and port.flow == wiring.Out and port.signature.always_ready}

    def __getitem__(self, name: str) -> bytes:
        """One byte per cycle of a period of `PERIOD` cycles."""
        if name in self.tireless:
            return bytes(PERIOD)
        generator = np.random.default_rng(list(f"{self.seed} {name}".encode()))
        stalls = self.stalls[name] if isinstance(self.stalls, Mapping) else self.stalls
        pauses = generator.random(PERIOD) < stalls
        # One cycle without a pause, so that an end never pauses forever.
        pauses[-1] = False
        return pauses.tobytes()


def payload_shape(port: Any) -> Any:
    """Shape of a port, or of the payload if the port is a stream."""
    return port.signature.members["payload"].shape if port.is_signature else port.shape


def payload_width(port: Any) -> int:
    """Bits of `payload_shape`."""
    return Shape.cast(payload_shape(port)).width


def broken(name: str, number: int) -> ProtocolError:
    """The error of an output that did not hold a payload until it was taken."""
    return ProtocolError(f"{name} withdrew or changed payload {number} before it was taken")


def surplus(name: str, count: int) -> ProtocolError:
    """The error of an output that sent more payloads than expected."""
    return ProtocolError(f"{name} sent more than {count} payloads")


def deadlock(patience: int, sources: Mapping[str, EndState],
             sinks: Mapping[str, EndState]) -> Deadlock:
    """The error of a run in which nothing moves any more; says what is outstanding."""
    states = (f"{name} {did} {end.done} of {end.total} (valid {end.valid}, ready {end.ready})"
              for did, ends in (("took", sources), ("gave", sinks)) for name, end in ends.items())
    return Deadlock(f"No transfer for {patience} cycles: " + "; ".join(states))
