# SPDX-License-Identifier: BSD-2-Clause
"""Exact dot products of FP4 codes: products, adder tree, refinement, subgroup factors."""

from functools import reduce
from itertools import product
from operator import or_
from types import SimpleNamespace

from amaranth import *
from amaranth.lib import data

from .arithmetic import compress
from .pipeline import Stages

Refinement = data.StructLayout({"shift": 2, "negative": 1, "zero": 1})
"""What the top-1's metadata adds to its element: plus or minus 2**shift eighths, or nothing.

``negative`` includes the element's own sign; it and ``shift`` are 0 where ``zero`` is set.
"""

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


def e2m1_products(m, weights, activations, *, words=True):
    """Products of FP4 codes, lane by lane: signed, in units of 1/4.

    Each code is a `DecodedE2M1`, or all are a `DecodedSpecial`. Products are described as words of
    all lanes, which simulators take faster, or one by one, of which synthesis may make less.
    """
    lanes = len(weights)
    if lanes > 1 and not words:
        return [product for w, x in zip(weights, activations, strict=True)
                for product in e2m1_products(m, [w], [x])]
    w, x = _planes(m, weights, "weights"), _planes(m, activations, "activations")
    # Products of the significands, at most 3 * 3, are negated and meanwhile the shifts added: one
    # shift by 0 to 4 remains. At most 12 * 12 = 144 < 2**8; with special values 16 * 16 = 2**8.
    negate = _negated_special if hasattr(w, "special") else _negated_significands
    *lower, sign = negate(m, w, x, lanes)

    # Whether the shift is at least 1, 2, 3 or 4, and which it is.
    both, twos = Signal(lanes, name="both"), Signal(lanes, name="twos")
    least = [Signal(lanes, name=f"least{n}") for n in range(1, 5)]
    shift = [Signal(lanes, name=f"shift{n}") for n in range(5)]
    m.d.comb += [
        both.eq(w.upper & x.upper),
        twos.eq(w.top | x.top),
        least[0].eq(w.upper | x.upper),
        least[1].eq(both | twos),
        least[2].eq(both & twos),
        least[3].eq(w.top & x.top),
        shift[0].eq(~least[0]),
        *(shift[n + 1].eq(least[n] & ~least[n + 1]) for n in range(3)),
        shift[4].eq(least[3]),
    ]

    # Each place is one of the significand's low bits, four or five, or above them its sign.
    top = len(lower) - 1
    bits = [Signal(lanes, name=f"product{place}") for place in range(top + 5)]
    for place, bit in enumerate(bits):
        moved = [shift[n] & lower[place - n] for n in range(max(place - top, 0), min(place, 4) + 1)]
        fill = [sign & ~least[place - top - 1]] if place > top else []
        m.d.comb += bit.eq(reduce(or_, moved + fill))
    return [Cat(*(bit[i] for bit in bits), sign[i]).as_signed() for i in range(lanes)]


def _planes(m, operands, name):
    """Of each field of operands a signal with a bit per operand."""
    planes = {field: Signal(len(operands), name=f"{name}_{field}")
              for field, _ in operands[0].shape()}
    m.d.comb += [plane.eq(Cat(operand[field] for operand in operands))
                 for field, plane in planes.items()]
    return SimpleNamespace(**planes)


def _negated_significands(m, w, x, lanes):
    """Products of the significands with their signs: five bits, lowest first."""
    names = ("low", "left", "right", "middle", "high", "even", "negative", "ones", "third",
             "second", "sign")
    low, left, right, middle, high, even, negative, ones, third, second, sign = (
        Signal(lanes, name=name) for name in names)
    bits = [low, *(Signal(lanes, name=f"significand{place}") for place in range(1, 4)), sign]
    # Magnitudes are 0, 1, 2, 3, 4, 6 and 9. Negated, bits change above the lowest that is set, and
    # no carry is needed: 4 and 6 are ``even``, only 9 has a ``high`` bit, and bit 2 is that of
    # what is not 0, except that -6 = 0b11010.
    m.d.comb += [
        negative.eq(w.negative ^ x.negative),
        low.eq(w.mantissa & x.mantissa),
        left.eq(w.mantissa & x.normal),
        right.eq(x.mantissa & w.normal),
        high.eq(left & right),
        middle.eq((left | right) & ~high),
        even.eq(w.normal & x.normal & ~low),
        ones.eq(negative & low),
        second.eq(negative & middle),
        third.eq(ones | second | even),
        sign.eq(negative & third),
        bits[1].eq(middle ^ ones),
        bits[2].eq(third & ~(second & even)),
        bits[3].eq(high ^ sign),
    ]
    return bits


