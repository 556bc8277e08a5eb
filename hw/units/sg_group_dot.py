# SPDX-License-Identifier: BSD-2-Clause
"""Dot product of a group whose operands both have subgroup factors, for a column of the array."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import carry_chain_add, carry_skip_add, compress
from ..lib.dot_product import (
    FactorChoice,
    WideChoice,
    add_products,
    choose_factors,
    chosen_rows,
    e2m1_products,
)
from ..lib.formats import (
    SUBGROUP,
    Codes,
    DecodedE2M1,
    DecodedSpecial,
    Record,
    WideRecord,
    decode_e2m1,
    decode_special,
)
from ..lib.pipeline import Stages


def factor_row(special, wide=False):
    """Layout of an activation group with its codes decoded, which all columns share."""
    operand = DecodedSpecial if special else DecodedE2M1
    factors = (WideRecord if wide else Record)["metadata"].shape
    return data.StructLayout({
        "operands": data.ArrayLayout(data.ArrayLayout(operand, SUBGROUP), factors.length),
        "factors": factors,
        # An E8M0 code.
        "scale": 8,
    })


def decode_row(m, row, record):
    """Decodes an activation group for all columns, but for the scale.

    Parameters
    ----------
    m : Module
    row : View of factor_row
        Gets the operands and the factors.
    record : Record
        Those of a row with special values take the selector from its scale byte.
    """
    for j, operands in enumerate(row.operands):
        m.d.comb += row.factors[j].eq(record.metadata[j])
        for lane, operand in enumerate(operands):
            n = SUBGROUP * j + lane
            code = record.elements[n]
            m.d.comb += operand.eq(
                decode_special(m, code, record.scale[:2], name=f"activation{n}")
                if operand.shape() == DecodedSpecial else decode_e2m1(code))


_LOWEST = 7
"""Places of a group's sum that are added before the register behind its tree."""


class SgGroupDot(wiring.Component):
    """Computes the dot product of two groups with subgroup factors without their scales.

    It does what `GroupDot` does, for activations in Sg-EM or Sg-special. The result is an exact
    integer; nothing is rounded. Latency 1; if ``fine`` 4; if ``finest`` one more. One group per
    cycle in which all stages are enabled. Specification sections 7 and 12.

    Parameters
    ----------
    special : bool
        Whether code 8 stands for a special value, which a group's scale byte selects.
    fine : bool
        Whether there are registers for 1 GHz: behind the subgroups' trees, behind their sums and
        behind the lowest places of the group's sum.
    finest : bool
        Whether there is, besides, one behind the products, for an FPGA.

    Members
    -------
    row : In(factor_row(special))
    weight : In(Record)
    enable : In(latency)
        Moves each stage.
    sum : Out(signed(19))
        In units of 1/64, at most 4 * 56448 = 225792 < 2**18 in magnitude. With special values
        ``Out(signed(20))``, at most 4 * 100352 = 401408 < 2**19. In groups of 64
        ``Out(signed(23))``, at most 8 * 401408 = 3211264 < 2**22.
    """

    def __init__(self, *, special, fine, finest=False, wide=False):
        self.has_special, self.is_wide = special, wide
        self.fine = fine
        self._finest = finest
        self.latency = (4 if fine else 1) + finest
        super().__init__({
            "row": In(factor_row(special, wide)),
            "weight": In(WideRecord if wide else Record),
            "enable": In(self.latency),
            "sum": Out(signed(23 if wide else 20 if special else 19)),
        })

    def elaborate(self, platform):
        m = Module()

        enables = list(self.enable)
        first = enables.pop(0) if self._finest else None
        stages = Stages(m, enables)
        rows, choices = [], []
        for j in range(len(self.weight.metadata)):
            m.submodules[f"subgroup{j}"] = subgroup = _Subgroup(
                special=self.has_special, wide=self.is_wide, finest=self._finest)
            m.d.comb += [
                subgroup.activations.eq(self.row.operands[j]),
                subgroup.activation_factor.eq(self.row.factors[j]),
                subgroup.weights.eq(Cat(self.weight.elements[SUBGROUP * j + i]
                                        for i in range(SUBGROUP))),
                subgroup.weight_factor.eq(self.weight.metadata[j]),
            ]
            if self.has_special:
                m.d.comb += subgroup.selector.eq(self.weight.scale[:2])
            if self._finest:
                m.d.comb += subgroup.enable.eq(first)
            rows.append(subgroup.rows)
            choices.append(subgroup.choice)

        if self.fine:
            held = vars(stages.cut("rows", **_named(row=rows, choice=choices)))
            rows, choices = _of(held, "row"), _of(held, "choice")
        dots = []
        for j, row in enumerate(rows):
            dot = Signal(signed(len(row.low)), name=f"dot{j}")
            # Twice as many subgroups make a deeper tree, for which this leaves time.
            m.d.comb += dot.eq(carry_skip_add(m, row.low, row.high, carry=C(0, 1), name=f"sum{j}")
                               if self.is_wide else row.low + row.high)
            dots.append(dot)
        if self.fine:
            held = vars(stages.cut("dots", **_named(dot=dots, choice=choices)))
            dots, choices = _of(held, "dot"), _of(held, "choice")

        # The lowest places are added at once: they are there earlier than those above.
        low, high = self._add(m, dots, choices)
        lowest = Signal(_LOWEST + 1)
        m.d.comb += lowest.eq(low[:_LOWEST] + high[:_LOWEST])
        held = stages.cut("parts", lowest=lowest, low=low[_LOWEST:], high=high[_LOWEST:])
        total = Signal(self.sum.shape())
        add = carry_chain_add if self._finest else carry_skip_add
        upper = add(m, held.low, held.high, carry=held.lowest[-1], name="upper")
        m.d.comb += [
            total.eq(Cat(held.lowest[:-1], upper)),
            self.sum.eq(stages.cut("total", total=total).total if self.fine else total),
        ]

        return m

    def _add(self, m, dots, choices):
        """Adds the subgroups' dot products times both factors down to two rows."""
        width = len(self.sum)
        rows, excess = [], 0
        for j, (dot, choice) in enumerate(zip(dots, choices, strict=True)):
            if self.is_wide:
                dot = _doubled(m, dot, choice, name=f"doubled{j}")
            for number, (place, row) in enumerate(chosen_rows(dot, choice)):
                named = Signal(signed(len(row)), name=f"row{number}_{j}")
                m.d.comb += named.eq(row)
                # With its sign inverted a row counts half its range too much; a constant row
                # takes that away, modulo the sum's width.
                rows.append((place, Cat(named[:-1], ~named[-1]), number))
                excess += 1 << (place + len(row) - 1)
            # The ones that complete the negations.
            rows.append((0, choice.negative, 0))
        correction = -excess % (1 << width)
        place = (correction & -correction).bit_length() - 1
        rows.append((place, C(correction >> place, (correction >> place).bit_length()), 0))
        return compress(m, rows, width=width, name="sum")


