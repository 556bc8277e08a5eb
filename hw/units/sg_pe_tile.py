# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..lib.dot_product import dot_product, e2m1_products, scale_both_rows
from ..lib.formats import Codes, decode_e2m1, decode_special
from ..lib.pipeline import check_depth


class SgPETile(wiring.Component):
    """Dot product of a subgroup, times the factors of both operands: an exact integer.

    `PETile` for activations that have a subgroup factor, too (Sg-EM), in place of a refined
    element. Nothing is rounded. The activations' encodings are those of docs/encodings.md.

    Latency ``depth``; one subgroup per cycle in which ``enable`` is set.

    Parameters
    ----------
    depth : int
        Pipeline registers: 0 is combinational, 1 cuts behind the dot product.
    special : bool
        Whether the code of -0 is a special value, which a selector of the operand's group
        chooses: 0 is +5, 1 is -5, 2 is +8 and 3 is -8.

    Members
    -------
    activations, weights : In(Codes)
        FP4 codes.
    activation_meta, meta : In(2)
        Of the activations and of the weights: factor (4 + meta) / 4.
    activation_special, weight_special : In(2)
        Selectors; with special values.
    enable : In(1)
        Moves the pipeline; absent where depth is 0.
    sum : Out(signed(17))
        Units of 1/64, at most 56448 in magnitude; with special values ``Out(signed(18))``, at
        most 100352.

    Raises
    ------
    TypeError
        If ``special`` is not a bool.
    ValueError
        If ``depth`` is not 0 or 1.
    """

    def __init__(self, *, depth=0, special=False):
        check_depth(depth, (0, 1))
        if type(special) is not bool:
            raise TypeError(f"Special must be True or False, not {special!r}")
        self.depth = self.latency = depth
        self.has_special = special
        super().__init__({
            "activations": In(Codes),
            "activation_meta": In(2),
            "weights": In(Codes),
            "meta": In(2),
            **({"activation_special": In(2), "weight_special": In(2)} if special else {}),
            **({"enable": In(1)} if depth else {}),
            # At most 8 * 12 * 12 * 49 < 2**16 or, of special values, 8 * 16 * 16 * 49 < 2**17.
            "sum": Out(signed(18 if special else 17)),
        })

    def elaborate(self, platform):
        m = Module()

        if self.has_special:
            weights, activations = (
                [decode_special(m, code, selector, name=f"{name}{lane}")
                 for lane, code in enumerate(codes)]
                for name, codes, selector in (
                    ("weight", self.weights, self.weight_special),
                    ("activation", self.activations, self.activation_special)))
        else:
            weights, activations = ([decode_e2m1(code) for code in codes]
                                    for codes in (self.weights, self.activations))
        dot, factors = dot_product(
            m, e2m1_products(m, weights, activations, words=False), depth=self.latency,
            enable=self.enable if self.latency else None,
            beside={"activation_meta": self.activation_meta, "weight_meta": self.meta})

        # The factors are there before the dot product is, and their product selects: one addition
        # of three rows is smaller and faster than one factor after the other.
        rows = scale_both_rows(m, dot, **factors)
        m.d.comb += self.sum.eq(rows[0] + rows[1] + rows[2])

        return m
