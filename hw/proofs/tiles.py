# SPDX-License-Identifier: BSD-2-Clause
"""Proofs about sums of products (specification sections 1.1 and 7)."""

from functools import partial

from amaranth import *

from ..units.nvfp4_pe_tile import Nvfp4PETile
from ..units.pe_tile import PETile
from ..units.sg_pe_tile import SgPETile
from .faults import Fault
from .harness import Harness
from .proof import Proof

_HALVES = (0, 1, 2, 3, 4, 6, 8, 12)
"""Twice the values of E2M1 magnitude codes: section 1.1."""


def halves(code):
    """Twice the value of an E2M1 code."""
    magnitude = Array(Const(value, 4) for value in _HALVES)[code[:3]]
    return Mux(code[3], -magnitude, magnitude)


def _products(harness, weights, activations):
    """The products of all lanes, in quarters, as cuts."""
    return [harness.cut(f"product{lane}", range(-144, 145),
                        halves(weights[place:place + 4]) * halves(activations[place:place + 4]),
                        lambda value: (value >= -144) & (value <= 144))
            for lane, place in enumerate(range(0, len(weights), 4))]


class _Refined:
    """A refinement that section 7.3 has, in any of eight lanes."""

    def __init__(self, harness):
        self.lane, self.shift = harness.input("lane", 3), harness.input("shift", 2)
        self.zero, self.negative = harness.input("zero"), harness.input("negative")

    def give(self, lane, refinement):
        """Assignments to the ports of a component."""
        return [lane.eq(1 << self.lane), refinement.zero.eq(self.zero),
                refinement.negative.eq(self.negative & ~self.zero),
                refinement.shift.eq(Mux(self.zero, 0, self.shift))]

    def times(self, harness, weights):
        """What it adds to the dot product, in sixteenths."""
        eighths = C(1, 4) << self.shift
        signed_eighths = Mux(self.zero, 0, Mux(self.negative, -eighths, eighths))
        return harness.cut("refined", signed(8),
                           halves(weights.word_select(self.lane, 4)) * signed_eighths,
                           lambda value: (value >= -96) & (value <= 96))


def _pe_tile(depth=0, *, metadata=True):
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = PETile(depth=depth, metadata=metadata)
    weights, activations = harness.input("weights", 32), harness.input("activations", 32)
    m.d.comb += [unit.weights.eq(weights), unit.activations.eq(activations)]
    if depth:
        m.d.comb += unit.enable.eq(1)
    extremes = (weights == 0x7777_7777) & (activations == 0x7777_7777)
    if not metadata:
        products = _products(harness, weights, activations)
        harness.claim("sum", unit.sum == sum(products))
        harness.witness("most", extremes & (unit.sum == 1152))
        return harness
    factor, refined = harness.input("factor", 2), _Refined(harness)
    m.d.comb += [unit.meta.eq(factor), *refined.give(unit.lane, unit.refinement)]
    products = _products(harness, weights, activations)
    added = refined.times(harness, weights)
    # At most 8 * 144 quarters and 96 sixteenths.
    dot = harness.cut("dot", range(-4704, 4705), sum(products) * 4 + added)
    harness.claim("sum", unit.sum == dot * (4 + factor))
    harness.witness("most", extremes & (unit.sum == 32928))
    return harness


def _sg_pe_tile(*, exponent=False):
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = SgPETile(exponent=exponent)
    weights, activations = harness.input("weights", 32), harness.input("activations", 32)
    bits = 3 if exponent else 2
    factors = harness.input("factor_w", bits), harness.input("factor_x", bits)
    m.d.comb += [unit.weights.eq(weights), unit.activations.eq(activations),
                 unit.meta.eq(factors[0]), unit.activation_meta.eq(factors[1])]
    products = _products(harness, weights, activations)
    dot = harness.cut("dot", range(-1152, 1153), sum(products),
                      lambda value: (value >= -1152) & (value <= 1152))
    product = dot * (4 + factors[0][:2]) * (4 + factors[1][:2])
    if exponent:
        product <<= factors[0][2] + factors[1][2]
    harness.claim("sum", unit.sum == product)
    harness.witness("most", (weights == 0x7777_7777) & (weights == activations)
                    & (unit.sum == (196 if exponent else 49) * 1152))
    return harness


