# SPDX-License-Identifier: BSD-2-Clause
"""Pipelines whose data have no handshake of their own."""

from types import SimpleNamespace

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


def check_depth(depth, offered):
    """Raises ValueError unless a unit's parameter ``depth`` is one of those offered."""
    if type(depth) is not int or depth not in offered:
        allowed = f"{', '.join(map(str, offered[:-1]))} or {offered[-1]}"
        raise ValueError(f"Pipeline depth must be {allowed}, not {depth!r}")


class Register(wiring.Component):
    """Holds a payload: ``o`` takes ``i`` with ``enable``. Latency 1.

    A module of its own: synthesis of the Verilog cannot take the logic before it for resets of
    some of its bits, and it keeps its name.

    Parameters
    ----------
    shape : ShapeLike

    Members
    -------
    i : In(shape)
    enable : In(1)
    o : Out(shape)
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
    """The registers of a pipeline, one stage after the other.

    Parameters
    ----------
    m : Module
    enable : Value
        Moves each stage, the first in the least significant bit.
    """

    def __init__(self, m, enable):
        self.m = m
        self.enables = list(enable)

    def cut(self, stage, **values):
        """Holds values in the next stage's register, which has this name.

        Returns
        -------
        SimpleNamespace
            The values of the stage before.
        """
        shapes = {name: value.shape() for name, value in values.items()}
        register = Register(data.StructLayout(shapes))
        self.m.submodules[stage] = register
        self.m.d.comb += [
            register.enable.eq(self.enables.pop(0)),
            *(register.i[name].eq(value) for name, value in values.items()),
        ]
        return SimpleNamespace(**{name: register.o[name] for name in values})


class Control(wiring.Component):
    """Moves the stages of a pipeline: a stage takes what is before it if it is empty or moves on.

    One transfer per cycle; bubbles close while stalled. ``i_ready`` depends combinationally on
    ``o_ready``.

    Parameters
    ----------
    stages : int

    Members
    -------
    i_valid, i_ready, o_valid, o_ready : In(1), Out(1), Out(1), In(1)
        As of a stream's.
    enable : Out(stages)
        Moves each stage's registers, first stage in the least significant bit.
    """

    def __init__(self, stages):
        self.latency = stages
        super().__init__({
            "i_valid": In(1),
            "i_ready": Out(1),
            "o_valid": Out(1),
            "o_ready": In(1),
            "enable": Out(stages),
        })

    def elaborate(self, platform):
        m = Module()

        valid = [Signal(name=f"valid{stage}") for stage in range(self.latency)]
        enable = [Signal(name=f"enable{stage}") for stage in range(self.latency)]
        for stage in range(self.latency):
            before = valid[stage - 1] if stage else self.i_valid
            after = enable[stage + 1] if stage + 1 < self.latency else self.o_ready
            m.d.comb += enable[stage].eq(~valid[stage] | after)
            with m.If(enable[stage]):
                m.d.sync += valid[stage].eq(before)
        m.d.comb += [
            self.i_ready.eq(enable[0]),
            self.o_valid.eq(valid[-1]),
            self.enable.eq(Cat(enable)),
        ]

        return m
