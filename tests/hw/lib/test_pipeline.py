# SPDX-License-Identifier: BSD-2-Clause
"""Pipelines of a chosen depth: order, rate, stalls, bubbles, enables."""

import numpy as np
import pytest
from amaranth import C, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

import sim
from hw.lib.pipeline import Control, Register, Stages, check_depth
from hw.lib.stream import link
from tests.support.compare import check
from tests.support.testbench import simulate

PAIR = data.StructLayout({"low": 3, "high": signed(5)})


class Delay(wiring.Component):
    """Pairs between streams, so many stages later; their values change places in each."""

    def __init__(self, stages, rigid=False):
        self.latency = stages
        self.rigid = rigid
        super().__init__({"i": In(stream.Signature(PAIR)), "o": Out(stream.Signature(PAIR))})

    def elaborate(self, platform):
        m = Module()

        m.submodules.control = control = Control(self.latency, rigid=self.rigid)
        link(m, self.i, control.i)
        link(m, control.o, self.o)
        stages = Stages(m, control.enable)
        pair = self.i.payload
        for stage in range(self.latency):
            pair = stages.cut(f"stage{stage}", high=pair.high, low=pair.low)
        m.d.comb += [
            self.o.payload.low.eq(pair.low),
            self.o.payload.high.eq(pair.high),
        ]

        return m


