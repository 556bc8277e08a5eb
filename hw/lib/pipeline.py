# SPDX-License-Identifier: BSD-2-Clause
"""Registers of pipelines, and the handshake that moves them."""

from types import SimpleNamespace

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .stream import Handshake


def check_depth(depth, offered):
    """Checks a unit's parameter ``depth``.

    Parameters
    ----------
    depth : int
    offered : tuple of int, at least two

    Raises
    ------
    ValueError
        If ``depth`` is not one of those offered.
    """
    if type(depth) is not int or depth not in offered:
        allowed = f"{', '.join(map(str, offered[:-1]))} or {offered[-1]}"
        raise ValueError(f"Pipeline depth must be {allowed}, not {depth!r}")


class Register(wiring.Component):
    """Holds a payload: ``o`` takes ``i`` at clock edges at which ``enable`` is set. Latency 1.

    It is a module of its own for two reasons. Synthesis of the Verilog cannot take the logic in
    front of the register for resets of some of its bits, and the register keeps its name.

    Parameters
    ----------
    shape : ShapeLike

    Members
    -------
    i : In(shape)
    enable : In(1)
    o : Out(shape)
        Undefined until the first payload was taken.
    """

    latency = 1

    def __init__(self, shape):
        super().__init__({"i": In(shape), "enable": In(1), "o": Out(shape)})

    def elaborate(self, platform):
        m = Module()

        held = Signal.like(self.i, reset_less=True)
        with m.If(self.enable):
            m.d.sync += held.eq(self.i)
        m.d.comb += self.o.eq(held)

        return m


class Stages:
    """Adds the registers of a pipeline to a module, one stage after the other.

    Parameters
    ----------
    m : Module
    enable : Value
        Moves each stage, the first in the least significant bit.
    """

    def __init__(self, m, enable):
        self.m = m
        self.enables = list(enable)

    def hold(self, stage, value):
        """Holds one value in the next stage's register.

        Parameters
        ----------
        stage : str
            Name of the register.
        value : Value or View

        Returns
        -------
        Value or View
            The value of the cycle before, of the same shape.
        """
        register = Register(value.shape())
        self.m.submodules[stage] = register
        self.m.d.comb += [
            register.enable.eq(self.enables.pop(0)),
            register.i.eq(value),
        ]
        return register.o

    def cut(self, stage, **values):
        """Holds several values in the next stage's register.

        Parameters
        ----------
        stage : str
            Name of the register.
        **values : Value or View

        Returns
        -------
        SimpleNamespace
            The values of the cycle before.
        """
        shapes = {name: value.shape() for name, value in values.items()}
        register = Register(data.StructLayout(shapes))
        self.m.submodules[stage] = register
        self.m.d.comb += [
            register.enable.eq(self.enables.pop(0)),
            *(register.i[name].eq(value) for name, value in values.items()),
        ]
        return SimpleNamespace(**{name: register.o[name] for name in values})

    def delay(self, name, value, stages):
        """Holds one value in so many stages' registers, ``name0``, ``name1`` and so on."""
        for stage in range(stages):
            value = self.hold(f"{name}{stage}", value)
        return value


class Control(wiring.Component):
    """Moves the stages of a pipeline whose data are apart.

    A stage takes the data before it if it is empty or its own data move on. One transfer per cycle;
    bubbles close while the output is stalled. ``i.ready`` depends combinationally on ``o.ready``.
    Latency ``stages``.

    Parameters
    ----------
    stages : int, at least 1
    rigid : bool
        Whether all stages move at once, if the last one is empty or its data move on. Bubbles stay
        while the output is stalled, and the path through the stages' ready is short, however many
        there are.

    Members
    -------
    i : In(Handshake)
        Of the data that enter the first stage.
    o : Out(Handshake)
        Of the data in the last stage.
    enable : Out(stages)
        Moves each stage's registers, first stage in the least significant bit.
    """

    def __init__(self, stages, *, rigid=False):
        self.latency = stages
        self._rigid = rigid
        super().__init__({
            "i": In(Handshake),
            "o": Out(Handshake),
            "enable": Out(stages),
        })

    def elaborate(self, platform):
        m = Module()

        valid = [Signal(name=f"valid{stage}") for stage in range(self.latency)]
        enable = [Signal(name=f"enable{stage}") for stage in range(self.latency)]
        for stage in range(self.latency):
            before = valid[stage - 1] if stage else self.i.valid
            after = enable[stage + 1] if stage + 1 < self.latency else self.o.ready
            if self._rigid:
                m.d.comb += enable[stage].eq(~valid[-1] | self.o.ready)
            else:
                m.d.comb += enable[stage].eq(~valid[stage] | after)
            with m.If(enable[stage]):
                m.d.sync += valid[stage].eq(before)
        m.d.comb += [
            self.i.ready.eq(enable[0]),
            self.o.valid.eq(valid[-1]),
            self.enable.eq(Cat(enable)),
        ]

        return m
