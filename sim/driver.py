# SPDX-License-Identifier: BSD-2-Clause
"""What a host does between an accelerator's commands.

A `Driver` quantizes weights once and plans their streams once. For each product it sends a command
and its operands in the order of the plan, takes the results, and compares them with golden's. The
machine is golden itself, the compiled RTL, or the RTL behind its AXI registers; it goes on from
command to command.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from golden import Quantized, quantize_activations, quantize_weights
from golden.accelerator import accelerator as golden_accelerator
from golden.accelerator import planner
from golden.command import Failure
from golden.units.group_mac import Decoded
from golden.units.sg_engine import sg_engine
from hw.accelerator.config import Config, configuration
from hw.accelerator.planner import Status

from .accelerator import golden_config
from .cycles import RESULTS, SOURCES, NoClosedForm, cycles
from .gemm import TYPES
from .runner import mismatches

Progress = Callable[[int, int], object]
"""Takes the number of rows of results that came, and their total."""


class Layer:
    """A weight that is ready for products: quantized, and decoded for golden.

    Parameters
    ----------
    w : Quantized
        Weights of shape (N, K), which both are any.

    Attributes
    ----------
    streams : dict
        Where a machine keeps the weight's stream, which is planned once.
    """

    def __init__(self, w: Quantized) -> None:
        self.decoded = Decoded(w)
        self.streams: dict[Any, np.ndarray] = {}

    @property
    def n(self) -> int:
        """Columns of the products."""
        return self.decoded.q.shape[0]

    @property
    def k(self) -> int:
        """Length of the dot products."""
        return self.decoded.q.shape[1]


@dataclass(kw_only=True)
class Tally:
    """What a driver has done.

    Attributes
    ----------
    commands, rows, mismatches : int
        Commands, rows of their results that left the machine, and those that differ from golden's.
    products : int
        Multiplications that the products need.
    cycles, closed : int
        Cycles from each command's offer to its status, and the same in closed form; of a command
        that none is known of, what it took.
    unknown : int
        Commands that no closed form is known of. Golden counts no cycles for them.
    kept : int
        Results that stayed on chip.
    """

    commands: int = 0
    rows: int = 0
    mismatches: int = 0
    products: int = 0
    cycles: int = 0
    closed: int = 0
    unknown: int = 0
    kept: int = 0

    def __sub__(self, other: "Tally") -> "Tally":
        theirs = asdict(other)
        return Tally(**{name: value - theirs[name] for name, value in asdict(self).items()})


class Machine(Protocol):
    """What executes commands, one after the other, from `restart` on.

    Attributes
    ----------
    config : hw.accelerator.config.Config
    cycles : int
        Cycles of the last command, from its offer to its status.
    """

    config: Config
    cycles: int

    def restart(self) -> None:
        """Resets the machine; it keeps nothing."""

    def run(self, command: dict[str, Any], layer: Layer, executed: tuple[int, Any, Any],
            progress: Progress | None) -> dict[str, Any] | None:
        """Runs a command.

        Parameters
        ----------
        command : dict
            As `golden.accelerator.accelerator.execute` takes it.
        layer : Layer
            Its weight.
        executed : tuple
            Status, plan and product of golden.
        progress : callable, optional

        Returns
        -------
        dict of str to array or dict, or None
            Results and the status by port, as `golden.accelerator.accelerator.answers` gives them;
            None if they are golden's own.
        """


class Golden:
    """The golden model as a machine. Its results are golden's, its cycles the closed form's."""

    def __init__(self, config: Config | str) -> None:
        self.config = configuration(config)
        self.cycles = 0

    def restart(self) -> None:
        """Does nothing: what is kept, the driver's own golden model keeps."""

    def run(self, command: dict[str, Any], layer: Layer, executed: tuple[int, Any, Any],
            progress: Progress | None) -> None:
        """Leaves the results to golden; see `Machine`."""
        self.cycles = closed_form(self.config, command) or 0


