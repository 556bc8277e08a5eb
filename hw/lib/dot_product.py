# SPDX-License-Identifier: BSD-2-Clause
"""Exact dot products of FP4 codes, for the tiles and columns (specification section 7).

A dot product goes through four steps, each a function here: `e2m1_products` multiplies lane by
lane, `add_products` adds the products and the refinement from `refine` down to two rows,
`dot_product` completes that sum behind the registers of a tile, and `scale_rows` or
`scale_both_rows` multiply it by the subgroups' factors. All are combinational but `dot_product`.
"""

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

# The product of both factors, (4 + a) * (4 + b), as a sum of three multiples of the dot product,
# one per row of an addition. Each is a power of two, so that a row is a choice of shifts; a row has
# few different ones, and only the last has negative ones.
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
    """Multiplies FP4 codes lane by lane.

    A code is a significand of two bits, ``2 * normal + mantissa``, times 2**shift halves. The
    significands are multiplied and the product gets its sign; meanwhile the shifts are added. One
    shift of the signed product completes it:

    ======== ======== =========== ====== ===== ====
    code     halves   significand normal upper top
    ======== ======== =========== ====== ===== ====
    000      0        0           0      0     0
    001      1        1           0      0     0
    010      2        2           1      0     0
    011      3        3           1      0     0
    100      4        2           1      1     0
    101      6        3           1      1     0
    110      8        2           1      1     1
    111      12       3           1      1     1
    ======== ======== =========== ====== ===== ====

    ``mantissa`` is bit 0 of the code; the shift is 0, 1 or 2: the number of ``upper`` and ``top``
    that are set.

    Parameters
    ----------
    m : Module
    weights, activations : sequence of DecodedE2M1 or of DecodedSpecial
        Equally many.
    words : bool
        Whether products are described as words, with a bit per lane, which simulators take faster,
        or one lane after the other, of which synthesis may make less.

    Returns
    -------
    list of Value
        Signed products in units of 1/4: 9 bits, at most 12 * 12 = 144 < 2**8 in magnitude. With
        special values 10 bits, at most 16 * 16 = 256 < 2**9.
    """
    lanes = len(weights)
    if lanes > 1 and not words:
        return [product for w, x in zip(weights, activations, strict=True)
                for product in e2m1_products(m, [w], [x])]
    w, x = _planes(m, weights, "weights"), _planes(m, activations, "activations")
    signed_significands = _special_significands if hasattr(w, "special") else _significands
    *lower, sign = signed_significands(m, w, x, lanes)

    # Shifts of 0 to 2 each add up to 0 to 4:
    #       sum of shifts:  0  1  2  3  4
    # upper of one operand  -  x  x  x  x   at_least1
    # upper of both         -  -  *  x  x   at_least2, where the sum is 1 + 1, ...
    # top of one            -  -  *  x  x   ... or 0 + 2
    # upper of both, and
    # top of one            -  -  -  x  x   at_least3
    # top of both           -  -  -  -  x   at_least4
    both_upper, any_top = Signal(lanes, name="both_upper"), Signal(lanes, name="any_top")
    at_least = [Signal(lanes, name=f"at_least{n}") for n in range(1, 5)]
    shift = [Signal(lanes, name=f"shift{n}") for n in range(5)]
    m.d.comb += [
        both_upper.eq(w.upper & x.upper),
        any_top.eq(w.top | x.top),
        at_least[0].eq(w.upper | x.upper),
        at_least[1].eq(both_upper | any_top),
        at_least[2].eq(both_upper & any_top),
        at_least[3].eq(w.top & x.top),
        shift[0].eq(~at_least[0]),
        *(shift[n + 1].eq(at_least[n] & ~at_least[n + 1]) for n in range(3)),
        shift[4].eq(at_least[3]),
    ]

    # Below its sign the signed significand has four bits, or five with special values; the shift
    # adds up to four places. A place of the product takes one of those bits, or the sign where the
    # shift leaves all of them below.
    top = len(lower) - 1
    bits = [Signal(lanes, name=f"product{place}") for place in range(top + 5)]
    for place, bit in enumerate(bits):
        shifted = [shift[n] & lower[place - n]
                   for n in range(max(place - top, 0), min(place, 4) + 1)]
        fill = [sign & ~at_least[place - top - 1]] if place > top else []
        m.d.comb += bit.eq(reduce(or_, shifted + fill))
    return [Cat(*(bit[i] for bit in bits), sign[i]).as_signed() for i in range(lanes)]


def _planes(m, operands, name):
    """Transposes operands: a signal per field, with a bit per operand."""
    planes = {field: Signal(len(operands), name=f"{name}_{field}")
              for field, _ in operands[0].shape()}
    m.d.comb += [plane.eq(Cat(operand[field] for operand in operands))
                 for field, plane in planes.items()]
    return SimpleNamespace(**planes)


