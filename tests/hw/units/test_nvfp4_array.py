# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The array for NVFP4 against golden and fractions: rows, tiles, stalls, reset in flight."""

from fractions import Fraction

import numpy as np
import pytest
from amaranth import ResetInserter, Signal

import sim
from golden import reference, stimuli
from golden.formats.catalogue import FORMATS
from golden.formats.nvfp4 import dequantize_nvfp4, tensor_scale_of
from golden.units.nvfp4_array import row_terms
from golden.units.nvfp4_quantizer import quantize_nvfp4
from hw.lib.formats import Record, WideRecord, nvfp4_row
from hw.tools import packing
from hw.units.nvfp4_array import Nvfp4Array
from tests.hw.units.test_mac_array import cycles
from tests.support import oracle
from tests.support.compare import check
from tests.support.marks import longer
from tests.support.testbench import shared, simulate


@pytest.mark.parametrize("encoding, groups, columns, weight_width, stalls, count", [
    ("nvfp4", 2, 1, 1, 0.4, 40), ("razer", 2, 1, 1, 0.4, 40), ("nvfp4", 4, 1, 1, 0.4, 12),
    *(longer(*case) for case in [
        ("nvfp4", 2, 1, 1, 0.0, 400), ("nvfp4", 2, 3, 1, 0.4, 60), ("nvfp4", 2, 4, 2, 0.3, 40),
        ("nvfp4", 2, 4, 4, 0.0, 40), ("razer", 2, 1, 1, 0.0, 400), ("razer", 2, 4, 2, 0.3, 40),
        ("nvfp4", 4, 1, 1, 0.0, 200), ("nvfp4", 4, 4, 2, 0.3, 20), ("razer", 4, 1, 1, 0.3, 200)])])
def test_golden(encoding, groups, columns, weight_width, stalls, count):
    parameters = {"columns": columns, "weight_width": weight_width, "encoding": encoding,
                  "groups": groups}
    inputs = stimuli.nvfp4_array(np.random.default_rng(columns), count, **parameters)
    expected = reference.nvfp4_array(inputs, **parameters)
    check(shared(Nvfp4Array, **parameters), inputs, expected, stalls=stalls, outputs=count)


ONE = 0x38
LARGEST, SMALLEST, NORMAL, NAN = 0x7E, 0x01, 0x08, 0x7F


def row(first, second):
    """Elements and scales of a row whose groups repeat one code: pairs of code and scale."""
    return [first[0]] * 16 + [second[0]] * 16, [first[1], second[1]]


def lone(scales):
    """A row whose second group has one element, 0.5, and whose first one is a power of two."""
    return [4] * 16 + [1] + [0] * 15, scales


def bits(value):
    return int(np.float32(value).view(np.uint32))


