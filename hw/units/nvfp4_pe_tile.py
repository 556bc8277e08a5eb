# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..lib.dot_product import dot_product, e2m1_products
from ..lib.formats import NVFP4_GROUP, NVFP4_SCALE_NAN, SUBGROUP, decode_e2m1


class Nvfp4PETile(wiring.Component):
    """Dot product of NVFP4 lanes times both block scales: an exact integer and its exponent.

    The counterpart of `PETile`, for comparison. Nothing is rounded. 16 elements share a scale, so
    two tiles of 8 lanes have the same scales and each multiplies by them; a tile of 16 lanes,
    which is a whole group, does so once. Combinational. Specification section 9.

    Parameters
    ----------
    lanes : int
        8 or 16.

    Members
    -------
    activations, weights : In(data.ArrayLayout(4, lanes))
        FP4 codes.
    activation_scale, weight_scale : In(7)
        E4M3 codes without their sign, which block scales do not have.
    sum : Out(signed(19))
        At most 1152 * 15 * 15 = 259200 in magnitude; of 16 lanes ``Out(signed(20))``, twice that.
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

        # A scale is a significand of four bits times 2**(exponent - 9), exponents from 0; code
        # bits 6:3 are the exponent plus 1, but 0 for subnormals.
        significands = []
        exponents = []
        for name in ("activation", "weight"):
            scale = getattr(self, f"{name}_scale")
            normal = Signal(name=f"{name}_normal")
            exponent = Signal(4, name=f"{name}_exponent")
            m.d.comb += [normal.eq(scale[3:].any()), exponent.eq(scale[3:] - normal)]
            significands.append(Cat(scale[:3], normal))
            exponents.append(exponent)

        # The scales' product is there before the dot product is: one multiplication waits.
        factor = Signal(8)
        m.d.comb += [
            factor.eq(significands[0] * significands[1]),
            self.sum.eq(dot * factor),
            self.shift.eq(exponents[0] + exponents[1]),
            self.nan.eq((self.activation_scale == NVFP4_SCALE_NAN)
                        | (self.weight_scale == NVFP4_SCALE_NAN)),
        ]

        return m