def _nvfp4_pe_tile(lanes):
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = Nvfp4PETile(lanes=lanes)
    weights, activations = (harness.input(name, 4 * lanes) for name in ("weights", "activations"))
    scales = [harness.input(name, 7) for name in ("scale_w", "scale_x")]
    m.d.comb += [unit.weights.eq(weights), unit.activations.eq(activations),
                 unit.weight_scale.eq(scales[0]), unit.activation_scale.eq(scales[1])]
    # E4M3: a code of exponent field 0 is subnormal, in units of 2**-9.
    significands = [Mux(scale[3:] == 0, scale[:3], 8 + scale[:3]) for scale in scales]
    exponents = [Mux(scale[3:] == 0, 0, scale[3:] - 1) for scale in scales]
    most = 144 * lanes
    dot = harness.cut("dot", range(-most, most + 1),
                      sum(_products(harness, weights, activations)),
                      lambda value: (value >= -most) & (value <= most))
    factor = harness.cut("factor", 8, significands[0] * significands[1],
                         lambda value: value <= 225)
    # The low bits are all there are, as 225 * 144 for each lane fits into them.
    assert 225 * most < 1 << len(unit.sum) - 1
    harness.claim("sum", unit.sum.as_unsigned() == (dot * factor)[:len(unit.sum)])
    harness.claim("shift", unit.shift == exponents[0] + exponents[1])
    harness.claim("nan", unit.nan == ((scales[0] == 127) | (scales[1] == 127)))
    harness.witness("most", (weights == activations) & (unit.sum == 225 * most) & unit.nan)
    return harness


_FACTOR = Fault("hw.lib.dot_product", "dot << 3, dot << 2) | most", "dot << 3, dot << 2)")
_CARRY = Fault("hw.lib.dot_product", "two.eq((cross_w | cross_x) & ~eight)",
               "two.eq(cross_w | cross_x)")

PROOFS = [
    Proof(name="pe_tile.sum", solver="diagrams", build=_pe_tile, fault=_FACTOR,
          claim="The sum is that of the products of all lanes, with the refinement of any lane, "
                "times the factor"),
    Proof(name="pe_tile.sum_depth2", solver="diagrams", build=partial(_pe_tile, 2), after=2,
          fault=Fault("hw.lib.dot_product", "negative & halves.any())", "negative)"),
          claim="The same of the tile with two registers, two enabled cycles later"),
    Proof(name="pe_tile.sum_plain", solver="diagrams", fault=_CARRY,
          build=partial(_pe_tile, metadata=False),
          claim="Without metadata the sum is that of the products of all lanes"),
    Proof(name="sg_pe_tile.sum", solver="diagrams", build=_sg_pe_tile, fault=Fault(
              "hw.lib.dot_product", "rows[0] | choice.negative", "rows[0]"),
          claim="The sum is that of the products of all lanes, times both factors"),
    Proof(name="sg_pe_tile.sum_exponent", solver="diagrams",
          build=partial(_sg_pe_tile, exponent=True), fault=Fault(
              "hw.lib.dot_product", "Mux(either, total << 1, total)", "total"),
          claim="The same of the tile whose metadata have a third bit, which doubles the factor"),
    *(Proof(name=f"nvfp4_pe_tile.sum{'_lanes16' if lanes == 16 else ''}", solver="diagrams",
            build=partial(_nvfp4_pe_tile, lanes), fault=Fault(
                "hw.units.nvfp4_pe_tile", "exponent.eq(scale[3:] - normal)",
                "exponent.eq(scale[3:])"),
            claim=f"The sum is that of the products of {lanes} lanes, times the significands of "
                  "both scales; the shift is that of their exponents")
      for lanes in (8, 16)),
]