CASES = [
    # The largest sum of one sign, and both groups opposite: exactly +0.
    (row((7, LARGEST), (7, LARGEST)), row((7, LARGEST), (7, LARGEST)), 0),
    (row((15, LARGEST), (7, LARGEST)), row((7, LARGEST), (7, LARGEST)), 0x80000000),
    # 28 places apart, either way, of either sign; one place below a power of two.
    (row((7, LARGEST), (1, SMALLEST)), row((7, LARGEST), (1, SMALLEST)), 0),
    (row((1, SMALLEST), (15, LARGEST)), row((1, SMALLEST), (7, LARGEST)), 0),
    (row((4, 0x78), (9, SMALLEST)), row((4, 0x78), (1, SMALLEST)), 0),
    # The lowest place of all makes the row odd.
    (lone([0x78, SMALLEST]), lone([0x78, SMALLEST]), 0),
    # A zero scale leaves the other group, of which all bits count.
    (row((7, 0), (13, 0x05)), row((7, LARGEST), (11, 0x0F)), 0),
    (row((7, LARGEST), (13, 0x05)), row((7, 0), (11, 0x0F)), bits(1e-3)),
    # Smallest normal and largest subnormal scales.
    (row((7, NORMAL), (7, 0x07)), row((5, 0x07), (13, NORMAL)), bits(-2.0**-10)),
    # NaN scales on either side, beside an infinity and a zero group.
    (row((0, NAN), (1, ONE)), row((1, ONE), (1, ONE)), 0x7F800000),
    (row((1, ONE), (1, ONE)), row((1, ONE), (0, NAN)), 0),
    # Accumulators: infinities, NaN, the largest, subnormals beside zero and other rows.
    (row((7, LARGEST), (7, LARGEST)), row((15, LARGEST), (15, LARGEST)), 0x7F800000),
    (row((7, ONE), (7, ONE)), row((7, ONE), (7, ONE)), 0xFF800000),
    (row((7, ONE), (7, ONE)), row((7, ONE), (7, ONE)), 0x7F800001),
    (row((7, LARGEST), (7, LARGEST)), row((7, LARGEST), (7, LARGEST)), 0x7F7FFFFF),
    (row((0, ONE), (8, ONE)), row((7, ONE), (7, ONE)), 0x80000001),
    (row((0, ONE), (8, 0)), row((7, ONE), (7, ONE)), 0x007FFFFF),
    (row((0, ONE), (8, 0)), row((7, ONE), (7, ONE)), 0x80000000),
    (row((1, ONE), (8, 0)), row((1, ONE), (7, ONE)), 0x007FFFFF),
    # The largest sums under all significands, normal and subnormal.
    *((row((7, 0x70 + s), (sign + 7, s)), row((7, 0x77 - s), (7, 7 - s)), 0)
      for s in range(8) for sign in (0, 8)),
    # The accumulator takes all of the row away but the last place of its significand.
    (row((2, ONE), (1, SMALLEST)), row((2, ONE), (1, ONE)), bits(-16 - 2.0**-5)),
    # Ties of the accumulator that something far below decides.
    (row((2, ONE), (1, SMALLEST)), row((2, ONE), (1, SMALLEST)), bits(2.0**28)),
    (row((2, 0x58), (1, SMALLEST)), row((2, ONE), (1, SMALLEST)), bits(2.0**32)),
    (row((2, 0x58), (9, SMALLEST)), row((2, ONE), (1, SMALLEST)), bits(2.0**32)),
]


def corner_inputs(cases):
    """Inputs of one column, each row with weights of its own."""
    activations, weights, accs = zip(*cases, strict=True)
    planes = [{"elements": np.array([elements for elements, _ in rows], np.uint8),
               "scales": np.array([scales for _, scales in rows], np.uint8)}
              for rows in (activations, weights)]
    return {"i_weight": {name: plane[:, None] for name, plane in planes[1].items()},
            "i_activation": {"record": planes[0], "last": np.ones(len(cases), np.uint8)},
            "i_acc": np.array(accs, np.uint32)[:, None]}


def test_corner_cases():
    inputs = corner_inputs(CASES)
    expected = np.array(oracle.nvfp4_array(inputs, 1), np.uint32)
    # Half a place and a little, or less a little: 2**32 + 2**8 +- 2**-16.
    assert (expected[-2] - expected[-1]).tolist() == [1]
    check(shared(Nvfp4Array, columns=1, weight_width=1), inputs, {"o": expected},
          outputs=len(CASES))


# Scale bytes of RaZeR: of activations, of weights under each selector.
RAZER_LARGEST, RAZER_NAN = 62, 63
RAZER_CASES = [
    # The largest sums of either sign: elements 6 or their special value, weights 8 or -8.
    *((row((7, LARGEST), (7, LARGEST)), row((8, 128 + RAZER_LARGEST), (8, sign + RAZER_LARGEST)),
       0) for sign in (128, 192)),
    *((row((7, LARGEST), (code, LARGEST)), row((8, 192 + RAZER_LARGEST), (8, 192 + RAZER_LARGEST)),
       0) for code in (7, 15)),
    # Every special value times every one, under all significands.
    *((row((8, 0x70 + s + 128 * (s & 1)), (8, s + 128 * (s >> 1 & 1))),
       row((8, 63 - 8 - s + 64 * t), (8, 7 - s + 64 * (3 - t))), 0)
      for s in range(8) for t in range(4)),
    # A selector without its code changes nothing; zero scales.
    (row((7, ONE + 128), (8, 128)), row((3, 24 + 192), (8, 192)), bits(1)),
    # 20 places apart, either way, of either sign.
    (row((7, LARGEST), (1, SMALLEST)), row((8, 128 + RAZER_LARGEST), (1, 1)), 0),
    (row((1, SMALLEST), (15, LARGEST)), row((1, 1), (8, 192 + RAZER_LARGEST)), 0),
    (row((4, 0x78), (9, SMALLEST)), row((4, 0x38), (1, 1)), 0),
    (lone([0x78, SMALLEST]), lone([0x38, 1]), 0),
    # NaN scales under every selector; what is NaN for weights is a scale of activations.
    *((row((0, NAN + 128 * (t & 1)), (1, ONE)), row((1, 24), (1, 24)), 0) for t in range(2)),
    *((row((1, ONE), (1, ONE)), row((1, 24), (0, 64 * t + RAZER_NAN)), 0) for t in range(4)),
    (row((1, RAZER_NAN), (1, RAZER_NAN)), row((1, 24), (1, 24)), 0),
    # Accumulators: infinities, NaN, and what ends at zero.
    (row((7, LARGEST), (7, LARGEST)), row((15, 24), (15, 24)), 0x7F800000),
    (row((7, ONE), (7, ONE)), row((7, 24), (7, 24)), 0x7F800001),
    (row((0, ONE), (0, ONE)), row((8, 24), (8, 24)), 0x80000000),
]


