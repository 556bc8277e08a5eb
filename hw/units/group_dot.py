# SPDX-License-Identifier: BSD-2-Clause
"""Dot product of a group, for a column of the array."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import carry_chain_add, carry_skip_add, compress
from ..lib.dot_product import Refinement, add_products, e2m1_products, refine, scale_rows
from ..lib.formats import SUBGROUP, SUBGROUPS, Codes, DecodedE2M1, PlainRecord, Record, decode_e2m1
from ..lib.pipeline import Stages

_Operands = data.ArrayLayout(DecodedE2M1, SUBGROUP)

Row = data.StructLayout({
    "operands": data.ArrayLayout(_Operands, SUBGROUPS),
    "lanes": data.ArrayLayout(SUBGROUP, SUBGROUPS),
    "refinements": data.ArrayLayout(Refinement, SUBGROUPS),
    "scale": 8,
})
"""An activation group with its codes and top-1s decoded. All columns share it."""

PlainRow = data.StructLayout({"operands": data.ArrayLayout(_Operands, SUBGROUPS), "scale": 8})
"""The same without metadata."""

_LOWEST = 7
"""Places of a group's sum that are added before the register behind its tree."""


class GroupDot(wiring.Component):
    """Computes the dot product of an activation group and a weight group without their scales.

    The result is an exact integer; nothing is rounded. Latency 1; if ``fine`` 4, or 3 without
    metadata; if ``finest`` one more. One group per cycle in which all stages are enabled.
    Specification section 7.

    Parameters
    ----------
    metadata : bool
        Whether operands have metadata.
    fine : bool
        Whether there are registers for 1 GHz: behind the subgroups' trees, behind their sums and,
        with metadata, behind the lowest places of the group's sum.
    finest : bool
        Whether there is, besides, one behind the products, for an FPGA.

    Members
    -------
    row : In(Row or PlainRow)
    weight : In(Record or PlainRecord)
    enable : In(latency)
        Moves each stage.
    sum : Out(signed(19))
        In units of 1/64, at most 4 * 32928 = 131712 < 2**18 in magnitude. Without metadata
        ``Out(signed(14))``, in units of 1/4, at most 32 * 144 = 4608 < 2**13.
    """

    def __init__(self, *, metadata, fine, finest=False):
        self.has_metadata = metadata
        self.fine = fine
        self._finest = finest
        self.latency = (1 if not fine else 4 if metadata else 3) + finest
        super().__init__({
            "row": In(Row if metadata else PlainRow),
            "weight": In(Record if metadata else PlainRecord),
            "enable": In(self.latency),
            "sum": Out(signed(19) if metadata else signed(14)),
        })

    def elaborate(self, platform):
        m = Module()

        subgroups = [_Subgroup(metadata=self.has_metadata, fine=self.fine, finest=self._finest)
                     for _ in range(SUBGROUPS)]
        for j, subgroup in enumerate(subgroups):
            m.submodules[f"subgroup{j}"] = subgroup
            m.d.comb += [
                subgroup.activations.eq(self.row.operands[j]),
                subgroup.weights.eq(Cat(self.weight.elements[SUBGROUP * j + i]
                                        for i in range(SUBGROUP))),
            ]
            if self.has_metadata:
                m.d.comb += [
                    subgroup.lane.eq(self.row.lanes[j]),
                    subgroup.refinement.eq(self.row.refinements[j]),
                ]

        factors = self.weight.metadata if self.has_metadata else None
        enables = list(self.enable)
        if self._finest:
            first = enables.pop(0)
            m.d.comb += [subgroup.enable.eq(first) for subgroup in subgroups]
            if factors is not None:
                factors = Stages(m, [first]).hold("factors", factors)

        # A fine pipeline cuts also behind the subgroups' trees, their sums and the group's sum.
        stages = Stages(m, enables)

        def cut(stage, values, factors):
            if not self.fine:
                return values, factors
            named = {f"value{j}": value for j, value in enumerate(values)}
            if factors is not None:
                named["factors"] = factors
            held = vars(stages.cut(stage, **named))
            return [held[f"value{j}"] for j in range(len(values))], held.get("factors")

        rows, factors = cut("rows", [subgroup.rows for subgroup in subgroups], factors)
        dots = []
        for j, row in enumerate(rows):
            low, high = row.low, row.high
            if self.has_metadata and self.fine:
                low, high = _refined(m, row, name=f"refined{j}")
            dot = Signal(signed(len(low)), name=f"dot{j}")
            m.d.comb += dot.eq(low + high)
            dots.append(dot)
        dots, factors = cut("dots", dots, factors)

        # The lowest places are added at once: they are there earlier than those above.
        rows = self._add(m, dots, factors)
        if not self.has_metadata:
            # A shorter sum is there early enough.
            total = Signal(self.sum.shape())
            m.d.comb += total.eq(rows[0] + rows[1])
            m.d.comb += self.sum.eq(stages.cut("total", total=total).total)
            return m
        lowest = Signal(_LOWEST + 1)
        m.d.comb += lowest.eq(rows[0][:_LOWEST] + rows[1][:_LOWEST])
        held = stages.cut("parts", lowest=lowest, low=rows[0][_LOWEST:], high=rows[1][_LOWEST:])
        total = Signal(self.sum.shape())
        add = carry_chain_add if self._finest else carry_skip_add
        upper = add(m, held.low, held.high, carry=held.lowest[-1], name="upper")
        m.d.comb += total.eq(Cat(held.lowest[:-1], upper))
        m.d.comb += self.sum.eq(stages.cut("total", total=total).total if self.fine else total)

        return m

    def _add(self, m, dots, factors):
        """Adds the subgroups' dot products times their factors down to two rows."""
        if factors is None:
            # With its sign bit inverted each dot product counts 2**11 too much, 2**13 in all. The
            # sum is modulo 2**14, where 2**13 more takes that away.
            rows = [(0, Cat(dot[:11], ~dot[11]), 0) for dot in dots]
            return compress(m, [*rows, (13, C(1, 1), 0)], width=14, name="sum")
        # With their signs inverted each base counts 2**16 too much and each addend 2**14:
        # 5 * 2**16 in all. The sum is modulo 2**19 = 8 * 2**16, so 3 * 2**16 more takes that away.
        bases, addends = [], []
        for j, dot in enumerate(dots):
            base = Signal(signed(17), name=f"base{j}")
            addend = Signal(signed(15), name=f"addend{j}")
            rows = scale_rows(dot, factors[j])
            m.d.comb += [base.eq(rows[0]), addend.eq(rows[1])]
            bases.append((0, Cat(base[:16], ~base[16]), 0))
            addends.append((0, Cat(addend[:14], ~addend[14]), 0))
        return compress(m, [*addends, *bases, (16, C(3, 2), 0)], width=19, name="sum")


