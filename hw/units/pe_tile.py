# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..lib.dot_product import Refinement, dot_product, e2m1_products, refine, scale_rows
from ..lib.formats import SUBGROUP, Codes, check_metadata, decode_e2m1
from ..lib.pipeline import check_depth


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
        # At most 4704 * 7 < 2**16 in magnitude.
        base, addend = scale_rows(dot, held["factor"])
        m.d.comb += self.sum.eq(base + addend)

        return m
