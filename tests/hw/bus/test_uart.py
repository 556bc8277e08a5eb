# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Both ends of a serial line."""

import pytest

from hw.bus.uart import UartReceiver, UartTransmitter
from sim.engines.amaranth import Simulated


@pytest.mark.parametrize("kind", [UartReceiver, UartTransmitter])
@pytest.mark.parametrize("divisor", [3, 4.0, None])
def test_divisor(kind, divisor):
    with pytest.raises(ValueError, match=rf"Divisor must be .* at least 4, not {divisor}"):
        kind(divisor=divisor)


def received(levels, divisor):
    """Bytes that a receiver takes from a line with these levels, one per cycle."""
    unit, taken = UartReceiver(divisor=divisor), []

    async def bench(ctx):
        for level in levels:
            ctx.set(unit.rx, level)
            _, _, valid, payload = await ctx.tick().sample(unit.o.valid, unit.o.payload)
            if valid:
                taken.append(payload)

    Simulated(unit).run(bench)
    return taken


def line(bits, cycles):
    """Levels of bits that last so many cycles each, which need not be whole."""
    return [bits[int(cycle / cycles)] for cycle in range(int(len(bits) * cycles))]


def bits(byte, stop=1):
    return [0, *(byte >> n & 1 for n in range(8)), stop]


@pytest.mark.parametrize("cycles", [7.7, 7.8, 8, 8.2])
def test_receiver_takes_a_rate_that_is_off(cycles):
    data = [0x00, 0xFF, 0x55, 0x80, 0x01]
    levels = line([1, *(bit for byte in data for bit in bits(byte)), 1, 1], cycles)
    assert received(levels, 8) == data


def test_receiver_gives_a_byte_in_the_middle_of_its_stop_bit():
    """Two registers bring the line to the clock: the byte is there two cycles behind the middle."""
    unit, cycles = UartReceiver(divisor=8), []

    async def bench(ctx):
        for cycle, level in enumerate(line([*bits(0x5A), 1], 8)):
            ctx.set(unit.rx, level)
            _, _, valid = await ctx.tick().sample(unit.o.valid)
            if valid:
                cycles.append(cycle)

    Simulated(unit).run(bench)
    assert cycles == [9 * 8 + 4 + 2]


def test_receiver_drops_a_byte_without_stop_bit_and_a_short_start_bit():
    broken = line([*bits(0x42, stop=0), 1, 1], 8)
    assert received([*broken, 0, 0, *[1] * 90, *line([*bits(0x43), 1], 8)], 8) == [0x43]


def test_receiver_waits_for_the_end_of_a_break():
    """A line that is low for long holds no byte, wherever in a frame it goes up again."""
    for low in range(12, 22):
        levels = line([1, *[0] * low, *[1] * 12, *bits(0x43), 1, 1], 8)
        assert received(levels, 8) == [0x43], low


def test_transmitter():
    unit, levels = UartTransmitter(divisor=4), []

    async def bench(ctx):
        pending = [0xA6, 0x01]
        for _ in range(90):
            ctx.set(unit.i.valid, bool(pending))
            ctx.set(unit.i.payload, pending[0] if pending else 0)
            levels.append(ctx.get(unit.tx))
            _, _, ready = await ctx.tick().sample(unit.i.ready)
            if ready and pending:
                pending.pop(0)

    Simulated(unit).run(bench)
    first, second = line(bits(0xA6), 4), line(bits(0x01), 4)
    # One cycle at the start, and one between bytes.
    assert levels == [1, *first, 1, *second, *[1] * (90 - 2 - 80)]