def _significands(m, w, x, lanes):
    """Multiplies significands of E2M1, with their signs: five bits, lowest first."""
    names = ("one", "cross_w", "cross_x", "two", "four", "eight", "negative", "minus_one",
             "minus_two", "filled", "sign")
    (one, cross_w, cross_x, two, four, eight, negative, minus_one, minus_two, filled, sign) = (
        Signal(lanes, name=name) for name in names)
    bits = [one, *(Signal(lanes, name=f"significand{place}") for place in range(1, 4)), sign]
    # Which bits of both significands make which bit of the magnitude. A significand is n m, its
    # bits normal and mantissa:
    #   place 1:  wm & xm                                    one
    #   place 2:  wm & xn (cross_w), wn & xm (cross_x)
    #   place 4:  wn & xn
    # Both cross products are 1 only in 3 * 3, where they carry: 1 + 2 + 2 + 4 = 9 is 8 + 1. Else
    # one of them at most is 1.
    #   n m * n m  product  eight four two one   negated
    #   0 0   - -     0       0    0    0   0    0 0000
    #   0 1   0 1     1       0    0    0   1    1 1111
    #   0 1   1 0     2       0    0    1   0    1 1110
    #   0 1   1 1     3       0    0    1   1    1 1101
    #   1 0   1 0     4       0    1    0   0    1 1100
    #   1 0   1 1     6       0    1    1   0    1 1010
    #   1 1   1 1     9       1    0    0   1    1 0111
    # Negation changes the bits above the lowest one that is set, so it needs no carry:
    #   place 1:  as it is
    #   place 2:  changes if bit 0 is set
    #   place 4:  set in all negative products but 0 and -6 (filled, but for four and two)
    #   place 8:  changes in all negative products but 0
    m.d.comb += [
        negative.eq(w.negative ^ x.negative),
        one.eq(w.mantissa & x.mantissa),
        cross_w.eq(w.mantissa & x.normal),
        cross_x.eq(x.mantissa & w.normal),
        eight.eq(cross_w & cross_x),
        two.eq((cross_w | cross_x) & ~eight),
        four.eq(w.normal & x.normal & ~one),
        minus_one.eq(negative & one),
        minus_two.eq(negative & two),
        # All products but 0 if negative, 4 and 6 if not.
        filled.eq(minus_one | minus_two | four),
        sign.eq(negative & filled),
        bits[1].eq(two ^ minus_one),
        bits[2].eq(filled & ~(minus_two & four)),
        bits[3].eq(eight ^ sign),
    ]
    return bits


def _special_significands(m, w, x, lanes):
    """Multiplies significands up to 5, with their signs: six bits, lowest first."""
    names = ("one", "cross_w", "cross_x", "eight", "special_w", "special_x", "both_five",
             "negative")
    one, cross_w, cross_x, eight, special_w, special_x, both_five, negative = (
        Signal(lanes, name=name) for name in names)
    magnitude = [Signal(lanes, name=f"magnitude{place}") for place in range(5)]
    # A significand is s n m, its bits special, normal and mantissa, where n is 0 if s is 1: 0 to 3,
    # 4 and 5. Which bits of both make which bit of the magnitude:
    #   place 1:   wm & xm                                    one
    #   place 2:   wm & xn (cross_w), wn & xm (cross_x)
    #   place 4:   wn & xn, ws & xm (special_w), wm & xs (special_x)
    #   place 8:   ws & xn, wn & xs, the carries
    #   place 16:  ws & xs
    #   s n m * s n m  product   bits of the magnitude
    #   0 - -   0 - -    0 to 9  as in `_significands`
    #   1 0 m   0 n m    4 or 5 times 2n + m: 0, 4, 8 or 12 and, of 5, 0 to 3 more
    #   1 0 0   1 0 0   16       1 0000
    #   1 0 0   1 0 1   20       1 0100    one of the places 4
    #   1 0 1   1 0 1   25       1 1001    both places 4 (both_five): they carry
    m.d.comb += [
        negative.eq(w.negative ^ x.negative),
        one.eq(w.mantissa & x.mantissa),
        cross_w.eq(w.mantissa & x.normal),
        cross_x.eq(x.mantissa & w.normal),
        eight.eq(cross_w & cross_x),
        special_w.eq(w.special & x.mantissa),
        special_x.eq(x.special & w.mantissa),
        both_five.eq(special_w & special_x),
        magnitude[0].eq(one),
        magnitude[1].eq((cross_w | cross_x) & ~eight),
        magnitude[2].eq((w.normal & x.normal & ~one) | ((special_w | special_x) & ~both_five)),
        magnitude[3].eq(eight | (w.special & x.normal) | (x.special & w.normal) | both_five),
        magnitude[4].eq(w.special & x.special),
    ]
    # Negation changes the bits above the lowest one that is set.
    bits, below = [magnitude[0]], magnitude[0]
    for place, bit in enumerate(magnitude[1:], 1):
        changed = Signal(lanes, name=f"significand{place}")
        reached = Signal(lanes, name=f"below{place + 1}")
        m.d.comb += [changed.eq(bit ^ (negative & below)), reached.eq(below | bit)]
        bits.append(changed)
        below = reached
    sign = Signal(lanes, name="sign")
    m.d.comb += sign.eq(negative & below)
    return [*bits, sign]