def test_corner_cases_of_razer():
    inputs = corner_inputs(RAZER_CASES)
    expected = np.array(oracle.nvfp4_array(inputs, 1, "razer"), np.uint32)
    assert (expected == oracle.NAN).sum() == 7
    check(shared(Nvfp4Array, columns=1, weight_width=1, encoding="razer"), inputs, {"o": expected},
          outputs=len(RAZER_CASES))


def in_rows_of_four(cases):
    """Corner cases by two and two: all with the next one's groups behind, and before."""
    return [(*((a[0] + b[0], a[1] + b[1]) for a, b in zip(one[:2], other[:2], strict=True)),
             one[2]) for n in (1, 5) for one, other in zip(cases, cases[n:] + cases[:n],
                                                           strict=True)]


@pytest.mark.parametrize("encoding", ["nvfp4", longer("razer")])
def test_corner_cases_in_rows_of_four_groups(encoding):
    cases = in_rows_of_four({"nvfp4": CASES, "razer": RAZER_CASES}[encoding])
    largest = ([7] * 64, [LARGEST] * 4)
    if encoding == "nvfp4":
        cases += [(largest, largest, 0), (([15] * 64, [LARGEST] * 4), largest, 0)]
    else:
        cases += [(largest, ([8] * 64, [128 + RAZER_LARGEST] * 4), 0)]
    inputs = corner_inputs(cases)
    expected = np.array(oracle.nvfp4_array(inputs, 1, encoding), np.uint32)
    check(shared(Nvfp4Array, columns=1, encoding=encoding, groups=4), inputs, {"o": expected},
          outputs=len(cases))


@pytest.mark.long
def test_razer_is_the_format():
    """The product of tensors that the format quantized, under tensor scales of 1."""
    rng = np.random.default_rng(5)
    x, y = (rng.standard_t(4, (rows, 32)).astype(np.float32) for rows in (12, 3))
    a, w = (FORMATS[f"RaZeR {kind}"].quantize(values, tensor_scale=np.float32(1))
            for kind, values in (("activations", x), ("weights", y)))
    found = sim.run(shared(Nvfp4Array, columns=3, weight_width=3, encoding="razer"), {
        "i_weight": {"elements": w.elements[None], "scales": w.scales[None]},
        "i_activation": {"record": {"elements": a.elements, "scales": a.scales},
                         "last": np.zeros(12, np.uint8)},
        "i_acc": np.zeros((12, 3), np.uint32)}, outputs=12)["o"]
    # Exact: sums are multiples of 2**-16 below 2**25.
    exact = (FORMATS["RaZeR activations"].dequantize(a).astype(np.float64)
             @ FORMATS["RaZeR weights"].dequantize(w).astype(np.float64).T)
    found = np.asarray(found, np.uint32).view(np.float32)
    assert found.tolist() == row_terms((exact * 2**20).astype(np.int64)).tolist()
    assert (a.elements == 8).any() and (w.elements == 8).any()


