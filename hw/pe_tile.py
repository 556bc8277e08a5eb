# SPDX-License-Identifier: BSD-2-Clause
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
        if depth not in (0, 1, 2):
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

        # Products of the significands, shifted twice, in units of 1/4: at most 12 * 12 < 2**8.
        products = [Signal(8, name=f"product{i}") for i in range(SUBGROUP)]
        negative = Signal(SUBGROUP)
        for i, product in enumerate(products):
            w, x = self.weights[i], self.activations[i]
            w_scaled = Signal(6, name=f"w_scaled{i}")
            m.d.comb += [
                w_scaled.eq((e2m1_significand(w) * e2m1_significand(x)) << e2m1_shift(w)),
                product.eq(w_scaled << e2m1_shift(x)),
                negative[i].eq(w[3] ^ x[3]),
            ]

        # The top-1's weight in halves (at most 12) times its refinement in eighths (at most 8):
        # at most 96 sixteenths, below 2**7. Its sign is the weight's and the refinement's.
        top = Signal(4)
        refinement = Signal(7)
        refinement_negative = Signal()
        for i in range(SUBGROUP):
            with m.If(self.lane[i]):
                m.d.comb += top.eq(self.weights[i])
        with m.If(~self.refinement.zero):
            m.d.comb += [
                refinement.eq((e2m1_significand(top) << e2m1_shift(top)) << self.refinement.shift),
                refinement_negative.eq(top[3] ^ self.refinement.negative),
            ]

        factor = self.meta
        if self.depth == 2:
            products = [register(product, f"held_product{i}")
                        for i, product in enumerate(products)]
            negative = register(negative, "held_negative")
            refinement = register(refinement, "held_refinement")
            refinement_negative = register(refinement_negative, "held_refinement_negative")
            factor = register(factor, "product_factor")

        # A negative product is its complement plus one less 2**8, so the products' signs count
        # twice: their number n is added at weight 1 and taken off at weight 2**8, the latter as
        # its complement plus one. The sum is within 8 * 144 = 1152 < 2**11: 12 bits with sign.
        count = Signal(4)
        m.d.comb += count.eq(sum(negative))
        rows = [product ^ sign.replicate(8)
                for product, sign in zip(products, negative, strict=True)]
        rows += [Cat(count, C(0, 4), ~count), C(1 << 8, 12)]
        dot = compress(m, rows, width=12, name="dot")

        # In sixteenths: 14 bits with sign for at most 4704 < 2**13. The two low bits of the dot
        # product are free, one of them completes the refinement's negation.
        partial = compress(m, [
            Cat(refinement_negative, C(0, 1), dot[0]),
            Cat(C(0, 2), dot[1]),
            Cat(refinement ^ refinement_negative.replicate(7), refinement_negative.replicate(7)),
        ], width=14, name="refined")
        refined = Signal(signed(14))
        m.d.comb += refined.eq(partial[0] + partial[1])

        if self.depth:
            refined = register(refined, "held_refined")
            factor = register(factor, "held_factor")

        # 4 + k is 4, 5, 6 or 8 - 1: one addition. At most 4704 * 7 < 2**16.
        with m.Switch(factor):
            with m.Case(0):
                m.d.comb += self.sum.eq(refined << 2)
            with m.Case(1):
                m.d.comb += self.sum.eq((refined << 2) + refined)
            with m.Case(2):
                m.d.comb += self.sum.eq((refined << 2) + (refined << 1))
            with m.Case(3):
                m.d.comb += self.sum.eq((refined << 3) - refined)

        return m