def add_products(m, products, refinement=None, *, words=True):
    """Adds a subgroup's products down to two rows, without carry propagation.

    Parameters
    ----------
    m : Module
    products : list of Value
        From `e2m1_products`, in units of 1/4; their number is a power of two.
    refinement : Value, optional
        From `refine`, signed, in units of 1/16.
    words : bool
        As in `compress`.

    Returns
    -------
    list of two Value
        Rows that add up to the dot product modulo 2**width. Without a refinement it is in units of
        1/4: 8 products of 9 bits make 12, as 8 * 144 = 1152 < 2**11. With one it is in units of
        1/16: two places more, 14 bits, as 4704 < 2**13. Special values have one bit more, as
        8 * 256 = 2048 < 2**12; 16 products have one bit more, too.
    """
    # A product's sign is worth -2**8 quarters. Inverted, as a bit worth 2**8, it counts 2**8 too
    # much: -s = (1 - s) - 1. Of 8 products that is 2**11, half of the sums' range: inverting the
    # top bit of one row takes it away. Of more or wider products it is half the range as well.
    place = 0 if refinement is None else 2
    width = place + len(products[0]) + (len(products) - 1).bit_length()
    # With the last lane first, synthesis makes a smaller and faster tree.
    rows = [(place, Cat(product[:-1], ~product[-1]), 0) for product in reversed(products)]
    if refinement is not None:
        refinement = Cat(refinement, refinement[-1].replicate(width - len(refinement)))
        # It comes by way of the top-1's selection: about two full adders after the products.
        rows.append((0, refinement, 4))
    dot = compress(m, rows, width=width, name="dot", words=words)
    return [dot[0] ^ (1 << (width - 1)), dot[1]]


