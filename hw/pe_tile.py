# SPDX-License-Identifier: BSD-2-Clause
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import compress
from .formats import SUBGROUP, Codes, check_metadata, e2m1_shift, e2m1_significand
from .top1_decode import Refinement


def e2m1_products(m, weights, activations):
    """Products of FP4 codes, lane by lane: signed, in units of 1/4."""
    # Signed products of the significands, at most 3 * 3, shifted by either exponent: at most
    # 12 * 12 = 144 < 2**8.
    products = [Signal(signed(9), name=f"product{i}") for i in range(len(weights))]
    for i, product in enumerate(products):
        w, x = weights[i], activations[i]
        magnitude = Signal(4, name=f"magnitude{i}")
        significand = Signal(signed(5), name=f"significand{i}")
        scaled = Signal(signed(7), name=f"scaled{i}")
        m.d.comb += [
            magnitude.eq(e2m1_significand(w) * e2m1_significand(x)),
            significand.eq(Mux(w[3] ^ x[3], -magnitude, magnitude)),
            scaled.eq(significand << e2m1_shift(w)),
            product.eq(scaled << e2m1_shift(x)),
        ]
    return products


def add_products(m, products):
    """Two rows that add up, modulo their width, to the sum of a power of two of products."""
    # Without their sign's weight, products are 2**8 too large where they are negative. Counting
    # the sign the other way round makes that 2**8 each, of 8 2**11 in all: the top bit. At most
    # 8 * 144 = 1152 < 2**11: 12 bits with sign.
    width = 9 + (len(products) - 1).bit_length()
    dot = compress(m, [(product ^ (1 << 8))[:9] for product in products], width=width, name="dot")
    return [dot[0], dot[1] ^ (1 << (width - 1))]


class PETile(wiring.Component):
    """Refined dot product of a subgroup, times the weights' subgroup factor: an exact integer.

    The activations' refinement comes ready-made from `Top1Decode`, so that it costs one shifted
    weight here. Nothing is rounded. Specification section 7. Without metadata it is the plain dot
    product of MXFP4, for comparison.

    Latency ``depth``; one subgroup per cycle in which ``enable`` is set.

    Parameters
    ----------
    depth : int
        Pipeline registers: 0 is combinational, 1 cuts behind the dot product, 2 also behind the
        products.
    metadata : bool
        Whether operands have metadata. Without, there is neither refinement nor factor, nor the
        ports that bring them.

    Members
    -------
    activations : In(Codes)
        FP4 codes.
    lane : In(8)
        Lane of the activations' top-1, one-hot; with metadata.
    refinement : In(Refinement)
        Added to that activation; with metadata.
    weights : In(Codes)
        FP4 codes.
    meta : In(2)
        Of the weights: factor (4 + meta) / 4; with metadata.
    enable : In(1)
        Moves the pipeline; absent where depth is 0.
    sum : Out(signed(17))
        Units of 1/64, at most 32928 in magnitude; without metadata ``Out(signed(12))``, units of
        1/4, at most 1152.

    Raises
    ------
    TypeError
        If ``metadata`` is not a bool.
    ValueError
        If ``depth`` is not 0, 1 or 2.
    """

    def __init__(self, *, depth=0, metadata=True):
        if type(depth) is not int or depth not in (0, 1, 2):
            raise ValueError(f"Pipeline depth must be 0, 1 or 2, not {depth!r}")
        check_metadata(metadata)
        self.depth = depth
        self.has_metadata = metadata
        super().__init__({
            "activations": In(Codes),
            **({"lane": In(SUBGROUP), "refinement": In(Refinement)} if metadata else {}),
            "weights": In(Codes),
            **({"meta": In(2)} if metadata else {}),
            **({"enable": In(1)} if depth else {}),
            "sum": Out(signed(17) if metadata else signed(12)),
        })

    @property
    def latency(self):
        return self.depth

    def elaborate(self, platform):
        m = Module()

        products = e2m1_products(m, self.weights, self.activations)
        if self.has_metadata:
            self._refine(m, products)
        else:
            self._add(m, products)

        return m

    def _register(self, m, value, name):
        held = Signal.like(value, name=name, reset_less=True)
        with m.If(self.enable):
            m.d.sync += held.eq(value)
        return held

    def _register_products(self, m, products):
        return [self._register(m, product, f"held_product{i}")
                for i, product in enumerate(products)]

    def _add(self, m, products):
        """The dot product alone."""
        if self.depth == 2:
            products = self._register_products(m, products)
        dot = add_products(m, products)
        total = Signal(signed(12))
        m.d.comb += total.eq(dot[0] + dot[1])
        m.d.comb += self.sum.eq(self._register(m, total, "held_total") if self.depth else total)

    def _refine(self, m, products):
        """The dot product with the refinement, times the factor."""
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
            products = self._register_products(m, products)
            refinement = self._register(m, refinement, "held_refinement")
            negative = self._register(m, negative, "held_negative")
            factor = self._register(m, factor, "product_factor")
        dot = add_products(m, products)

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
            refined = self._register(m, refined, "held_refined")
            factor = self._register(m, factor, "held_factor")

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
