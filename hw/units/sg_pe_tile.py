# SPDX-License-Identifier: BSD-2-Clause
from functools import reduce
from itertools import product
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..lib.formats import Codes, decode_e2m1, decode_special
from ..lib.pipeline import Stages, check_depth
from .pe_tile import add_products, e2m1_products

# (4 + a) * (4 + b) as a sum of powers of two, which rows of an addition select: few in each, and
# only the last has negative ones.
_MULTIPLES = {
    16: (16, 0, 0),
    20: (16, 4, 0),
    24: (16, 8, 0),
    25: (16, 8, 1),
    28: (32, 0, -4),
    30: (32, 0, -2),
    35: (32, 4, -1),
    36: (32, 4, 0),
    42: (32, 8, 2),
    49: (32, 16, 1),
}


def scale_both_rows(m, dot, activation_meta, weight_meta):
    """Three numbers whose sum is a subgroup's dot product times the factors of both operands.

    Parameters
    ----------
    m : Module
    dot : Value, signed
    activation_meta, weight_meta : Value
        k of the factors 4 + k, two bits each.

    Returns
    -------
    list of three Signal, signed
        Five bits wider than ``dot``, of whose range dot products use at most 9/16:
        49 * 9 / 16 < 2**5.
    """
    def whether(name, row, *multiples):
        """Whether the factors have one of these multiples in a row."""
        signal = Signal(name=name)
        m.d.comb += signal.eq(reduce(or_, (
            (activation_meta == a) & (weight_meta == b) for a, b in product(range(4), repeat=2)
            if _MULTIPLES[(4 + a) * (4 + b)][row] in multiples)))
        return signal

    def selected(row, *shifts):
        return reduce(or_, (
            (dot << n) & whether(f"row{row}_shift{n}", row, 1 << n, -1 << n).replicate(width)
            .as_signed() for n in shifts))

    width = len(dot) + 5
    rows = [Signal(signed(width), name=f"row{number}") for number in range(3)]
    # The one that completes the negation goes to the first row's lowest place, which is free.
    negative = whether("negative", 2, -1, -2, -4)
    m.d.comb += [
        rows[0].eq(Mux(whether("doubled", 0, 32), dot << 5, dot << 4) | negative),
        rows[1].eq(selected(1, 2, 3, 4)),
        rows[2].eq(selected(2, 0, 1, 2) ^ negative.replicate(width).as_signed()),
    ]
    return rows


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
        self.depth = depth
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

    @property
    def latency(self):
        return self.depth

    def elaborate(self, platform):
        m = Module()

        stages = Stages(m, self.enable.replicate(self.depth) if self.depth else ())

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
        low, high = add_products(
            m, e2m1_products(m, weights, activations, words=False), words=False)

        dot = Signal(signed(len(low)))
        m.d.comb += dot.eq(low + high)
        factors = {"activation_meta": self.activation_meta, "weight_meta": self.meta}
        if self.depth:
            held = vars(stages.cut("dot", dot=dot, **factors))
            dot = held.pop("dot")
            factors = held

        # The factors are there before the dot product is, and their product selects: one addition
        # of three rows is smaller and faster than one factor after the other.
        rows = scale_both_rows(m, dot, **factors)
        m.d.comb += self.sum.eq(rows[0] + rows[1] + rows[2])

        return m