def _rows(metadata, fine):
    """Layout of two rows that add up, modulo their width, to a subgroup's dot product.

    In a fine pipeline that is the dot product of the codes, in units of 1/4; the refinement, in
    units of 1/16, is apart.
    """
    width = 14 if metadata and not fine else 12
    return data.StructLayout({"low": width, "high": width,
                              **({"refinement": signed(8)} if metadata and fine else {})})


def _refined(m, rows, *, name):
    """Adds a dot product and its refinement down to two rows, modulo 2**14."""
    # The dot product is in quarters. Only the refinement has the two places below.
    refinement = Signal(signed(12), name=name)
    m.d.comb += refinement.eq(rows.refinement[2:].as_signed())
    low, high = compress(m, [(0, rows.low, 0), (0, rows.high, 0), (0, refinement, 0)], width=12,
                         name=name)
    return Cat(rows.refinement[:2], low), Cat(C(0, 2), high)


class _Subgroup(wiring.Component):
    """Computes the refined dot product of a subgroup, without the weights' factor. Combinational.

    If ``finest`` there is a register behind the products: latency 1.

    Parameters
    ----------
    metadata, fine, finest : bool
        Those of `GroupDot`.

    Members
    -------
    activations : In(data.ArrayLayout(DecodedE2M1, 8))
    lane, refinement, weights
        Those of `PETile`.
    enable : In(1)
        Moves the register; if ``finest``.
    rows : Out(_rows(metadata, fine))
    """

    def __init__(self, *, metadata, fine, finest=False):
        self.has_metadata = metadata
        self.fine = fine
        self._finest = finest
        super().__init__({
            "activations": In(_Operands),
            **({"lane": In(SUBGROUP), "refinement": In(Refinement)} if metadata else {}),
            "weights": In(Codes),
            **({"enable": In(1)} if finest else {}),
            "rows": Out(_rows(metadata, fine)),
        })

    def elaborate(self, platform):
        m = Module()

        products = e2m1_products(m, [decode_e2m1(code) for code in self.weights],
                                 self.activations)
        hold = None
        if self._finest:
            held = Stages(m, [self.enable]).cut(
                "products", **{f"product{i}": product for i, product in enumerate(products)})
            products = list(vars(held).values())

            def hold(weight, refinement):
                held = Stages(m, [self.enable]).cut("top", weight=weight, refinement=refinement)
                return held.weight, held.refinement

        refinement = None
        if self.has_metadata:
            refinement = refine(m, self.weights, self.lane, self.refinement, hold=hold)
            if self.fine:
                # It would hold up the tree.
                m.d.comb += self.rows.refinement.eq(refinement)
                refinement = None
        low, high = add_products(m, products, refinement)
        m.d.comb += [self.rows.low.eq(low), self.rows.high.eq(high)]

        return m
