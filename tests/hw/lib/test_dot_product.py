# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Products, sums, refinements and factors of the dot product, exhaustively where that is small."""

from itertools import product

import numpy as np
import pytest
from amaranth import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.dot_product import (
    Refinement,
    add_products,
    dot_product,
    e2m1_products,
    refine,
    scale_both_rows,
    scale_rows,
)
from hw.lib.formats import Codes, decode_e2m1, decode_special
from tests.support.compare import check
from tests.support.oracle import E2M1_HALVES

HALVES = np.array([*E2M1_HALVES, *(-value for value in E2M1_HALVES)])
SPECIAL_HALVES = [10, -10, 16, -16]


class Products(wiring.Component):
    """Two products, side by side."""

    latency = 0

    def __init__(self, *, special=False, words=True):
        self.special = special
        self.words = words
        codes = data.ArrayLayout(4, 2)
        super().__init__({"weights": In(codes), "activations": In(codes),
                          "weight_special": In(2), "activation_special": In(2),
                          "first": Out(signed(12)), "second": Out(signed(12))})

    def elaborate(self, platform):
        m = Module()

        if self.special:
            weights, activations = (
                [decode_special(m, code, selector, name=f"{name}{lane}")
                 for lane, code in enumerate(codes)]
                for name, codes, selector in (
                    ("weight", self.weights, self.weight_special),
                    ("activation", self.activations, self.activation_special)))
        else:
            weights, activations = ([decode_e2m1(code) for code in codes]
                                    for codes in (self.weights, self.activations))
        first, second = e2m1_products(m, weights, activations, words=self.words)
        assert len(first) == len(second) == (10 if self.special else 9)
        m.d.comb += [self.first.eq(first), self.second.eq(second)]

        return m


class Sum(wiring.Component):
    """Sum of so many signed numbers of 9 bits, in units of 1/4, and a refinement."""

    latency = 0

    def __init__(self, count, *, refined, words=True):
        self.refined = refined
        self.words = words
        super().__init__({**{f"value{n}": In(signed(9)) for n in range(count)},
                          "refinement": In(signed(8)), "sum": Out(signed(20))})
        self.count = count

    def elaborate(self, platform):
        m = Module()

        low, high = add_products(m, [getattr(self, f"value{n}") for n in range(self.count)],
                                 self.refinement if self.refined else None, words=self.words)
        m.d.comb += self.sum.eq((low + high)[: len(low)].as_signed())

        return m


class Refine(wiring.Component):
    weights: In(Codes)
    lane: In(8)
    refinement: In(Refinement)
    o: Out(signed(8))

    latency = 0

    def elaborate(self, platform):
        m = Module()

        value = refine(m, self.weights, self.lane, self.refinement)
        assert len(value) == 8
        m.d.comb += self.o.eq(value)

        return m


class Scale(wiring.Component):
    """A dot product times one factor, or the factors of both operands."""

    dot: In(signed(14))
    k: In(2)
    other: In(2)
    one: Out(signed(20))
    both: Out(signed(20))

    latency = 0

    def elaborate(self, platform):
        m = Module()

        m.d.comb += [
            self.one.eq(sum(scale_rows(self.dot, self.k))),
            self.both.eq(sum(scale_both_rows(m, self.dot, self.k, self.other))),
        ]

        return m


class Pipeline(wiring.Component):
    """A dot product of two lanes with a value beside it."""

    def __init__(self, depth):
        self.latency = depth
        codes = data.ArrayLayout(4, 2)
        super().__init__({"weights": In(codes), "activations": In(codes), "beside": In(7),
                          **({"enable": In(1)} if depth else {}),
                          "dot": Out(signed(10)), "held": Out(7)})

    def elaborate(self, platform):
        m = Module()

        products = e2m1_products(m, [decode_e2m1(code) for code in self.weights],
                                 [decode_e2m1(code) for code in self.activations])
        dot, beside = dot_product(m, products, depth=self.latency,
                                  enable=self.enable if self.latency else None,
                                  beside={"held": self.beside})
        assert len(dot) == 10 and dot.shape().signed
        m.d.comb += [self.dot.eq(dot), self.held.eq(beside["held"])]

        return m


@pytest.mark.parametrize("words", [True, False])
def test_every_product(words):
    w, x = np.array([*product(range(16), repeat=2)]).T
    inputs = {"weights": np.stack([w, x], -1), "activations": np.stack([x, x], -1),
              "weight_special": 0 * w, "activation_special": 0 * w}
    check(Products(words=words), inputs,
          {"first": HALVES[w] * HALVES[x], "second": HALVES[x] * HALVES[x]})


@pytest.mark.parametrize("words", [True, False])
def test_every_product_of_special_values(words):
    w, x, ws, xs = np.array([*product(range(16), range(16), range(4), range(4))]).T
    halves = np.array([[*HALVES[:8], special, *HALVES[9:]] for special in SPECIAL_HALVES])
    inputs = {"weights": np.stack([w, x], -1), "activations": np.stack([x, w], -1),
              "weight_special": ws, "activation_special": xs}
    check(Products(special=True, words=words), inputs,
          {"first": halves[ws, w] * halves[xs, x], "second": halves[ws, x] * halves[xs, w]})


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("refined", [True, False])
@pytest.mark.parametrize("count", [2, 8, 16])
def test_sums_of_products(count, refined, words):
    # The extremes of the refined sum are those of a dot product: 7 * 576 + 672 sixteenths.
    rng = np.random.default_rng(count)
    rows = np.concatenate([np.full((1, count), 144), np.full((1, count), -144),
                           np.zeros((1, count), int), rng.integers(-144, 145, (200, count))])
    refinement = np.array([96, -96, -1, *rng.integers(-96, 97, 200)])
    check(Sum(count, refined=refined, words=words),
          {**{f"value{n}": rows[:, n] for n in range(count)}, "refinement": refinement},
          {"sum": 4 * rows.sum(1) + refinement if refined else rows.sum(1)})


def test_every_refinement():
    rows = [*product(range(16), range(8), range(4), range(2), range(2))]
    rows = [row for row in rows if not row[4] or row[2:4] == (0, 0)]
    weights = [[code if i == lane else 15 - code for i in range(8)] for code, lane, *_ in rows]
    _, lanes, shift, negative, zero = map(np.array, zip(*rows, strict=True))
    codes = np.array([row[0] for row in rows])
    check(Refine(), {"weights": np.array(weights), "lane": 1 << lanes,
                     "refinement": {"shift": shift, "negative": negative, "zero": zero}},
          {"o": HALVES[codes] * 2**shift * (1 - 2 * negative) * (1 - zero)})


def test_every_factor():
    dots = [0, 1, -1, 1152, -1152, 4608, -4608, 2730, -2731]
    dot, k, other = np.array([*product(dots, range(4), range(4))]).T
    check(Scale(), {"dot": dot, "k": k, "other": other},
          {"one": dot * (4 + k), "both": dot * (4 + k) * (4 + other)})


@pytest.mark.parametrize("stalls", [0, 0.5])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_values_beside_a_dot_product_are_as_late(depth, stalls):
    rng = np.random.default_rng(depth)
    w, x = rng.integers(0, 16, (2, 100, 2))
    check(Pipeline(depth), {"weights": w, "activations": x, "beside": np.arange(100)},
          {"dot": (HALVES[w] * HALVES[x]).sum(1), "held": np.arange(100)}, stalls=stalls)