@pytest.mark.long
def test_all_differences_of_exponents():
    """One bit against one bit, with every pair of exponents on either side."""
    scales = [0x01, *range(0x08, 0x80, 0x08)]
    pairs = [(x, w) for x in scales for w in scales]
    rng = np.random.default_rng(2)
    chosen = rng.permutation(len(pairs) ** 2)[:400]
    first, second = (np.array(pairs, np.uint8)[part] for part in divmod(chosen, len(pairs)))
    elements = np.zeros((2, len(chosen), 32), np.uint8)
    elements[:, :, [3, 20]] = rng.choice(np.array([2, 10, 3, 11], np.uint8),
                                         (2, len(chosen), 2))
    planes = [{"elements": elements[side],
               "scales": np.stack([first[:, side], second[:, side]], axis=1)} for side in range(2)]
    inputs = {"i_weight": {name: plane[:, None] for name, plane in planes[1].items()},
              "i_activation": {"record": planes[0], "last": np.ones(len(chosen), np.uint8)},
              "i_acc": np.zeros((len(chosen), 1), np.uint32)}
    check(shared(Nvfp4Array, columns=1, weight_width=1), inputs,
          {"o": np.array(oracle.nvfp4_array(inputs, 1), np.uint32)}, outputs=len(chosen))


def exact_tensor(rng, rows, full, empty, step):
    """A tensor that NVFP4 holds exactly under this tensor scale, a power of two."""
    values = rng.choice(np.array(oracle.E2M1_HALVES) / 2, (rows, 6, 16))
    values *= rng.choice([-1, 1], values.shape)
    # Scales of groups are 1, 2 and 4, and 448 in one of them; another one is zero.
    values[..., 0] = 6
    values *= rng.choice([1, 2, 4], (rows, 6, 1))
    values[:, full] = 6 * 448 * rng.choice([-1, 1], 16)
    values[:, empty] = 0
    return (values.reshape(rows, 96) * step).astype(np.float32)


@pytest.mark.long
def test_matrix_product_under_tensor_scales():
    """Tensor scales multiply the results outside. Here nothing is rounded."""
    rng = np.random.default_rng(3)
    # Where one has its scale of 448 the other is zero, so that sums fit 24 bits.
    x, y = exact_tensor(rng, 5, 0, 3, 2.0**-7), exact_tensor(rng, 2, 3, 0, 2.0**-3)
    a, w = (quantize_nvfp4(values, tensor_scale_of(values)) for values in (x, y))
    assert (dequantize_nvfp4(a) == x).all() and (dequantize_nvfp4(w) == y).all()
    assert (a.tensor_scale, w.tensor_scale) == (2.0**-7, 2.0**-3)

    def tiles(q, k):
        return {"elements": q.elements[:, 32 * k : 32 * k + 32],
                "scales": q.scales[:, 2 * k : 2 * k + 2]}

    acc = np.zeros((5, 2), np.uint32)
    for k in range(3):
        acc = sim.run(shared(Nvfp4Array, columns=2), {
            "i_weight": {name: plane[:, None] for name, plane in tiles(w, k).items()},
            "i_activation": {"record": tiles(a, k), "last": np.array([0, 0, 0, 0, 1], np.uint8)},
            "i_acc": acc}, stalls=0.2, outputs=5)["o"]
    found = np.asarray(acc, np.uint32).view(np.float32) * a.tensor_scale * w.tensor_scale
    assert found.tolist() == (x.astype(np.float64) @ y.astype(np.float64).T).tolist()


@pytest.mark.long
def test_sums_where_one_rounding_would_do():
    """Accumulators of eight times the row and more: the result is the exact sum, rounded once."""
    rng = np.random.default_rng(4)
    record, weight = (stimuli.nvfp4_rows(rng, 120) for _ in range(2))
    record["scales"] &= 0x7E
    weight["scales"] &= 0x7E
    rows = [oracle.nvfp4_row(*parts) for parts in zip(*(
        plane.tolist() for planes in (record, weight)
        for plane in (planes["elements"], planes["scales"])), strict=True)]
    acc = np.array([[bits(float(8 * total or 1) * 2.0 ** rng.integers(0, 24)
                          * rng.uniform(1, 2) * rng.choice([-1, 1]))] for total in rows], np.uint32)
    inputs = {"i_weight": {name: plane[:, None] for name, plane in weight.items()},
              "i_activation": {"record": record, "last": np.ones(120, np.uint8)}, "i_acc": acc}
    expected = [[oracle.float32(Fraction(float(start)) + total)] for start, total in
                zip(acc.view(np.float32)[:, 0], rows, strict=True)]
    check(shared(Nvfp4Array, columns=1, weight_width=1), inputs,
          {"o": np.array(expected, np.uint32)}, outputs=120)


