# SPDX-License-Identifier: BSD-2-Clause
"""The tile for NVFP4, to compare with."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..lib.dot_product import dot_product, e2m1_products
from ..lib.formats import NVFP4_GROUP, NVFP4_SCALE_NAN, SUBGROUP, decode_e2m1


class Nvfp4PETile(wiring.Component):
    """Computes the dot product of NVFP4 lanes times both block scales.

    It is the counterpart of `PETile`, to compare with. The result is an exact integer and an
    exponent; nothing is rounded. 16 elements share a scale, so two tiles of 8 lanes have the same
    scales and each multiplies by them; a tile of 16 lanes, a whole group, does so once.
    Combinational. Specification section 9.

    Parameters
    ----------
    lanes : int
        8 or 16.

    Members
    -------
    activations, weights : In(data.ArrayLayout(4, lanes))
        FP4 codes.
    activation_scale, weight_scale : In(7)
        E4M3 codes without the sign bit: block scales are not negative.
    sum : Out(signed(19))
        At most 1152 * 15 * 15 = 259200 < 2**18 in magnitude. Of 16 lanes ``Out(signed(20))``, at
        most twice that.
    shift : Out(5)
        0 to 28: the value is sum * 2**(shift - 20), under both tensor scales.
    nan : Out(1)
        Whether a scale is NaN; ``sum`` and ``shift`` are then those of 480 instead.

    Raises
    ------
    ValueError
        If ``lanes`` is not 8 or 16.
    """

    latency = 0

    def __init__(self, *, lanes=SUBGROUP):
        if type(lanes) is not int or lanes not in (SUBGROUP, NVFP4_GROUP):
            raise ValueError(f"Lane count must be 8 or 16, not {lanes!r}")
        self.lanes = lanes
        codes = data.ArrayLayout(4, lanes)
        super().__init__({
            "activations": In(codes),
            "weights": In(codes),
            "activation_scale": In(7),
            "weight_scale": In(7),
            "sum": Out(signed(19 if lanes == SUBGROUP else 20)),
            "shift": Out(5),
            "nan": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        products = e2m1_products(m, [decode_e2m1(code) for code in self.weights],
                                 [decode_e2m1(code) for code in self.activations], words=False)
        dot, _ = dot_product(m, products)

        # A scale is a significand of four bits times 2**(exponent - 9). The exponent is 0 to 14:
        # bits 6:3 of the code less 1, but 0 for subnormals.
        significands = []
        exponents = []
        for name in ("activation", "weight"):
            scale = getattr(self, f"{name}_scale")
            normal = Signal(name=f"{name}_normal")
            exponent = Signal(4, name=f"{name}_exponent")
            m.d.comb += [normal.eq(scale[3:].any()), exponent.eq(scale[3:] - normal)]
            significands.append(Cat(scale[:3], normal))
            exponents.append(exponent)

        # The scales' product, at most 15 * 15 < 2**8, is known before the dot product is: only one
        # multiplication waits for that.
        factor = Signal(8)
        m.d.comb += [
            factor.eq(significands[0] * significands[1]),
            self.sum.eq(dot * factor),
            self.shift.eq(exponents[0] + exponents[1]),
            self.nan.eq((self.activation_scale == NVFP4_SCALE_NAN)
                        | (self.weight_scale == NVFP4_SCALE_NAN)),
        ]

        return m