class Driver:
    """Runs products on a machine.

    Parameters
    ----------
    machine : Machine

    Attributes
    ----------
    tally : Tally
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.config = golden_config(machine.config)
        self.tally = Tally()
        self.restart()

    def restart(self) -> None:
        """Resets the machine. Layers stay loaded: they are the host's."""
        self.machine.restart()
        self._golden = golden_accelerator.Machine(self.config)

    def load(self, weight: np.ndarray | Quantized, *, threads: int = 1) -> Layer:
        """Quantizes a weight, unless it is in the machine's encoding already.

        Parameters
        ----------
        weight : float array or Quantized, shape (N, K)
        threads : int
            Threads that quantize.

        Returns
        -------
        Layer

        Raises
        ------
        ValueError
            If it is quantized in another encoding.
        """
        encoding = self.config.weight_encoding
        if not isinstance(weight, Quantized):
            weight = quantize_weights(weight, encoding=encoding, threads=threads)
        if weight.encoding != encoding:
            raise ValueError(f"weights must be in {encoding} for activations in "
                             f"{self.config.encoding}, not in {weight.encoding}")
        return Layer(weight)

    def product(self, layer: Layer, x: np.ndarray, *, progress: Progress | None = None
                ) -> np.ndarray:
        """One product with a weight.

        Parameters
        ----------
        layer : Layer
        x : float32 array, shape (M, K)
            Activations. They are rounded to the machine's type and quantized on the way in; where
            it takes no values, the host encodes them.
        progress : callable, optional
            Called with rows of results and their total.

        Returns
        -------
        float32 array, shape (M, N)

        Raises
        ------
        Failure
            If the machine ends the command with a code other than DONE.
        SimulationError
            If the machine's streams stop or break their rules.
        """
        return self.chain([layer], x, progress=progress)

    def chain(self, layers: Sequence[Layer], x: np.ndarray, *, progress: Progress | None = None
              ) -> np.ndarray:
        """Products one after the other, each quantized result the input of the next.

        A result stays on chip where it fits; otherwise it leaves as records and comes back. Both
        give the same bits. The machine must quantize results if there is more than one layer.

        Parameters
        ----------
        layers : sequence of Layer
        x, progress
            As in `product`.

        Returns
        -------
        float32 array
            Result of the last layer.
        """
        given, m = self._given(x), len(x)
        for layer, after in zip(layers, layers[1:], strict=False):
            if after.k != layer.n:
                raise ValueError(f"layers must take what the one before gives, {layer.n} columns, "
                                 f"not {after.k}")
            command = {"m": m, "k": layer.k, "n": layer.n, **given, "result": planner.KEEP}
            if self._status(command) == planner.TOO_LARGE:
                command["result"] = planner.RECORDS_OUT
                given = {"source": planner.RECORDS, "a": self._run(command, layer, progress)}
            else:
                self._run(command, layer, progress)
                self.tally.kept += 1
                given = {"source": planner.KEPT}
        last = layers[-1]
        command = {"m": m, "k": last.k, "n": last.n, **given, "result": planner.VALUES_OUT}
        return self._run(command, last, progress)

    def _given(self, x):
        """Source of the first command, and its activations."""
        if self.config.input is not None:
            return {"source": planner.VALUES, "x": x.astype(TYPES[self.config.input])}
        encoding = self.config.encoding
        if self.config.engine is not None:
            a = golden_accelerator.quantized(self.config, x)
        elif encoding == "sg-em":
            a = sg_engine(x, encoding=encoding)
        else:
            a = quantize_activations(x, encoding=encoding)
        return {"source": planner.RECORDS, "a": a}

    def _status(self, command):
        kept = self._golden.kept
        return planner.check(self.config, *(command[name] for name in (
            "m", "k", "n", "source", "result")), kept and kept.shape)

    def _run(self, command, layer, progress):
        """Runs a command on the machine and on golden, compares, and returns the result."""
        if (code := self._status(command)) != planner.DONE:
            raise Failure(f"the machine cannot run {command['m']} x {command['k']} x "
                          f"{command['n']}: {Status(code).name}")
        executed = self._golden.execute(command | {"w": layer.decoded})
        outputs = self.machine.run(command, layer, executed, progress)
        self._count(command, executed, outputs)
        _, plan, y = executed
        if command["result"] == planner.RECORDS_OUT:
            if outputs is None:
                return golden_accelerator.quantized(self.config, y)
            return golden_accelerator.result_of(
                self.config, plan, outputs["o_record"]["record"], *y.shape)
        if command["result"] == planner.VALUES_OUT and outputs is not None:
            rows = outputs["o"]["values"].view(np.float32)
            return golden_accelerator.result_matrix(self.config, plan, rows, command["n"])
        return y

    def _count(self, command, executed, outputs):
        """Adds a command to the tally; compares what left the machine with golden."""
        tally = self.tally
        tally.commands += 1
        tally.products += command["m"] * command["k"] * command["n"]
        tally.cycles += self.machine.cycles
        closed = closed_form(self.machine.config, command)
        tally.closed += self.machine.cycles if closed is None else closed
        tally.unknown += closed is None
        if outputs is None:
            return
        expected = golden_accelerator.answers(self.config, [command], [executed])
        for name, rows in outputs.items():
            wrong = mismatches(rows, expected[name])
            tally.mismatches += int(wrong.sum())
            tally.rows += len(wrong) * (name in ("o", "o_record"))


def closed_form(config: Config, command: dict[str, Any]) -> int | None:
    """Cycles of a command, see `sim.cycles`; None if no closed form is known."""
    try:
        return cycles(config, *(command[name] for name in "mkn"),
                      source=SOURCES[command["source"]], result=RESULTS[command["result"]])
    except NoClosedForm:
        return None