@pytest.mark.long
@pytest.mark.parametrize("groups", [2, 4])
def test_reset_in_flight(groups):
    """After a reset the array waits for weights again and computes as if new."""
    parameters = {"columns": 1, "weight_width": 1, "groups": groups}
    inputs = stimuli.nvfp4_array(np.random.default_rng(1), 6, **parameters)
    inputs["i_activation"]["last"][:] = 0
    inputs["i_weight"] = {name: plane[:1] for name, plane in inputs["i_weight"].items()}
    expected = reference.nvfp4_array(inputs, **parameters)["o"][:, 0].tolist()
    array = Nvfp4Array(**parameters)
    reset = Signal()
    rows = {name: packing.to_integers(packing.to_bits(
        array.signature.members[name].signature.members["payload"].shape, inputs[name], name))
        for name in inputs}

    async def offer(ctx, cycles):
        results, position = [], dict.fromkeys(rows, 0)
        for _ in range(cycles):
            taken = {}
            for name, values in rows.items():
                port, left = getattr(array, name), position[name] < len(values)
                ctx.set(port.valid, left)
                if left:
                    ctx.set(port.payload.as_value(), values[position[name]])
            for name, values in rows.items():
                taken[name] = ctx.get(getattr(array, name).ready) and position[name] < len(values)
            if ctx.get(array.o.valid):
                results.append(ctx.get(array.o.payload[0]))
            await ctx.tick()
            for name in rows:
                position[name] += bool(taken[name])
        return results

    received = []

    async def bench(ctx):
        ctx.set(array.o.ready, 1)
        # Within the first tile, and amid results.
        for cycle in 1, 2, 5, 9:
            await offer(ctx, cycle)
            for name in rows:
                ctx.set(getattr(array, name).valid, 0)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            received.append(await offer(ctx, 22))

    simulate(ResetInserter(reset)(array), bench)
    assert received == [expected] * 4


@pytest.mark.long
@pytest.mark.parametrize("groups", [2, 4])
def test_no_stall_in_steady_state(groups):
    """Tiles as long as loading one takes: after the first, an output leaves every cycle."""
    columns, tiles = 3, 4
    inputs = stimuli.nvfp4_array(np.random.default_rng(0), columns * tiles, columns=columns,
                                 weight_width=1, groups=groups)
    inputs["i_activation"]["last"][:] = np.tile([0, 0, 1], tiles)
    inputs["i_weight"] = {name: plane[:, None] for name, plane in stimuli.nvfp4_rows(
        np.random.default_rng(1), columns * tiles, groups=groups).items()}
    array = Nvfp4Array(columns=columns, groups=groups)
    found = cycles(array, inputs, columns * tiles)
    assert np.diff(found).tolist() == [1] * (columns * tiles - 1)
    # The first tile takes its load and one cycle for the swap.
    assert found[0] == columns + 1 + array.latency


def test_a_row_has_the_bits_of_a_record():
    assert nvfp4_row(2).size == Record.size == 144
    assert nvfp4_row(4).size == WideRecord.size == 288


@pytest.mark.parametrize("columns", [0, -1, 2.0, True])
def test_wrong_columns(columns):
    with pytest.raises(ValueError, match=f"Columns must be a positive integer, not {columns!r}"):
        Nvfp4Array(columns=columns)


@pytest.mark.parametrize("groups", [1, 3, 8, 2.0, True])
def test_wrong_groups(groups):
    with pytest.raises(ValueError, match=f"Groups must be 2 or 4, not {groups!r}"):
        Nvfp4Array(groups=groups)


def test_wrong_encoding():
    with pytest.raises(ValueError, match="Encoding must be 'nvfp4' or 'razer', not 'RaZeR'"):
        Nvfp4Array(encoding="RaZeR")


@pytest.mark.parametrize("weight_width", [0, 3, 8, 1.0])
def test_wrong_weight_width(weight_width):
    with pytest.raises(ValueError, match="Weight width must be a divisor of 4 columns, "
                                         f"not {weight_width!r}"):
        Nvfp4Array(columns=4, weight_width=weight_width)
