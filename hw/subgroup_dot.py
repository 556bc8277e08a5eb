# SPDX-License-Identifier: BSD-2-Clause
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import compress
from .formats import SUBGROUP, Codes, e2m1_shift, e2m1_significand
from .pipeline import hold
from .top1_decode import Refinement


class SubgroupDot(wiring.Component):
    """Refined dot product of a subgroup, without the weights' factor: an exact integer.

    Parameters
    ----------
    depth : int
        Pipeline registers: 0 is combinational, 1 cuts behind the products.
    metadata : bool
        Whether activations are refined.

    Members
    -------
    activations, lane, refinement, weights, enable
        As of `PETile`.
    dot : Out(signed(14))
        Units of 1/16, at most 4704 in magnitude; without metadata ``Out(signed(12))``, units of
        1/4, at most 1152.
    """

    def __init__(self, *, depth=0, metadata=True):
        self.depth = depth
        self.has_metadata = metadata
        super().__init__({
            "activations": In(Codes),
            **({"lane": In(SUBGROUP), "refinement": In(Refinement)} if metadata else {}),
            "weights": In(Codes),
            **({"enable": In(1)} if depth else {}),
            "dot": Out(signed(14) if metadata else signed(12)),
        })

    def elaborate(self, platform):
        m = Module()

        # Signed products of the significands, at most 3 * 3, shifted by either exponent: units
        # of 1/4, at most 12 * 12 = 144 < 2**8. Shifts by one place each: one if a
        # code is at least 4 halves, one more if at least 8, which maps to fewer gates than one
        # shift by e2m1_shift.
        products = [Signal(signed(9), name=f"product{i}") for i in range(SUBGROUP)]
        for i, product in enumerate(products):
            w, x = self.weights[i], self.activations[i]
            magnitude = Signal(4, name=f"magnitude{i}")
            shifted = Signal(signed(5), name=f"significand{i}")
            m.d.comb += [
                magnitude.eq(e2m1_significand(w) * e2m1_significand(x)),
                shifted.eq(Mux(w[3] ^ x[3], -magnitude, magnitude)),
            ]
            for place, shift in enumerate((w[2], w[2] & w[1], x[2], x[2] & x[1])):
                value = shifted
                shifted = Signal(signed(6 + place), name=f"shifted{i}_{place}")
                m.d.comb += shifted.eq(Mux(shift, value << 1, value))
            m.d.comb += product.eq(shifted)
        if self.depth:
            products = [hold(m, product, self.enable, f"held_product{i}")
                        for i, product in enumerate(products)]

        # Without their sign's weight, products are 2**8 too large where they are negative.
        # Counting the sign the other way round makes that 2**8 each, 2**11 in all: the top bit.
        # At most 8 * 144 = 1152 < 2**11: 12 bits with sign.
        low, high = compress(m, [Cat(product[:8], ~product[8]) for product in products],
                             width=12, name="dot")
        high = high ^ (1 << 11)
        if self.has_metadata:
            low, high = self._refine(m, low, high)
        m.d.comb += self.dot.eq(low + high)

        return m

    def _refine(self, m, low, high):
        """Adds the refinement, in sixteenths."""
        # The top-1's weight in halves (at most 12) times its refinement in eighths (at most 8):
        # at most 96 sixteenths, below 2**7. Its sign is the weight's and the refinement's.
        lanes = zip(self.weights, self.lane, strict=True)
        top = Signal(4)
        refinement = Signal(7)
        negative = Signal()
        m.d.comb += [
            top.eq(reduce(or_, (weight & selected.replicate(4) for weight, selected in lanes))),
            refinement.eq(((e2m1_significand(top) & ~self.refinement.zero.replicate(2))
                           << e2m1_shift(top)) << self.refinement.shift),
            negative.eq((top[3] ^ self.refinement.negative) & ~self.refinement.zero),
        ]
        if self.depth:
            refinement = hold(m, refinement, self.enable, "held_refinement")
            negative = hold(m, negative, self.enable, "held_negative")

        # 14 bits with sign for at most 4704 < 2**13. The two low bits of the dot product are
        # free, one of them completes the refinement's negation.
        return compress(m, [
            Cat(negative, C(0, 1), low),
            Cat(C(0, 2), high),
            Cat(refinement ^ negative.replicate(7), negative.replicate(7)),
        ], width=14, name="refined")


def scale_rows(dot, factor):
    """Two numbers whose sum is a subgroup's dot product times its weights' factor.

    Parameters
    ----------
    dot : Value, signed(14)
    factor : Value
        k of the factor 4 + k, two bits.

    Returns
    -------
    base : Value, signed(17)
    addend : Value, signed(15)
    """
    # 4 + k is 4 + 0, 4 + 1, 4 + 2 or 8 - 1: one addition. The one that completes the negation
    # goes to the base's lowest place, which is free. At most 4704 * 8 < 2**16.
    most = factor.all()
    base = Mux(most, dot << 3, dot << 2) | most
    addend = Mux(factor[0], dot ^ most.replicate(14).as_signed(), Mux(factor[1], dot << 1, 0))
    return base, addend
