# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The tile with factors on both sides against golden, also with special values, exponents."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from golden.units.sg_pe_tile import sg_pe_tile
from hw.units.sg_pe_tile import SgPETile
from tests.support.compare import check
from tests.support.marks import longer
from tests.support.testbench import shared, simulate

VALUES = [Fraction(text) for text in "0 1/2 1 3/2 2 3 4 6".split()]
VALUES += [-value for value in VALUES]
SPECIAL = [5, -5, 8, -8]
FACTORS = [Fraction(text) for text in "1 5/4 3/2 7/4 2 5/2 3 7/2".split()]
DEPTHS = pytest.mark.parametrize("depth", [0, 1])
RUNS = pytest.mark.parametrize("depth, stalls", [(0, 0), (1, 0), (1, 0.5)])
BOTH = pytest.mark.parametrize("special", [False, True])
EXPONENTS = pytest.mark.parametrize("exponent", [False, True])


def value(code, selector):
    return VALUES[code] if selector is None or code != 8 else SPECIAL[selector]


def expected(activations, weights, ka, kw, selectors=(None, None)):
    """A sum in units of 1/64."""
    dot = sum(value(x, selectors[0]) * value(w, selectors[1])
              for x, w in zip(activations, weights, strict=True))
    total = 64 * dot * FACTORS[ka] * FACTORS[kw]
    assert total.denominator == 1
    return int(total)


def check_rows(rows, *, depth=0, special=False, exponent=False, sums=None, stalls=0):
    """Rows of activations, weights, both factors and, with special values, both selectors."""
    names = ["activations", "weights", "activation_meta", "meta"]
    names += ["activation_special", "weight_special"] * special
    if special:
        rows = [(*row[:4], *row[4]) for row in rows]
    inputs = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    exact = [expected(*row[:4], row[4:] or (None, None)) for row in rows]
    assert sums is None or exact == sums
    check(shared(SgPETile, depth=depth, special=special, exponent=exponent), inputs,
          {"sum": np.array(exact)}, stalls=stalls)
    golden = sg_pe_tile(inputs["activations"], inputs["weights"], inputs["activation_meta"],
                        inputs["meta"], **{name: inputs[name] for name in names[4:]})
    assert golden.tolist() == exact


def one(code, lane=0, rest=0):
    return [code if i == lane else rest for i in range(8)]


def spread(pairs):
    """Activations and weights of as many rows as pairs: every lane has each of them once.

    If all lanes are alike and 88 has no divisor in common with the number of pairs, errors cannot
    cancel in all rows: the matrix that sums them is regular.
    """
    for row in range(len(pairs)):
        yield map(list, zip(*(pairs[(row + 11 * lane) % len(pairs)] for lane in range(8)),
                            strict=True))


def test_every_product():
    pairs = [*product(range(16), repeat=2)]
    check_rows([(one(x), one(w), 0, 0) for x, w in pairs]
               + [(*codes, 0, 0) for codes in spread(pairs)])


SELECTORS = [*product(range(4), repeat=2)]


# Each selector beside another one, or beside all.
@pytest.mark.parametrize("beside", [
    [(0, 1), (1, 2), (2, 3), (3, 0)], longer(SELECTORS)])
