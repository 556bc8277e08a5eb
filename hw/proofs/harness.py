# SPDX-License-Identifier: BSD-2-Clause
"""What a proof is about: a component with free inputs, assumptions and claims."""

from collections.abc import Callable
from dataclasses import dataclass, field

from amaranth.hdl import Elaboratable, Module, ShapeLike, Signal, Value, ValueLike

CONSTANT = "constant_"
"""Begins the names of inputs that keep their value for ever."""


@dataclass(frozen=True)
class Cut:
    """Ports about a signal at which a proof is cut.

    Attributes
    ----------
    fits : str
        Whether the signal has all bits of its value.
    guarantees : list of str
        What the second step may assume.
    """

    fits: str
    guarantees: list[str] = field(default_factory=list)


class Harness(Elaboratable):
    """A circuit around a component: inputs that may be anything, assumptions, claims, witnesses.

    Everything is one bit per cycle. A claim must be 1 in every cycle up to which, from the reset
    on, all assumptions were 1. The harness may have registers of its own, such as the counters of a
    scoreboard; they are reset with the component's.

    Attributes
    ----------
    m : Module
        Takes the component and the logic of the proof.
    inputs, assumptions, claims, witnesses : dict of str to Signal
        What was added, by name.
    verilog : list of str
        Verilog of modules of which the harness has instances.
    shown : dict of str to Signal
        Outputs that analyses read, by name.
    analyses : list of callable
        Each takes the circuit and returns it with the logic of claims that depend on its
        structure, see `hw.proofs.dependence`.
    searches : list of callable
        Each takes the harness and the circuit, and returns it with claims about its registers.
    cases : dict of str to Signal
        Inputs for each of whose values there is a proof, see `case`.
    cuts : dict of str to Cut
        Signals at which the proof is cut, see `cut`.
    """

    def __init__(self) -> None:
        self.m = Module()
        self.inputs: dict[str, Signal] = {}
        self.assumptions: dict[str, Signal] = {}
        self.claims: dict[str, Signal] = {}
        self.witnesses: dict[str, Signal] = {}
        self.verilog: list[str] = []
        self.shown: dict[str, Signal] = {}
        self.analyses: list[Callable] = []
        self.searches: list[Callable] = []
        self.cases: dict[str, Signal] = {}
        self.cuts: dict[str, Cut] = {}
        self._steps: dict[str, Signal] = {}

    def input(self, name: str, shape: ShapeLike = 1) -> Signal:
        """Returns a signal that has any value in each cycle."""
        return self._add(self.inputs, name, Signal(shape, name=name))

    def constant(self, name: str, shape: ShapeLike = 1) -> Signal:
        """Returns a signal that has any value, the same in all cycles."""
        name = CONSTANT + name
        return self._add(self.inputs, name, Signal(shape, name=name))

    def case(self, name: str, shape: ShapeLike = 1) -> Signal:
        """Returns an input like those of `input`, for each of whose values there is a proof.

        The value is a constant there, of which little of the circuit may be left. For proofs about
        circuits without state.
        """
        signal = self.input(name, shape)
        self.cases[name] = signal
        return signal

    def cut(self, name: str, shape: ShapeLike, value: ValueLike,
            *guarantees: Callable[[Signal], ValueLike]) -> Signal:
        """Divides a proof into two steps: what makes a value, and what is made of it.

        The first step is to prove that the component has the value, too, wherever it has one that
        agrees for random inputs; that the value fits into the shape; and the guarantees. In the
        second step the value may be anything that they allow. Cuts are made in the order in which
        they are added. For proofs about circuits without state.

        Parameters
        ----------
        name : str
        shape : ShapeLike
            With as few bits as the value needs.
        value : Value
            Made by the specification of the proof, not by the component.
        *guarantees : callable
            ``guarantee(signal)`` is what the second step may assume.

        Returns
        -------
        Signal
            The value, of that shape.
        """
        name = f"cut_{name}"
        signal = self._add(self._steps, name, Signal(shape, name=name))
        self.m.d.comb += signal.eq(value)
        self._drive(self._steps, f"{name}_fits", signal == value)
        self.cuts[name] = Cut(fits=f"{name}_fits")
        for number, guarantee in enumerate(guarantees):
            self.cuts[name].guarantees.append(f"{name}_guarantee{number}")
            self._drive(self._steps, f"{name}_guarantee{number}", guarantee(signal))
        return signal

    def assume(self, name: str, holds: ValueLike) -> None:
        """Leaves out all runs in which this is not so."""
        self._drive(self.assumptions, f"assume_{name}", holds)

    def claim(self, name: str, holds: ValueLike) -> None:
        """Claims that this is so in all cycles. Claims also strengthen each other's induction."""
        self._drive(self.claims, f"claim_{name}", holds)

    def witness(self, name: str, holds: ValueLike) -> None:
        """Says that this happens in some run, so that the claims are not about nothing."""
        self._drive(self.witnesses, f"witness_{name}", holds)

    def _drive(self, kind, name, holds):
        signal = self._add(kind, name, Signal(name=name))
        self.m.d.comb += signal.eq(Value.cast(holds).any())

    def _add(self, kind, name, signal):
        if name in kind:
            raise ValueError(f"Name must be new, not {name!r} again")
        kind[name] = signal
        return signal

    def ports(self) -> dict[str, Signal]:
        """All signals that the proof reads or drives, by name."""
        return {**self.inputs, **self.assumptions, **self.claims, **self.witnesses,
                **self.shown, **self._steps}

    def elaborate(self, platform):
        """Returns the module."""
        return self.m