def refine(m, weights, lane, refinement, *, hold=None):
    """Multiplies an activation's refinement by the weight of its lane.

    Parameters
    ----------
    m : Module
    weights : Codes
    lane : Value
        Lane of the top-1, one-hot.
    refinement : Refinement
    hold : callable, optional
        Takes the weight of the lane and the refinement, and returns both, in the next stage.

    Returns
    -------
    Signal
        What the refinement adds to the dot product: signed, 8 bits, in units of 1/16.
    """
    # The top-1's weight in halves (0, 1, 2, 3, 4, 6, 8 or 12) times its refinement in eighths (1,
    # 2, 4 or 8): at most 96 sixteenths, below 2**7. Its sign is the weight's and the refinement's.
    # The weight is negated before it is shifted: bits change above the lowest that is set.
    top = Signal(4)
    halves = Signal(4)
    set_below = Signal(3)
    negative = Signal()
    value = Signal(signed(5), name="refinement0")
    selected = reduce(or_, (weight & chosen.replicate(4)
                            for weight, chosen in zip(weights, lane, strict=True)))
    if hold:
        selected, refinement = hold(selected, refinement)
    mantissa, lower, upper = top[:3]
    m.d.comb += [
        top.eq(selected),
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
        # A shift by one place makes the value one bit wider, one by two places two bits: 5, 6 and 8
        # bits. Amaranth's ``<<`` may count more, which are copies of the sign.
        value = Signal(signed(len(before) + places), name=f"refinement{n + 1}")
        m.d.comb += value.eq(Mux(shift, before << places, before))
    return value


def scale_rows(dot, factor):
    """Multiplies a subgroup's dot product by its weights' factor, as two rows.

    Parameters
    ----------
    dot : Value, signed(14)
        At most 4704 in magnitude.
    factor : Value
        k of the factor 4 + k, two bits.

    Returns
    -------
    base : Value, signed(17)
        At most 4704 * 8 = 37632 < 2**16 in magnitude.
    addend : Value, signed(15)
        At most 4704 * 2 = 9408 < 2**14 in magnitude. Both add up to ``dot * (4 + k)``.
    """
    # k  base     addend
    # 0  4 * dot  0
    # 1  4 * dot  dot
    # 2  4 * dot  2 * dot
    # 3  8 * dot  -dot: inverted, and one, which goes to the base's lowest place, which is free
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


FactorChoice = data.StructLayout({
    # Whether the first row is 32 times the dot product, else 16 times.
    "doubled": 1,
    # Whether the second row is 4, 8 or 16 times, one-hot; none is 0.
    "second": 3,
    # Whether the third row is 1, 2 or 4 times, one-hot; none is 0.
    "third": 3,
    # Whether the third row is negative.
    "negative": 1,
})
"""What the factors of both operands make of a subgroup's dot product, as three rows."""


WideChoice = data.StructLayout({
    **{name: field.shape for name, field in FactorChoice},
    # Whether one factor is doubled besides, or both are.
    "twice": 1,
    "fourfold": 1,
})
"""The same in Sg-special64, whose factors have a bit of exponent."""


def choose_factors(m, activation_meta, weight_meta):
    """Chooses the rows of `chosen_rows` by the factors of both operands.

    Parameters
    ----------
    m : Module
    activation_meta, weight_meta : Value
        k and l of the factors 4 + k and 4 + l, two bits each. With a third one, the bit of
        exponent.

    Returns
    -------
    Signal
        A `FactorChoice`, or a `WideChoice` of factors of three bits.
    """
    def whether(row, *multiples):
        return reduce(or_, (
            (activation_meta[:2] == a) & (weight_meta[:2] == b)
            for a, b in product(range(4), repeat=2)
            if _MULTIPLES[(4 + a) * (4 + b)][row] in multiples))

    wide = len(weight_meta) == 3
    choice = Signal(WideChoice if wide else FactorChoice, name="chosen")
    if wide:
        m.d.comb += [
            choice.twice.eq(activation_meta[2] ^ weight_meta[2]),
            choice.fourfold.eq(activation_meta[2] & weight_meta[2]),
        ]
    m.d.comb += [
        choice.doubled.eq(whether(0, 32)),
        choice.second.eq(Cat(whether(1, 4), whether(1, 8), whether(1, 16))),
        choice.third.eq(Cat(whether(2, 1, -1), whether(2, 2, -2), whether(2, -4))),
        choice.negative.eq(whether(2, -1, -2, -4)),
    ]
    return choice


def chosen_rows(dot, choice):
    """Multiplies a subgroup's dot product by the factors of both operands, as three rows.

    Parameters
    ----------
    dot : Value, signed
    choice : FactorChoice
        From `choose_factors`.

    Returns
    -------
    list of (int, Value)
        The place of each row's lowest bit, and the row, signed. With one more at place 0 if
        ``choice.negative``, the rows add up to ``dot * (4 + k) * (4 + l)``.
    """
    width = len(dot)
    extended = [Cat(C(0, n), dot, dot[-1].replicate(2 - n)) for n in range(3)]

    def selected(chosen):
        return reduce(or_, (row & bit.replicate(width + 2)
                            for row, bit in zip(extended, chosen, strict=True)))

    return [
        (4, Mux(choice.doubled, Cat(C(0, 1), dot), Cat(dot, dot[-1]))),
        (2, selected(choice.second)),
        (0, selected(choice.third) ^ choice.negative.replicate(width + 2)),
    ]


def scale_both_rows(m, dot, activation_meta, weight_meta):
    """Rows of `chosen_rows` as they are added: three of equal width, which need no one more.

    Parameters
    ----------
    m : Module
    dot : Value, signed
    activation_meta, weight_meta : Value
        As in `choose_factors`.

    Returns
    -------
    list of three Signal, signed
        They add up to ``dot * (4 + k) * (4 + l)``. Each is five bits wider than ``dot``: dot
        products use at most 9/16 of their range, and 49 * 9 / 16 < 2**5.
    """
    choice = choose_factors(m, activation_meta, weight_meta)
    width = len(dot) + 5
    rows = [Signal(signed(width), name=f"row{number}") for number in range(3)]
    m.d.comb += [row.eq(chosen.as_signed() << place) for row, (place, chosen) in
                 zip(rows, chosen_rows(dot, choice), strict=True)]
    # The one that completes the negation goes to the first row's lowest place, which is free.
    return [rows[0] | choice.negative, *rows[1:]]


def shift_by_both(total, activation_exponent, weight_exponent):
    """Multiplies a scaled dot product by two for each factor whose bit of exponent is set.

    Parameters
    ----------
    total : Value, signed
    activation_exponent, weight_exponent : Value
        A bit each.

    Returns
    -------
    Value
        Signed, two bits wider.
    """
    both = activation_exponent & weight_exponent
    either = activation_exponent | weight_exponent
    return Mux(both, total << 2, Mux(either, total << 1, total))
