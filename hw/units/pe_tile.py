# SPDX-License-Identifier: BSD-2-Clause
"""The tile: dot product of a subgroup of refined activations and scaled weights."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..lib.dot_product import Refinement, dot_product, e2m1_products, refine, scale_rows
from ..lib.formats import SUBGROUP, Codes, check_metadata, decode_e2m1
from ..lib.pipeline import check_depth


class PETile(wiring.Component):
    """Computes the dot product of a subgroup: refined activations times scaled weights.

    The result is an exact integer; nothing is rounded. `Top1Decode` finds the refinement, so that
    it costs one shifted weight here. Without metadata the tile computes the plain dot product of
    MXFP4, to compare with. Latency ``depth``; one subgroup per cycle in which ``enable`` is set.
    Specification section 7.

    Parameters
    ----------
    depth : int
        Pipeline registers: 0 is combinational, 1 holds the dot product, 2 also the products.
    metadata : bool
        Whether operands have metadata. Otherwise there is no refinement, no factor, and none of
        their ports.

    Members
    -------
    activations : In(Codes)
        FP4 codes.
    lane : In(8)
        Lane of the activations' top-1, one-hot. With metadata only.
    refinement : In(Refinement)
        Added to the activation in that lane. With metadata only.
    weights : In(Codes)
        FP4 codes.
    meta : In(2)
        Metadata of the weights: their factor is (4 + meta) / 4. With metadata only.
    enable : In(1)
        Moves the pipeline. With a depth of at least 1 only.
    sum : Out(signed(17))
        In units of 1/64, at most 4704 * 7 = 32928 < 2**16 in magnitude. Without metadata
        ``Out(signed(12))``, in units of 1/4, at most 8 * 144 = 1152 < 2**11.

    Raises
    ------
    TypeError
        If ``metadata`` is not a bool.
    ValueError
        If ``depth`` is not 0, 1 or 2.
    """

    def __init__(self, *, depth=0, metadata=True):
        check_depth(depth, (0, 1, 2))
        check_metadata(metadata)
        self.depth = self.latency = depth
        self.has_metadata = metadata
        super().__init__({
            "activations": In(Codes),
            **({"lane": In(SUBGROUP), "refinement": In(Refinement)} if metadata else {}),
            "weights": In(Codes),
            **({"meta": In(2)} if metadata else {}),
            **({"enable": In(1)} if depth else {}),
            "sum": Out(signed(17) if metadata else signed(12)),
        })

    def elaborate(self, platform):
        m = Module()

        products = e2m1_products(m, [decode_e2m1(code) for code in self.weights],
                                 [decode_e2m1(code) for code in self.activations], words=False)
        pipeline = {"depth": self.latency, "enable": self.enable if self.latency else None}
        if not self.has_metadata:
            dot, _ = dot_product(m, products, **pipeline)
            m.d.comb += self.sum.eq(dot)
            return m

        refinement = refine(m, self.weights, self.lane, self.refinement)
        dot, held = dot_product(m, products, refinement, **pipeline, beside={"factor": self.meta})
        base, addend = scale_rows(dot, held["factor"])
        m.d.comb += self.sum.eq(base + addend)

        return m