def _doubled(m, dot, choice, *, name):
    """Multiplies a dot product by the powers of two of both factors; two bits wider."""
    width = len(dot) + 2
    doubled = Signal(signed(width), name=name)
    once = ~(choice.twice | choice.fourfold)
    m.d.comb += doubled.eq(reduce(or_, (
        (Cat(C(0, places), dot, dot[-1].replicate(2 - places)) & chosen.replicate(width))
        for places, chosen in enumerate((once, choice.twice, choice.fourfold)))))
    return doubled


def _named(**lists):
    """Values of lists by names with their number."""
    return {f"{name}{number}": value for name, values in lists.items()
            for number, value in enumerate(values)}


def _of(held, name):
    """The list that `_named` gave names."""
    return [value for key, value in held.items() if key.rstrip("0123456789") == name]


class _Subgroup(wiring.Component):
    """Computes the dot product of a subgroup, without the factors. Combinational.

    If ``finest`` there is a register behind the products: latency 1.

    Parameters
    ----------
    special, finest : bool
        Those of `SgGroupDot`.

    Members
    -------
    activations : In(data.ArrayLayout(DecodedE2M1 or DecodedSpecial, 8))
    weights : In(Codes)
    selector : In(2)
        Of the weights' special value; with special values only.
    activation_factor, weight_factor : In(2)
    enable : In(1)
        Moves the register; if ``finest``.
    rows : Out(data.StructLayout)
        Two rows that add up, modulo their width, to the dot product of the codes in units of 1/4.
    choice : Out(FactorChoice)
        What both factors make of it.
    """

    def __init__(self, *, special, wide, finest):
        self.has_special, self.is_wide = special, wide
        self._finest = finest
        width = 13 if special else 12
        factor = 3 if wide else 2
        super().__init__({
            "activations": In(factor_row(special)["operands"].shape.elem_shape),
            "weights": In(Codes),
            **({"selector": In(2)} if special else {}),
            "activation_factor": In(factor),
            "weight_factor": In(factor),
            **({"enable": In(1)} if finest else {}),
            "rows": Out(data.StructLayout({"low": width, "high": width})),
            "choice": Out(WideChoice if wide else FactorChoice),
        })

    def elaborate(self, platform):
        m = Module()

        weights = ([decode_special(m, code, self.selector, name=f"weight{lane}")
                    for lane, code in enumerate(self.weights)] if self.has_special
                   else [decode_e2m1(code) for code in self.weights])
        products = e2m1_products(m, weights, self.activations)
        choice = choose_factors(m, self.activation_factor, self.weight_factor)
        if self._finest:
            held = vars(Stages(m, [self.enable]).cut(
                "products", choice=choice,
                **{f"product{i}": product for i, product in enumerate(products)}))
            choice = held.pop("choice")
            products = [held[f"product{i}"] for i in range(SUBGROUP)]
        low, high = add_products(m, products)
        m.d.comb += [
            self.rows.low.eq(low),
            self.rows.high.eq(high),
            self.choice.eq(choice),
        ]

        return m