def _negated_special(m, w, x, lanes):
    """As `_negated_significands`, of significands up to 5: six bits."""
    names = ("low", "left", "right", "high", "weight_four", "activation_four", "both_five",
             "negative")
    low, left, right, high, weight_four, activation_four, both_five, negative = (
        Signal(lanes, name=name) for name in names)
    plain = [Signal(lanes, name=f"plain{place}") for place in range(5)]
    # A special value is 4, and its mantissa 1 more where it is 5: times a plain significand that
    # is twice the same bits, two places apart, and of two special values, 4 + a and 4 + b, it is
    # 16 + 4 * (a + b) + a * b.
    m.d.comb += [
        negative.eq(w.negative ^ x.negative),
        low.eq(w.mantissa & x.mantissa),
        left.eq(w.mantissa & x.normal),
        right.eq(x.mantissa & w.normal),
        high.eq(left & right),
        weight_four.eq(w.special & x.mantissa),
        activation_four.eq(x.special & w.mantissa),
        both_five.eq(weight_four & activation_four),
        plain[0].eq(low),
        plain[1].eq((left | right) & ~high),
        plain[2].eq((w.normal & x.normal & ~low)
                    | ((weight_four | activation_four) & ~both_five)),
        plain[3].eq(high | (w.special & x.normal) | (x.special & w.normal) | both_five),
        plain[4].eq(w.special & x.special),
    ]
    # Negated, bits change above the lowest that is set.
    bits, below = [plain[0]], plain[0]
    for place, bit in enumerate(plain[1:], 1):
        changed = Signal(lanes, name=f"significand{place}")
        reached = Signal(lanes, name=f"below{place + 1}")
        m.d.comb += [changed.eq(bit ^ (negative & below)), reached.eq(below | bit)]
        bits.append(changed)
        below = reached
    sign = Signal(lanes, name="sign")
    m.d.comb += sign.eq(negative & below)
    return [*bits, sign]


def add_products(m, products, refinement=None, *, words=True):
    """Two rows that add up, modulo their width, to the sum of a power of two of products.

    With a refinement, which is in units of 1/16, so is the sum. ``words`` is that of `compress`.
    """
    # Without their sign's weight, products are 2**8 too large where they are negative. Counting
    # the sign the other way round makes that 2**8 each, of 8 2**11 in all: the top bit. At most
    # 8 * 144 = 1152 < 2**11, or 4704 < 2**13 sixteenths: 12 or 14 bits with sign. Special values
    # have a bit more throughout: 8 * 256 = 2048 < 2**12.
    place = 0 if refinement is None else 2
    width = place + len(products[0]) + (len(products) - 1).bit_length()
    # Of this order, the last lane first, synthesis makes a smaller and faster tree.
    rows = [(place, Cat(product[:-1], ~product[-1]), 0) for product in reversed(products)]
    if refinement is not None:
        refinement = Cat(refinement, refinement[-1].replicate(width - len(refinement)))
        # It comes by way of the top-1's selection: about two full adders after the products.
        rows.append((0, refinement, 4))
    dot = compress(m, rows, width=width, name="dot", words=words)
    return [dot[0] ^ (1 << (width - 1)), dot[1]]


