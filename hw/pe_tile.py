# SPDX-License-Identifier: BSD-2-Clause
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import compress
from .formats import SUBGROUP, Codes, e2m1_shift, e2m1_significand
from .top1_decode import Refinement


class PETile(wiring.Component):
    """Refined dot product of a subgroup, times the weights' subgroup factor: an exact integer.

    The activations' refinement comes ready-made from `Top1Decode`, so that it costs one shifted
    weight here. Nothing is rounded. Specification section 7.

    Latency ``depth``; one subgroup per cycle in which ``enable`` is set.

    Parameters
    ----------
    depth : int
        Pipeline registers: 0 is combinational, 1 cuts behind the dot product, 2 also behind the
        products.

    Members
    -------
    activations : In(Codes)
        FP4 codes.
    lane : In(8)
        Lane of the activations' top-1, one-hot.
    refinement : In(Refinement)
        Added to that activation.
    weights : In(Codes)
        FP4 codes.
    meta : In(2)
        Of the weights: factor (4 + metadata) / 4.
    enable : In(1)
        Moves the pipeline; absent where depth is 0.
    sum : Out(signed(17))
        Units of 1/64, at most 32928 in magnitude.

    Raises
    ------
    ValueError
        If ``depth`` is not 0, 1 or 2.
    """

    def __init__(self, *, depth=0):
        if type(depth) is not int or depth not in (0, 1, 2):
            raise ValueError(f"Pipeline depth must be 0, 1 or 2, not {depth!r}")
        self.depth = depth
        super().__init__({
            "activations": In(Codes),
            "lane": In(SUBGROUP),
            "refinement": In(Refinement),
            "weights": In(Codes),
            "meta": In(2),
            **({"enable": In(1)} if depth else {}),
            "sum": Out(signed(17)),
        })

    @property
    def latency(self):
        return self.depth

    def elaborate(self, platform):
        m = Module()

        def register(value, name):
            held = Signal.like(value, name=name, reset_less=True)
            with m.If(self.enable):
                m.d.sync += held.eq(value)
            return held

        # Signed products of the significands, at most 3 * 3, shifted by either exponent: units
        # of 1/4, at most 12 * 12 = 144 < 2**8.
        products = [Signal(signed(9), name=f"product{i}") for i in range(SUBGROUP)]
        for i, product in enumerate(products):
            w, x = self.weights[i], self.activations[i]
            magnitude = Signal(4, name=f"magnitude{i}")
            significand = Signal(signed(5), name=f"significand{i}")
            scaled = Signal(signed(7), name=f"scaled{i}")
            m.d.comb += [
                magnitude.eq(e2m1_significand(w) * e2m1_significand(x)),
                significand.eq(Mux(w[3] ^ x[3], -magnitude, magnitude)),
                scaled.eq(significand << e2m1_shift(w)),
                product.eq(scaled << e2m1_shift(x)),
            ]

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

        factor = self.meta
        if self.depth == 2:
            products = [register(product, f"held_product{i}")
                        for i, product in enumerate(products)]
            refinement = register(refinement, "held_refinement")
            negative = register(negative, "held_negative")
            factor = register(factor, "product_factor")

        # Without their sign's weight, products are 2**8 too large where they are negative.
        # Counting the sign the other way round makes that 2**8 each, 2**11 in all: the top bit.
        # At most 8 * 144 = 1152 < 2**11: 12 bits with sign.
        dot = compress(m, [(product ^ (1 << 8))[:9] for product in products], width=12, name="dot")
        dot = [dot[0], dot[1] ^ (1 << 11)]

        # In sixteenths: 14 bits with sign for at most 4704 < 2**13. The two low bits of the dot
        # product are free, one of them completes the refinement's negation.
        partial = compress(m, [
            Cat(negative, C(0, 1), dot[0]),
            Cat(C(0, 2), dot[1]),
            Cat(refinement ^ negative.replicate(7), negative.replicate(7)),
        ], width=14, name="refined")
        refined = Signal(signed(14))
        m.d.comb += refined.eq(partial[0] + partial[1])

        if self.depth:
            refined = register(refined, "held_refined")
            factor = register(factor, "held_factor")

        # 4 + k is 4 + 0, 4 + 1, 4 + 2 or 8 - 1: one addition. At most 4704 * 7 < 2**16.
        most = factor.all()
        base = Signal(signed(17))
        addend = Signal(signed(17))
        m.d.comb += [
            base.eq(Mux(most, refined << 3, refined << 2)),
            addend.eq(Mux(factor[0], refined ^ most.replicate(14).as_signed(),
                          Mux(factor[1], refined << 1, 0))),
            self.sum.eq(base + addend + most),
        ]

        return m
