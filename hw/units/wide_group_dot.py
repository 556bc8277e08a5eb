# SPDX-License-Identifier: BSD-2-Clause
"""Dot product of a group of 64 in Sg-special64, for a column of the array."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import carry_chain_add, carry_skip_add, compress
from ..lib.dot_product import FactorChoice
from ..lib.formats import SUBGROUP, WideRecord
from ..lib.pipeline import Stages
from .sg_group_dot import Subgroup, add_scaled, factor_row, named, numbered

_WIDTH = 23
"""Bits of a group's sum: at most 3211264 < 2**22 in magnitude."""

_UNTIL = 13.5
"""When the register within the group's tree comes, in delays of an exclusive or, see `compress`.

A later one holds fewer bits; up to four of each place are left here."""


class WideGroupDot(wiring.Component):
    """Computes the dot product of two groups of 64 in Sg-special64 without their scales.

    It does what `SgGroupDot` does for eight subgroups whose factors have a bit of exponent, too.
    The result is an exact integer; nothing is rounded. Latency 1; if ``fine`` 4; if ``finest`` one
    more. One group per cycle in which all stages are enabled. Specification sections 7 and 18.

    Parameters
    ----------
    fine : bool
        Whether there are registers for 1 GHz: behind the subgroups' trees, behind their sums and
        within the group's tree.
    finest : bool
        Whether there is, besides, one behind the products, for an FPGA.

    Members
    -------
    row : In(factor_row(True, wide=True))
    weight : In(WideRecord)
    five : In(1)
        Whether the weights' special value is 5 or -5. Their selector says so, too, but for twice
        64 lanes: this takes half of them from it.
    enable : In(latency)
        Moves each stage.
    sum : Out(signed(23))
        In units of 1/64, at most 8 * 401408 = 3211264 < 2**22 in magnitude.
    less : Out(signed(23))
        The sum less one, whose complement is the sum negated. Unless ``fine``.
    """

    def __init__(self, *, fine, finest=False):
        self.fine = fine
        self._finest = finest
        self.latency = (4 if fine else 1) + finest
        super().__init__({
            "row": In(factor_row(True, wide=True)),
            "weight": In(WideRecord),
            "five": In(1),
            "enable": In(self.latency),
            "sum": Out(signed(_WIDTH)),
            **({} if fine else {"less": Out(signed(_WIDTH))}),
        })

    def elaborate(self, platform):
        m = Module()

        enables = list(self.enable)
        first = enables.pop(0) if self._finest else None
        stages = Stages(m, enables)
        rows, choices = self._subgroups(m, first)
        if self.fine:
            held = stages.cut("rows", **named(row=rows, choice=choices))
            rows, choices = numbered(held, "row"), numbered(held, "choice")
        dots = []
        for j, (row, choice) in enumerate(zip(rows, choices, strict=True)):
            # The tree of all subgroups is deep: this leaves it some time.
            add = carry_chain_add if self._finest else carry_skip_add
            dot = add(m, row.low, row.high, carry=C(0, 1), name=f"dot{j}")
            dots.append(_doubled(m, dot, choice, name=f"doubled{j}"))
        choices = [data.View(FactorChoice, choice.as_value()[: FactorChoice.size])
                   for choice in choices]
        if self.fine:
            held = stages.cut("dots", **named(dot=dots, choice=choices))
            dots, choices = numbered(held, "dot"), numbered(held, "choice")
        self._add(m, stages, dots, choices)

        return m

    def _subgroups(self, m, enable):
        """Both rows of each subgroup's dot product, and what its factors make of it."""
        rows, choices = [], []
        for j, factor in enumerate(self.weight.metadata):
            m.submodules[f"subgroup{j}"] = subgroup = Subgroup(
                special=True, wide=True, finest=self._finest)
            m.d.comb += [
                subgroup.activations.eq(self.row.operands[j]),
                subgroup.activation_factor.eq(self.row.factors[j]),
                subgroup.weights.eq(Cat(self.weight.elements[SUBGROUP * j + i]
                                        for i in range(SUBGROUP))),
                subgroup.weight_factor.eq(factor),
                subgroup.selector.eq(self.weight.scale[:2]),
                subgroup.five.eq(self.five),
            ]
            if self._finest:
                m.d.comb += subgroup.enable.eq(enable)
            rows.append(subgroup.rows)
            choices.append(subgroup.choice)
        return rows, choices

    def _add(self, m, stages, dots, choices):
        """Adds the subgroups' dot products times both factors to the sum."""
        # Unless fine the rows add up to one less, so that the same addition with another carry
        # makes that, too.
        rows = add_scaled(m, dots, choices, width=_WIDTH, less=int(not self.fine), until=_UNTIL)
        held = stages.cut("parts", **named(part=rows))
        low, high = compress(m, [(0, row, 0) for row in numbered(held, "part")],
                             width=_WIDTH, name="last")
        add = carry_chain_add if self._finest else carry_skip_add
        if self.fine:
            total = add(m, low, high, carry=C(0, 1), name="total")
            m.d.comb += self.sum.eq(stages.cut("held", total=total).total)
        else:
            m.d.comb += [
                self.less.eq(add(m, low, high, carry=C(0, 1), name="total_less")),
                self.sum.eq(add(m, low, high, carry=C(1, 1), name="total")),
            ]


def _doubled(m, dot, choice, *, name):
    """Multiplies a dot product by the powers of two of both factors: two bits wider."""
    width = len(dot) + 2
    doubled = Signal(signed(width), name=name)
    once = ~(choice.twice | choice.fourfold)
    m.d.comb += doubled.eq(reduce(or_, (
        Cat(C(0, places), dot, dot[-1].replicate(2 - places)) & chosen.replicate(width)
        for places, chosen in enumerate((once, choice.twice, choice.fourfold)))))
    return doubled
