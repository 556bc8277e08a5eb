# SPDX-License-Identifier: BSD-2-Clause
"""Dot product of a group whose operands both have subgroup factors, for a column of the array."""

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
    SUBGROUPS,
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
    """Layout of an activation group with its codes decoded, which all columns share.

    If ``wide`` of a group of 64, whose factors have three bits.
    """
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
        ``Out(signed(20))``, at most 4 * 100352 = 401408 < 2**19.
    """

    def __init__(self, *, special, fine, finest=False):
        self.has_special = special
        self.fine = fine
        self._finest = finest
        self.latency = (4 if fine else 1) + finest
        super().__init__({
            "row": In(factor_row(special)),
            "weight": In(Record),
            "enable": In(self.latency),
            "sum": Out(signed(20 if special else 19)),
        })

    def elaborate(self, platform):
        m = Module()

        enables = list(self.enable)
        first = enables.pop(0) if self._finest else None
        stages = Stages(m, enables)
        rows, choices = [], []
        for j in range(SUBGROUPS):
            m.submodules[f"subgroup{j}"] = subgroup = Subgroup(
                special=self.has_special, finest=self._finest)
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
            held = stages.cut("rows", **named(row=rows, choice=choices))
            rows, choices = numbered(held, "row"), numbered(held, "choice")
        dots = []
        for j, row in enumerate(rows):
            dot = Signal(signed(len(row.low)), name=f"dot{j}")
            m.d.comb += dot.eq(row.low + row.high)
            dots.append(dot)
        if self.fine:
            held = stages.cut("dots", **named(dot=dots, choice=choices))
            dots, choices = numbered(held, "dot"), numbered(held, "choice")

        # The lowest places are added at once: they are there earlier than those above.
        low, high = add_scaled(m, dots, choices, width=len(self.sum))
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


def add_scaled(m, dots, choices, *, width, less=0, until=None):
    """Adds the subgroups' dot products times both factors, without carry propagation.

    Parameters
    ----------
    m : Module
    dots : list of Value, signed
    choices : list of FactorChoice
    width : int
        Of the sum.
    less : int
        What the rows add up to less than the sum.
    until : float, optional
        As in `compress`; the dot products are there at 0.

    Returns
    -------
    list of Value
        Two rows, or as many as ``until`` leaves.
    """
    rows, excess = [], less
    for j, (dot, choice) in enumerate(zip(dots, choices, strict=True)):
        for number, (place, row) in enumerate(chosen_rows(dot, choice)):
            scaled = Signal(signed(len(row)), name=f"row{number}_{j}")
            m.d.comb += scaled.eq(row)
            # With its sign inverted a row counts half its range too much; a constant row
            # takes that away, modulo the sum's width.
            rows.append((place, Cat(scaled[:-1], ~scaled[-1]), number))
            excess += 1 << (place + len(row) - 1)
        # The ones that complete the negations.
        rows.append((0, choice.negative, 0))
    correction = -excess % (1 << width)
    place = (correction & -correction).bit_length() - 1
    rows.append((place, C(correction >> place, (correction >> place).bit_length()), 0))
    return compress(m, rows, width=width, name="sum", until=until)


def named(**lists):
    """Values of lists by names with their number."""
    return {f"{name}{number}": value for name, values in lists.items()
            for number, value in enumerate(values)}


def numbered(held, name):
    """The list that `named` gave names, out of a register."""
    return [value for key, value in vars(held).items() if key.rstrip("0123456789") == name]


class Subgroup(wiring.Component):
    """Computes the dot product of a subgroup, without the factors. Combinational.

    If ``finest`` there is a register behind the products: latency 1.

    Parameters
    ----------
    special, finest : bool
        Those of `SgGroupDot`.
    wide : bool
        Whether factors have three bits.

    Members
    -------
    activations : In(data.ArrayLayout(DecodedE2M1 or DecodedSpecial, 8))
    weights : In(Codes)
    selector : In(2)
        Of the weights' special value; with special values only.
    five : In(1)
        Whether that is 5 or -5; if ``wide``.
    activation_factor, weight_factor : In(2), or In(3) if ``wide``
    enable : In(1)
        Moves the register; if ``finest``.
    rows : Out(data.StructLayout)
        Two rows that add up, modulo their width, to the dot product of the codes in units of 1/4.
    choice : Out(FactorChoice), or Out(WideChoice) if ``wide``
        What both factors make of it.
    """

    def __init__(self, *, special, finest, wide=False):
        self.has_special, self.is_wide = special, wide
        self._finest = finest
        width = 13 if special else 12
        factor = 3 if wide else 2
        super().__init__({
            "activations": In(factor_row(special)["operands"].shape.elem_shape),
            "weights": In(Codes),
            **({"selector": In(2)} if special else {}),
            **({"five": In(1)} if wide else {}),
            "activation_factor": In(factor),
            "weight_factor": In(factor),
            **({"enable": In(1)} if finest else {}),
            "rows": Out(data.StructLayout({"low": width, "high": width})),
            "choice": Out(WideChoice if wide else FactorChoice),
        })

    def elaborate(self, platform):
        m = Module()

        five = self.five if self.is_wide else None
        weights = ([decode_special(m, code, self.selector, name=f"weight{lane}", five=five)
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
        low, high = add_products(m, products, words=not self.is_wide)
        m.d.comb += [
            self.rows.low.eq(low),
            self.rows.high.eq(high),
            self.choice.eq(choice),
        ]

        return m