def test_every_product_with_special_values(beside):
    # Selectors matter where a code is 8, and both of them where both are.
    pairs = [pair for pair in product(range(16), repeat=2) if 8 in pair]
    rows = [(*codes, 0, 0, chosen) for chosen in beside for codes in spread(pairs)]
    rows += [(one(8, lane), one(8, lane), 0, 0, chosen)
             for number, chosen in enumerate(SELECTORS) for lane in (number % 8, number // 2)]
    others = [pair for pair in product(range(16), repeat=2) if 8 not in pair]
    rows += [(*codes, 0, 0, SELECTORS[number % 16]) for number, codes in enumerate(spread(others))]
    check_rows(rows, special=True)


def test_every_pair_of_factors():
    # Each bit of a dot product by itself, of either sign, and the limits, which are below.
    quarters = {1: [(1, 1)], 2: [(2, 1)], 4: [(2, 2)], 8: [(4, 2)], 16: [(4, 4)], 32: [(6, 4)]}
    quarters |= {64 * n: [(6, 6)] * n for n in (1, 2, 4, 8)}
    quarters |= {1024: [(7, 7)] * 7 + [(4, 4)], 1152: [(7, 7)] * 8}
    rows, sums = [], []
    for (dot, lanes), sign, ka, kw in product(quarters.items(), (0, 8), range(4), range(4)):
        x, w = zip(*(lanes + [(0, 0)] * (8 - len(lanes))), strict=True)
        rows.append(([*x], [code | sign for code in w], ka, kw))
        sums.append((-dot if sign else dot) * (4 + ka) * (4 + kw))
    check_rows(rows, sums=sums)


@pytest.mark.parametrize("special", [True, longer(False)])
def test_every_pair_of_exponents(special):
    """A small dot product and the largest ones, under every pair of factors."""
    code = 8 if special else 7
    largest, selectors = (2048, [(2, 2)]) if special else (1152, [])
    rows, sums = [], []
    for ka, kw, sign in product(range(8), range(8), (1, -1)):
        w = [code] * 8 if sign > 0 else [15] * 8
        rows += [(one(1), one(1 if sign > 0 else 9), ka, kw, *selectors),
                 ([code] * 8, w, ka, kw, *selectors)]
        factor = 16 * FACTORS[ka] * FACTORS[kw]
        most = largest if sign > 0 else -8 * 12 * (16 if special else 12)
        sums += [int(sign * factor), int(most * factor)]
    check_rows(rows, special=special, exponent=True, sums=sums)


@DEPTHS
def test_extremes(depth):
    rows = [([x] * 8, [w] * 8, 3, 3) for x, w in product((7, 15), repeat=2)]
    check_rows(rows, depth=depth, sums=[56448, -56448, -56448, 56448])


@DEPTHS
def test_extremes_with_special_values(depth):
    rows = [([8] * 8, [8] * 8, 3, 3, selectors) for selectors in product((2, 3), repeat=2)]
    check_rows(rows, depth=depth, special=True, sums=[100352, -100352, -100352, 100352])
    rows = [(*row[:2], 7, 7, row[4]) for row in rows]
    check_rows(rows, depth=depth, special=True, exponent=True,
               sums=[401408, -401408, -401408, 401408])


@pytest.mark.parametrize("depth, stalls, count", [
    (0, 0, 40), (1, 0.5, 40), longer(0, 0, 100), longer(1, 0, 100), longer(1, 0.5, 100)])
@BOTH
@EXPONENTS
def test_random(depth, stalls, count, special, exponent):
    rng = np.random.default_rng(2)
    rows = []
    for _ in range(count):
        codes = rng.integers(0, 16, (2, 8))
        codes = np.where(rng.random((2, 8)) < rng.choice([0, 0.5], (2, 1)), 8, codes)
        rows.append((*codes.tolist(), *rng.integers(0, 8 if exponent else 4, 2).tolist(),
                     *([tuple(rng.integers(0, 4, 2).tolist())] if special else [])))
    check_rows(rows, depth=depth, special=special, exponent=exponent, stalls=stalls)


def test_dot_product():
    rows, sums = zip(*[
        ((one(1), one(1), 0, 0), 16),               # 0.5 * 0.5 = 0.25
        ((one(9), one(1), 0, 0), -16),
        ((one(2), one(2), 1, 0), 80),               # 1 * 1.25
        ((one(2), one(2), 0, 1), 80),
        ((one(2), one(2), 3, 2), 168),              # 1.75 * 1.5 = 2.625
        ((one(2), one(2, rest=8), 3, 3), 196),      # 1.75 * 1.75, and 0 * -0
        (([8] * 8, [15] * 8, 3, 3), 0),             # -0 is 0
        (([7, 7, 7, 7, 15, 15, 15, 15], [7] * 8, 2, 1), 0),
        # 3 - 6 + 0.75 - 1 + 0 + 0 + 6 + 0 = 2.75, times 1.25 * 1.25
        (([1, 2, 3, 4, 5, 6, 7, 0], [7, 15, 1, 9, 0, 8, 2, 3], 1, 1), 275),
    ], strict=True)
    check_rows(rows, sums=[*sums])


def test_special_values():
    rows, sums = zip(*[
        ((one(8), one(2), 0, 0, (0, 0)), 320),      # 5 * 1
        ((one(8), one(10), 0, 0, (0, 0)), -320),
        ((one(8), one(3), 0, 0, (1, 0)), -480),     # -5 * 1.5
        ((one(8), one(1), 1, 0, (2, 0)), 320),      # 8 * 1.25 * 0.5
        ((one(7), one(8), 0, 3, (0, 3)), -5376),    # 6 * -8 * 1.75
        ((one(8), one(8), 0, 0, (1, 1)), 1600),     # -5 * -5
        ((one(8), one(8), 0, 0, (0, 3)), -2560),    # 5 * -8
        ((one(0, rest=8), one(8), 0, 0, (2, 2)), 0),
        # Twice 5 * 6 + 0 * -5 + 6 * 1 - 6 * 1.
        (([8, 0, 7, 15] * 2, [7, 8, 2, 2] * 2, 0, 0, (0, 1)), 3840),
    ], strict=True)
    check_rows(rows, special=True, sums=[*sums])


@RUNS
@BOTH
@EXPONENTS
def test_operands_of_one_transfer_stay_together(depth, stalls, special, exponent):
    # Each transfer differs from its neighbours in one operand only.
    def row(x=2, w=2, ka=0, kw=0, selectors=(0, 0)):
        return (one(x), one(w), ka, kw, *([selectors] if special else []))

    count = 8 if exponent else 4
    rows = [row(ka=i % count) for i in range(16)] + [row(kw=i % count) for i in range(16)]
    rows += [row(x=i % 4) for i in range(16)] + [row(w=10 if i % 2 else 2) for i in range(16)]
    if special:
        rows += [row(x=8, selectors=(i % 4, 0)) for i in range(16)]
        rows += [row(w=8, selectors=(0, i % 4)) for i in range(16)]
    check_rows(rows, depth=depth, special=special, exponent=exponent, stalls=stalls)


def test_nothing_moves_without_enable():
    tile = SgPETile(depth=1, special=True)

    async def bench(ctx):
        def apply(x, w, ka, kw, selectors):
            for name, port in zip(("activations", "weights", "activation_meta", "meta",
                                   "activation_special", "weight_special"),
                                  (one(x), one(w), ka, kw, *selectors), strict=True):
                ctx.set(getattr(tile, name), port)

        apply(8, 2, 1, 0, (0, 0))
        ctx.set(tile.enable, 1)
        await ctx.tick()
        ctx.set(tile.enable, 0)
        apply(8, 15, 2, 3, (3, 2))
        for _ in range(4):
            assert ctx.get(tile.sum) == 400
            await ctx.tick()
        ctx.set(tile.enable, 1)
        await ctx.tick()
        assert ctx.get(tile.sum) == 48 * 6 * 7 * 4

    simulate(tile, bench)


def test_ports():
    plain = {"activations", "activation_meta", "weights", "meta", "sum"}
    assert set(SgPETile().signature.members) == plain
    assert set(SgPETile(depth=1, special=True).signature.members) == plain | {
        "activation_special", "weight_special", "enable"}
    tile = SgPETile(special=True, exponent=True)
    assert (len(tile.activation_meta), len(tile.meta), len(tile.sum)) == (3, 3, 20)
    assert len(SgPETile(exponent=True).sum) == 19
    assert [SgPETile(depth=depth).latency for depth in (0, 1)] == [0, 1]


@pytest.mark.parametrize("depth", [2, -1, True, "1", 1.0])
def test_wrong_depth(depth):
    with pytest.raises(ValueError) as raised:
        SgPETile(depth=depth)
    assert str(raised.value) == f"Pipeline depth must be 0 or 1, not {depth!r}"


@pytest.mark.parametrize("special", [1, 0, None, "True"])
def test_wrong_special(special):
    with pytest.raises(TypeError) as raised:
        SgPETile(special=special)
    assert str(raised.value) == f"Special must be True or False, not {special!r}"


@pytest.mark.parametrize("exponent", [1, None])
def test_wrong_exponent(exponent):
    with pytest.raises(TypeError) as raised:
        SgPETile(exponent=exponent)
    assert str(raised.value) == f"Exponent must be True or False, not {exponent!r}"
