# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The rounding and normalization of the float adder against exact integers."""

from itertools import product

import pytest
from amaranth import Module, Signal
from amaranth.lib import data

from hw.lib.float_adder import (
    GroupSum,
    Normalizer,
    PlainSum,
    SpecialSum,
    TermAdder,
    WideSum,
    of_codes,
    scale_sum,
    term_layout,
    wide_scale_sum,
)
from hw.lib.formats import special_scale
from tests.support.testbench import simulate

VARIANTS = pytest.mark.parametrize("metadata, fine", [*product((True, False), repeat=2)])
ONE = 0x3F800000


def stream(unit, rows, output):
    """Gives the inputs of a row per cycle, and compares its output ``latency`` cycles later."""
    assert len(rows) > unit.latency

    async def bench(ctx):
        ctx.set(unit.enable, (1 << unit.latency) - 1)
        compared = 0
        for number in range(len(rows) + unit.latency - 1):
            for port, value in rows[min(number, len(rows) - 1)][0].items():
                ctx.set(getattr(unit, port), value)
            await ctx.tick()
            due = number - unit.latency + 1
            if due >= 0:
                inputs, expected = rows[due]
                assert output(ctx) == expected, inputs
                compared += 1
        assert compared == len(rows)

    simulate(unit, bench)


def test_widths():
    assert [layout["sum"].width for layout in (GroupSum, PlainSum, SpecialSum, WideSum)] == [
        19, 14, 20, 23]
    assert term_layout(True, special=True, wide=True)["significand"].width == 22
    assert term_layout(True, special=True)["significand"].width == 19
    assert term_layout(True)["significand"].width == 18
    assert term_layout(False)["significand"].width == 13


@pytest.mark.parametrize("kind, fine", [
    *product(("refined", "plain", "special", "wide"), (True, False)), ("paired", False)])
def test_normalizer(kind, fine):
    wide, paired = kind in ("wide", "paired"), kind == "paired"
    unit = Normalizer(metadata=kind != "plain", fine=fine, special=kind == "special" or wide,
                      wide=wide, paired=paired)
    assert unit.latency == 1 + fine
    width, unit_exponent, most = {"refined": (18, 260, 131712), "plain": (13, 256, 4608),
                                  "special": (19, 260, 401408)}.get(
                                      kind, (22, 260, 3211264))
    sums = {sign * min(most, max(0, (1 << place) + off))
            for place in range(width) for off in (-1, 0, 1) for sign in (1, -1)}
    rows = []
    for value, (scale, nan) in product(sorted(sums), ((0, 0), (254, 0), (510, 1))):
        zeros = width - abs(value).bit_length()
        # The significand's lowest place is worth 2**(exponent - 127 - (width - 1)), so that the
        # value is what it was. The exponent of zero means nothing.
        exponent = scale - unit_exponent - zeros + 127 + width - 1
        less = {"less": value - 1} if paired else {}
        rows.append(({"sum": value, **less, "scale": {"exponent": scale, "nan": nan}},
                     (abs(value) << zeros, value < 0, nan, exponent if value else None)))

    def output(ctx):
        significand = ctx.get(unit.o.significand)
        return (significand, ctx.get(unit.o.negative), ctx.get(unit.o.nan),
                ctx.get(unit.o.exponent) if significand else None)

    stream(unit, rows, output)


# The last kept bit of acc, what is added to it in ulps as a binary fraction, and the ulps that the
# sum rounds to: guard, sticky and last bit in all combinations, from both sides.
ROUNDING = [
    # last  significand of the term, its lowest place in ulps  ulps
    (0, 0b001, -3, 0), (1, 0b001, -3, 0),       # guard 0, sticky 1
    (0, 0b011, -3, 0), (1, 0b011, -3, 0),
    (0, 0b1, -1, 0), (1, 0b1, -1, 1),           # guard 1, sticky 0: ties to even
    (0, 0b101, -3, 1), (1, 0b101, -3, 1),       # guard 1, sticky 1
    (0, 0b10000001, -8, 1), (1, 0b10000001, -8, 1),
    (0, 0b01111111, -8, 0), (1, 0b01111111, -8, 0),
    (0, 0b1, 0, 1), (1, 0b1, 0, 1),             # exact
]


def test_scales_of_groups_of_64():
    """Exponents of six bits add up to what their codes do, and byte 255 is NaN."""
    m = Module()
    given = Signal(data.ArrayLayout(8, 2))
    scale = of_codes(wide_scale_sum(special_scale(given[0]), given[1]))
    exponent, nan = Signal(9), Signal()
    m.d.comb += [exponent.eq(scale.exponent), nan.eq(scale.nan)]
    # The simulator wants a clock.
    m.d.sync += Signal().eq(0)

    async def bench(ctx):
        tried = (0, 3, 4, 124, 127, 128, 131, 251, 252, 254, 255)
        for pair in product(tried, repeat=2):
            ctx.set(given, pair)
            assert ctx.get(nan) == (255 in pair), pair
            if 255 not in pair:
                assert ctx.get(exponent) == sum(96 + (byte >> 2) for byte in pair), pair

    simulate(m, bench)


@VARIANTS
def test_rounding_by_guard_sticky_and_last_bit(metadata, fine):
    unit = TermAdder(term_layout(metadata), fine=fine)
    assert unit.latency == (6 if fine else 2)
    width = 18 if metadata else 13
    rows = []
    for sign, direction, (last, bits, place, ulps) in product((0, 1), (1, -1), ROUNDING):
        # acc is in the middle of a binade, where ulps are 2**-23.
        acc = ONE | 0x400000 | last
        zeros = width - bits.bit_length()
        term = {"significand": bits << zeros, "negative": sign ^ (direction < 0), "nan": 0,
                "exponent": 127 - 23 + place + bits.bit_length() - 1}
        rows.append(({"term": term, "acc": sign << 31 | acc}, sign << 31 | acc + direction * ulps))
    stream(unit, rows, lambda ctx: ctx.get(unit.o))


def test_scale_sum():
    m = Module()
    codes, exponent, nan = Signal(data.ArrayLayout(8, 2)), Signal(9), Signal()
    scale = scale_sum(codes[0], codes[1])
    m.d.comb += [exponent.eq(scale.exponent), nan.eq(scale.nan)]
    # The simulator wants a clock.
    m.d.sync += Signal().eq(0)

    async def bench(ctx):
        for pair in product((0, 1, 127, 254, 255), repeat=2):
            ctx.set(codes, pair)
            assert (ctx.get(exponent), ctx.get(nan)) == (sum(pair), 255 in pair)

    simulate(m, bench)
