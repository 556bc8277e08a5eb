# SPDX-License-Identifier: BSD-2-Clause
"""The column of the array against golden: products, special values, sparse groups."""

import numpy as np
import pytest

from hw.units.group_mac import GroupMac
from tests.support import bubbles
from tests.support.compare import check, float_bits
from tests.support.oracle import accumulate, group_sum
from tests.support.testbench import shared

NAN = 0x7FC00000
ONES = [1] * 4


def pad(*codes):
    return [*codes] + [0] * (32 - len(codes))


def stack(rows):
    """Rows of activation and weight records (elements, metadata, scale) and acc's bits."""
    activations, weights, acc = zip(*rows, strict=True)
    inputs = {"acc": np.array(acc)}
    for name, records in ("activation", activations), ("weight", weights):
        elements, metadata, scales = zip(*records, strict=True)
        inputs[name] = {"elements": np.array(elements), "metadata": np.array(metadata),
                        "scale": np.array(scales)}
    return {"i": inputs}


def check_rows(rows, bits, **options):
    check(shared(GroupMac), stack(rows), {"o": np.array(bits)}, **options)


def plain(activation, weight, acc=0.0):
    """Elements under scale 1 without refinement and factor."""
    return (pad(*activation), ONES, 127), (pad(*weight), [0] * 4, 127), int(float_bits(acc))


PRODUCTS = [
    (plain([1], [1]), 0.25),                      # 0.5 * 0.5
    (plain([9], [1]), -0.25),
    (plain([2], [2]), 1.0),
    (plain([2], [2], 1.0), 2.0),
    (plain([0], [0], 1.0), 1.0),                  # 1 + 0
    (plain([2], [0], 1.0), 1.0),
    (plain([2], [8], -1.0), -1.0),
    (plain([15, 7], [2, 2]), 0.0),                # -6 + 6
    (plain([15, 7], [10, 2]), 12.0),
    (plain([15, 7], [2, 10], -0.0), -12.0),
    (plain([8] * 32, [15] * 32, -0.0), 0.0),      # a zero group is +0
    (plain([7] * 32, [7] * 32), 1152.0),
    (plain([1] * 32, [9] * 32, 8.0), 0.0),
    # Refinement and factor belong to their subgroup alone: 0.25 from codes of zero, 1.75.
    (((pad(), [3, 1, 1, 1], 127), ([2] * 32, [3, 0, 0, 0], 127), 0), 0.4375),
    (((pad(), [1, 1, 3, 1], 127), ([2] * 32, [3, 3, 0, 3], 127), 0), 0.25),
    (((pad(), [1, 1, 1, 3], 127), ([10] * 32, [0, 0, 0, 2], 127), 0), -0.375),
    # The largest group sum, 131712 / 64, and what the smallest codes give.
    ((([7] * 32, [3] * 4, 127), ([7] * 32, [3] * 4, 127), 0), 2058.0),
    ((([15] * 32, [3] * 4, 127), ([7] * 32, [3] * 4, 127), 0), -2058.0),
    (((pad(), [2, 1, 1, 1], 127), (pad(1), [0] * 4, 127), 0), 0.0625),
    # Scales, the all-zero group's code 0 among them.
    (((pad(2), ONES, 130), (pad(2), [0] * 4, 125), 0), 2.0),
    (((pad(), ONES, 0), ([7] * 32, [3] * 4, 254), 0x3F800000), 1.0),
    (((pad(2), ONES, 0), (pad(2), [0] * 4, 254), 0), 1.0),
    (((pad(2), ONES, 0), (pad(2), [0] * 4, 127), 0), 2.0**-127),
]


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_products(stalls):
    rows, values = zip(*PRODUCTS, strict=True)
    check_rows(rows, float_bits(values), stalls=stalls)


def test_special_values():
    one, largest = (pad(2), ONES, 127), ([7] * 32, [3] * 4, 254)
    weight, zero = (pad(2), [0] * 4, 127), (pad(), [0] * 4, 127)
    blank = (pad(), [0] * 4, 255)
    check_rows(
        [(blank, weight, 0), (one, blank, 0), (blank, blank, 0), (one, blank, 0x7F800000),
         (one, weight, NAN), (one, weight, 0xFF800001), (one, weight, 0x7F800000),
         (largest, largest, 0xFF800000), (largest, largest, 0), (one, zero, 0x80000000),
         ((pad(9), ONES, 0), (pad(1), [0] * 4, 0), 0)],
        [NAN, NAN, NAN, NAN, NAN, NAN, 0x7F800000, 0xFF800000, 0x7F800000, 0, 0x80000000])


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_parts_of_one_transfer_stay_together(stalls):
    # Neighbours differ in one part at a time, in the next run in all of them.
    rows, values = [], []
    for part in (*range(6), None):
        for i in range(9):
            x, k, wide, narrow, acc, meta = (i % 3 if part in (p, None) else 0 for p in range(6))
            rows.append(((pad(2 + 2 * x), [1 + meta, 1, 1, 1], 127 + wide),
                         (pad(2), [k, 0, 0, 0], 126 - narrow), int(float_bits(acc))))
            # 1, 2, 4 with up to two steps of the top-1: eighths, quarters, halves.
            value = 2.0**x + meta * [0.125, 0.25, 0.5][x]
            values.append(acc + value * (1 + k / 4) * 2.0 ** (wide - 1 - narrow))
    check_rows(rows, float_bits(values), stalls=stalls)


def test_lone_beat():
    row, value = PRODUCTS[3]
    check_rows([row], float_bits([value]))


def test_sparse_groups():
    # One pair of elements that are not zero, in every position.
    rng = np.random.default_rng(0)
    rows = []
    for i in range(64):
        activation, weight = pad(), pad()
        activation[i % 32], weight[i % 32] = rng.integers(0, 16, 2).tolist()
        rows.append(((activation, rng.integers(0, 4, 4).tolist(), 127),
                     (weight, rng.integers(0, 4, 4).tolist(), 128), int(rng.integers(0, 1 << 31))))
    check_rows(rows, [accumulate(acc, group_sum(x, w), x[2], w[2]) for x, w, acc in rows])


def test_transfers_on_their_way():
    """As many as there are registers, and a bubble among them is filled."""
    assert bubbles.held(GroupMac(), 10) == 5