def refine(m, weights, lane, refinement):
    """What an activation's refinement adds to a dot product: signed, in units of 1/16.

    Parameters
    ----------
    m : Module
    weights : Codes
    lane : Value
        Of the top-1, one-hot.
    refinement : Refinement

    Returns
    -------
    Signal
    """
    # The top-1's weight in halves (0, 1, 2, 3, 4, 6, 8 or 12) times its refinement in eighths (at
    # most 8): at most 96 sixteenths, below 2**7. Its sign is the weight's and the refinement's.
    # The weight is negated before it is shifted: bits change above the lowest that is set.
    top = Signal(4)
    halves = Signal(4)
    set_below = Signal(3)
    negative = Signal()
    value = Signal(signed(5), name="refinement0")
    mantissa, lower, upper = top[:3]
    m.d.comb += [
        top.eq(reduce(or_, (weight & selected.replicate(4)
                            for weight, selected in zip(weights, lane, strict=True)))),
        negative.eq(top[3] ^ refinement.negative),
        halves.eq(Cat(mantissa & ~upper, (lower & ~upper) | (upper & ~lower & mantissa),
                      upper & (~lower | mantissa), upper & lower)
                  & ~refinement.zero.replicate(4)),
        set_below.eq(Cat(halves[0], *(halves[:place].any() for place in (2, 3)))),
        value.eq(Cat(halves[0], halves[1:] ^ (set_below & negative.replicate(3)),
                     negative & halves.any())),
    ]
    for n, (shift, places) in enumerate(zip(refinement.shift, (1, 2), strict=True)):
        before = value
        # A place is a bit more; a shift by a constant counts more, which are copies of the sign.
        value = Signal(signed(len(before) + places), name=f"refinement{n + 1}")
        m.d.comb += value.eq(Mux(shift, before << places, before))
    return value


def scale_rows(dot, factor):
    """Two numbers whose sum is a subgroup's dot product times its weights' factor.

    Parameters
    ----------
    dot : Value, signed(14)
    factor : Value
        k of the factor 4 + k, two bits.

    Returns
    -------
    base : Value, signed(17)
    addend : Value, signed(15)
    """
    # 4 + k is 4 + 0, 4 + 1, 4 + 2 or 8 - 1: one addition. The one that completes the negation
    # goes to the base's lowest place, which is free. At most 4704 * 8 < 2**16.
    most = factor.all()
    base = Mux(most, dot << 3, dot << 2) | most
    addend = Mux(factor[0], dot ^ most.replicate(14).as_signed(), Mux(factor[1], dot << 1, 0))
    return base, addend


def dot_product(m, products, refinement=None, *, depth=0, enable=None, beside=None):
    """The dot product of a tile, behind the registers that its ``depth`` asks for.

    Parameters
    ----------
    m : Module
        Gets submodules ``products`` and ``dot``, the registers.
    products : list of Value
        From `e2m1_products`; their number is a power of two.
    refinement : Value, optional
        From `refine`.
    depth : int
        0 is combinational, 1 holds the dot product in a register, 2 also the products.
    enable : Value, optional
        Moves all registers; not needed if ``depth`` is 0.
    beside : dict of str to Value, optional
        Values that go with the products through the same registers.

    Returns
    -------
    dot : Value
        Signed. In units of 1/4 it has 12 bits for 8 products of E2M1, in units of 1/16, with a
        refinement, 14.
    beside : dict of str to Value
        The values, as late as ``dot``.
    """
    stages = Stages(m, enable.replicate(depth) if depth else ())
    beside = beside or {}
    if depth == 2:
        named = {f"product{i}": product for i, product in enumerate(products)}
        if refinement is not None:
            named["refinement"] = refinement
        held = vars(stages.cut("products", **named, **beside))
        products = [held[f"product{i}"] for i in range(len(products))]
        refinement = held.get("refinement")
        beside = {name: held[name] for name in beside}
    low, high = add_products(m, products, refinement, words=False)

    dot = Signal(signed(len(low)))
    m.d.comb += dot.eq(low + high)
    if depth:
        beside = vars(stages.cut("dot", dot=dot, **beside))
        dot = beside.pop("dot")
    return dot, beside


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
