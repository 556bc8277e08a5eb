# SPDX-License-Identifier: BSD-2-Clause
"""The tile for operands that both have subgroup factors."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..lib.dot_product import dot_product, e2m1_products, scale_both_rows, shift_by_both
from ..lib.formats import Codes, decode_e2m1, decode_special
from ..lib.pipeline import check_depth


class SgPETile(wiring.Component):
    """Computes the dot product of a subgroup whose activations and weights both have factors.

    It takes activations in Sg-EM, which have a subgroup factor where those of `PETile` have a
    refined element. The result is an exact integer; nothing is rounded. Latency ``depth``; one
    subgroup per cycle in which ``enable`` is set. Specification sections 7, 12 and 18.

    Parameters
    ----------
    depth : int
        Pipeline registers: 0 is combinational, 1 holds the dot product.
    special : bool
        Whether code 8, which is -0 in E2M1, stands for a special value. A selector chooses it for
        an operand's group: 0 is +5, 1 is -5, 2 is +8 and 3 is -8.
    exponent : bool
        Whether metadata have a third bit, which doubles the factor, as in Sg-special64.

    Members
    -------
    activations, weights : In(Codes)
        FP4 codes.
    activation_meta, meta : In(2)
        Metadata of the activations and of the weights: their factors are (4 + meta) / 4. With an
        exponent ``In(3)``, and (4 + meta % 4) / 4 * 2**(meta // 4).
    activation_special, weight_special : In(2)
        Selectors. With special values only.
    enable : In(1)
        Moves the pipeline. With a depth of at least 1 only.
    sum : Out(signed(17))
        In units of 1/64, at most 1152 * 49 = 56448 < 2**16 in magnitude. With special values
        ``Out(signed(18))``, at most 2048 * 49 = 100352 < 2**17. With an exponent two bits wider,
        and at most four times that.

    Raises
    ------
    TypeError
        If ``special`` or ``exponent`` is not a bool.
    ValueError
        If ``depth`` is not 0 or 1.
    """

    def __init__(self, *, depth=0, special=False, exponent=False):
        check_depth(depth, (0, 1))
        for name, value in ("Special", special), ("Exponent", exponent):
            if type(value) is not bool:
                raise TypeError(f"{name} must be True or False, not {value!r}")
        self.depth = self.latency = depth
        self.has_special, self.has_exponent = special, exponent
        metadata = 3 if exponent else 2
        super().__init__({
            "activations": In(Codes),
            "activation_meta": In(metadata),
            "weights": In(Codes),
            "meta": In(metadata),
            **({"activation_special": In(2), "weight_special": In(2)} if special else {}),
            **({"enable": In(1)} if depth else {}),
            "sum": Out(signed((18 if special else 17) + (2 if exponent else 0))),
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

        # Both factors are known before the dot product is, so their product selects the rows of
        # one addition. That is smaller and faster than one factor after the other.
        exponents = [factor[2:] for factor in factors.values()]
        rows = scale_both_rows(m, dot, **{name: factor[:2] for name, factor in factors.items()})
        total = rows[0] + rows[1] + rows[2]
        if self.has_exponent:
            # Behind the addition, which is then narrower. Both exponents are known before it.
            scaled = Signal(signed(len(rows[0])), name="scaled")
            m.d.comb += scaled.eq(total)
            total = shift_by_both(scaled, *exponents)
        m.d.comb += self.sum.eq(total)

        return m