@pytest.mark.parametrize("stalls", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("stages, rigid", [(1, False), (2, False), (5, False), (5, True)])
def test_nothing_is_lost_repeated_or_reordered(stages, rigid, stalls):
    rng = np.random.default_rng(stages)
    pairs = {"low": rng.integers(0, 8, 100), "high": rng.integers(-16, 16, 100)}
    check(Delay(stages, rigid), {"i": pairs}, {"o": pairs}, stalls=stalls)


def test_rigid_stages_move_together():
    """All of them or none, bubbles included: those of the other kind close them."""
    for rigid in (False, True):
        control, seen = Control(3, rigid=rigid), []

        async def testbench(ctx, control=control, seen=seen):
            for valid in (1, 0, 0, 1, 1):
                ctx.set(control.i.valid, valid)
                seen.append(ctx.get(control.enable))
                await ctx.tick()

        simulate(control, testbench)
        assert seen == [7, 7, 7, *([0, 0] if rigid else [3, 3])]


@pytest.mark.parametrize("stages, rigid", [(1, False), (2, False), (5, False), (5, True)])
def test_one_transfer_per_cycle(stages, rigid):
    statistics, times = {}, {}
    sim.run(Delay(stages, rigid), {"i": {"low": [0] * 20, "high": [0] * 20}}, statistics=statistics,
            times=times)
    assert times["i"].tolist() == [*range(20)]
    assert times["o"].tolist() == [*range(stages, stages + 20)]
    assert statistics["cycles"] == stages + 20


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_stage_moves_if_it_is_empty_or_the_next_one_moves(count):
    control = Control(count)
    rng = np.random.default_rng(count)
    seen = set()

    async def bench(ctx):
        # The transfer that each stage holds, by its number.
        held = [None] * count
        given = taken = 0
        for _ in range(300):
            i_valid, o_ready = rng.integers(0, 2, 2).tolist()
            ctx.set(control.i.valid, i_valid)
            ctx.set(control.o.ready, o_ready)
            # Empty, or some stage behind is, or what the last one holds is taken: in this cycle.
            moves = [o_ready or None in held[stage:] for stage in range(count)]
            assert ctx.get(control.enable) == sum(bool(m) << s for s, m in enumerate(moves))
            assert ctx.get(control.i.ready) == bool(moves[0])
            assert ctx.get(control.o.valid) == (held[-1] is not None)
            seen.add((i_valid, o_ready, *(transfer is not None for transfer in held)))
            if o_ready and held[-1] is not None:
                assert held[-1] == taken
                taken += 1
            coming = [given if i_valid else None, *held[:-1]]
            given += i_valid and bool(moves[0])
            held = [new if move else old for new, move, old in
                    zip(coming, moves, held, strict=True)]
            await ctx.tick()
        assert taken > 50

    simulate(control, bench)
    # Every state with every input, of the short ones.
    assert len(seen) == 2 ** (count + 2) or count == 5


def test_ready_passes_a_full_pipeline_in_the_same_cycle():
    control = Control(3)

    async def bench(ctx):
        ctx.set(control.i.valid, 1)
        for _ in range(3):
            assert ctx.get(control.i.ready)
            await ctx.tick()
        assert not ctx.get(control.i.ready)
        ctx.set(control.o.ready, 1)
        assert (ctx.get(control.i.ready), ctx.get(control.enable)) == (1, 0b111)
        ctx.set(control.o.ready, 0)
        assert (ctx.get(control.i.ready), ctx.get(control.enable)) == (0, 0)

    simulate(control, bench)


def test_bubbles_close_while_stalled():
    delay = Delay(3)

    async def bench(ctx):
        # A transfer in every other cycle; all three stages fill up all the same, and stay so.
        for number in range(3):
            assert ctx.get(delay.i.ready)
            ctx.set(delay.i.valid, 1)
            ctx.set(delay.i.payload, {"low": number, "high": -number})
            await ctx.tick()
            ctx.set(delay.i.valid, 0)
            await ctx.tick()
        await ctx.tick().repeat(2)
        assert not ctx.get(delay.i.ready)
        ctx.set(delay.o.ready, 1)
        for number in range(3):
            assert (ctx.get(delay.o.valid), ctx.get(delay.o.payload.low),
                    ctx.get(delay.o.payload.high)) == (1, number, -number)
            await ctx.tick()
        assert not ctx.get(delay.o.valid)

    simulate(delay, bench)


def test_register_takes_with_enable_only():
    register = Register(PAIR)
    assert register.latency == 1

    async def bench(ctx):
        expected = None
        for low, high, enable in [(1, -2, 1), (3, 4, 0), (5, -16, 0), (7, 15, 1), (0, 0, 1),
                                  (2, -1, 1), (6, 6, 0), (6, 6, 0)]:
            ctx.set(register.i, {"low": low, "high": high})
            ctx.set(register.enable, enable)
            # Nothing passes in the same cycle.
            if expected:
                assert (ctx.get(register.o.low), ctx.get(register.o.high)) == expected
            await ctx.tick()
            expected = (low, high) if enable else expected
        assert (ctx.get(register.o.low), ctx.get(register.o.high)) == (2, -1)

    simulate(register, bench)


def cut_stages(stages, value):
    values = [value]
    for stage in range(3):
        values.append(stages.cut(f"stage{stage}", value=values[-1]).value)
    return values[1:]


def hold_stages(stages, value):
    values = [value]
    for stage in range(3):
        values.append(stages.hold(f"stage{stage}", values[-1]))
    return values[1:]


@pytest.mark.parametrize("register", [cut_stages, hold_stages])
def test_stages_take_their_enables_in_order(register):
    m = Module()
    enable, value = Signal(3), Signal(signed(8))
    held = register(Stages(m, enable), value)

    async def bench(ctx):
        expected = [0, 0, 0]
        for number, enables in enumerate([0b001, 0b010, 0b100, 0b011, 0b110, 0b101, 0b000, 0b111]):
            ctx.set(value, -number)
            ctx.set(enable, enables)
            expected = [new if enables >> stage & 1 else old for stage, (new, old) in
                        enumerate(zip([-number, *expected], expected, strict=False))]
            await ctx.tick()
            assert [ctx.get(register) for register in held] == expected

    simulate(m, bench)


@pytest.mark.parametrize("stages", [0, 1, 4])
def test_delay(stages):
    m = Module()
    pair = Signal(PAIR)
    delayed = Stages(m, C(0b1111, 4)).delay("pair", pair, stages)
    assert delayed.shape() == PAIR
    # The simulator wants a clock.
    m.d.sync += Signal().eq(0)

    async def bench(ctx):
        for number in range(10):
            ctx.set(pair, {"low": number % 8, "high": -number})
            if number >= stages:
                before = number - stages
                assert (ctx.get(delayed.low), ctx.get(delayed.high)) == (before % 8, -before)
            await ctx.tick()

    simulate(m, bench)


@pytest.mark.parametrize("depth, offered, text", [
    (1, (0, 2), "Pipeline depth must be 0 or 2, not 1"),
    (3, (0, 1, 2), "Pipeline depth must be 0, 1 or 2, not 3"),
    (True, (0, 1), "Pipeline depth must be 0 or 1, not True"),
    (2.0, (0, 2), "Pipeline depth must be 0 or 2, not 2.0"),
    ("2", (0, 2), "Pipeline depth must be 0 or 2, not '2'"),
    (None, (0, 2), "Pipeline depth must be 0 or 2, not None"),
])
def test_other_depths_are_refused(depth, offered, text):
    with pytest.raises(ValueError) as error:
        check_depth(depth, offered)
    assert str(error.value) == text


def test_depths_that_are_offered():
    for depth in (0, 2, 3):
        check_depth(depth, (0, 2, 3))
