# SPDX-License-Identifier: BSD-2-Clause
"""The decoder against golden: every code under every kind of scale."""

from itertools import product

import numpy as np
import pytest

from hw.units.decoder import Decoder
from tests.support.compare import check
from tests.support.oracle import decode
from tests.support.testbench import shared

SCALES = [*range(5), 127, *range(250, 256)]


def stack(records):
    elements, metadata, scales = zip(*records, strict=True)
    return {"i": {"elements": np.array(elements), "metadata": np.array(metadata),
                  "scale": np.array(scales)}}


def one(code, meta=1, scale=127, group=32):
    return [code] + [0] * (group - 1), [meta] + [1] * (group // 8 - 1), scale


def group_of(kind):
    return 64 if kind == "special64" else 32


@pytest.mark.parametrize("kind", ["activation", "weight", "special", "special64"])
def test_every_code_metadata_and_scale(kind):
    records = []
    count = group_of(kind) // 8
    for scale, largest in product(SCALES, range(8)):
        # The largest once of each sign, with each metadata, at some lane behind smaller ones.
        for sign in (0, 8):
            elements = []
            for meta in range(count):
                part = [(largest - 1 - i) % max(largest, 1) | (i & 1) << 3 for i in range(8)]
                part[(largest + 3 * meta) % 8] = largest | sign
                elements += part
            records.append((elements, [*range(count)], scale))
    expected = np.array([decode(kind, *record) for record in records])
    check(shared(Decoder, kind=kind), stack(records), {"o": expected})


# Code, metadata, scale, float32 bits.
VALUES = {
    "activation": [
        (0, 1, 127, 0x00000000),
        (8, 1, 127, 0x80000000),  # -0
        (8, 0, 127, 0x80000000),
        (1, 1, 127, 0x3F000000),  # 0.5
        (1, 0, 127, 0x3EC00000),  # 0.375
        (0, 2, 127, 0x3E000000),  # 0.125
        (8, 3, 127, 0xBE800000),  # -0.25
        (2, 1, 127, 0x3F800000),  # 1
        (6, 0, 127, 0x40700000),  # 3.75
        (7, 3, 127, 0x40E00000),  # 7
        (15, 0, 127, 0xC0B00000),  # -5.5
        (2, 1, 1, 0x00800000),  # 2**-126, the smallest normal
        (2, 1, 0, 0x00400000),  # 2**-127, subnormal
        (0, 2, 0, 0x00080000),  # 2**-130
        (9, 1, 0, 0x80200000),  # -2**-128
        (0, 2, 3, 0x00400000),  # 2**-127
        (0, 2, 4, 0x00800000),  # 2**-126
        (7, 1, 252, 0x7F400000),  # 6 * 2**125
        (7, 3, 252, 0x7F600000),
        (5, 1, 253, 0x7F400000),  # 3 * 2**126
        (6, 0, 253, 0x7F700000),  # 3.75 * 2**126
        (6, 1, 253, 0x7F800000),  # 4 * 2**126 overflows
        (15, 1, 254, 0xFF800000),
        (7, 3, 255, 0x7FC00000),
    ],
    "weight": [
        (8, 3, 127, 0x80000000),
        (8, 0, 0, 0x80000000),
        (1, 0, 127, 0x3F000000),  # 0.5
        (1, 1, 127, 0x3F200000),  # 0.625
        (15, 3, 127, 0xC1280000),  # -6 * 1.75
        (1, 3, 0, 0x00380000),  # 0.875 * 2**-127
        (1, 3, 1, 0x00700000),
        (1, 3, 2, 0x00E00000),
        (3, 0, 254, 0x7F400000),  # 1.5 * 2**127
        (3, 1, 254, 0x7F700000),  # 1.875 * 2**127
        (3, 2, 254, 0x7F800000),  # 2.25 * 2**127
        (15, 3, 254, 0xFF800000),
        (9, 3, 255, 0x7FC00000),
    ],
    # The byte is 4 * (exponent + 31), and the selector of 5, -5, 8 or -8.
    "special": [
        (8, 0, 124, 0x40A00000),  # 5
        (8, 1, 125, 0xC0C80000),  # -6.25
        (8, 2, 126, 0x41400000),  # 12
        (8, 3, 127, 0xC1600000),  # -14
        (0, 3, 127, 0x00000000),
        (9, 1, 124, 0xBF200000),  # -0.625
        (7, 0, 127, 0x40C00000),
        (1, 0, 0, 0x2F800000),  # 2**-32
        (8, 3, 3, 0xB1E00000),  # -14 * 2**-31
        (8, 3, 128, 0x418C0000),  # 5 * 1.75 * 2
        (8, 2, 254, 0x51400000),  # 12 * 2**32
        (7, 3, 252, 0x51280000),  # 10.5 * 2**32
        (8, 3, 255, 0x7FC00000),
    ],
    # The third bit of metadata doubles.
    "special64": [
        (8, 0, 124, 0x40A00000),  # 5
        (8, 5, 125, 0xC1480000),  # -12.5
        (8, 6, 126, 0x41C00000),  # 24
        (8, 7, 127, 0xC1E00000),  # -28
        (8, 3, 127, 0xC1600000),  # -14
        (0, 7, 127, 0x00000000),
        (9, 4, 124, 0xBF800000),  # -1
        (7, 7, 127, 0x41A80000),  # 21
        (1, 0, 0, 0x2F800000),  # 2**-32
        (8, 7, 254, 0x51E00000),  # 28 * 2**32
        (15, 7, 252, 0xD1A80000),  # -21 * 2**32
        (8, 7, 255, 0x7FC00000),
    ],
}


@pytest.mark.parametrize("kind", VALUES)
def test_values(kind):
    codes, metadata, scales, bits = zip(*VALUES[kind], strict=True)
    group = group_of(kind)
    expected = np.zeros((len(bits), group), np.uint32)
    expected[:, 0] = bits
    expected[np.array(scales) == 255] = 0x7FC00000
    records = [one(*record, group) for record in zip(codes, metadata, scales, strict=True)]
    check(shared(Decoder, kind=kind), stack(records), {"o": expected})


def test_largest_of_either_sign():
    # [-6, 6]: the lower lane is refined, whatever the signs.
    records = [([15, 7] + [0] * 30, [3, 1, 1, 1], 127), ([7, 15] + [0] * 30, [3, 1, 1, 1], 127),
               ([0, 15, 0, 7] + [0] * 28, [3, 1, 1, 1], 127)]
    values = np.zeros((3, 32), np.float32)
    values[0, :2] = -7, 6
    values[1, :2] = 7, -6
    values[2, [1, 3]] = -7, 6
    check(shared(Decoder), stack(records), {"o": values.view(np.uint32)})


@pytest.mark.parametrize("kind, values", [("activation", [0.875, 1, 1.125, 1.25]),
                                          ("weight", [1, 1.25, 1.5, 1.75]),
                                          ("special", [1, 1.25, 1.5, 1.75]),
                                          ("special64", [1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5])])
@pytest.mark.parametrize("stalls", [0, 0.5])
def test_fields_of_one_record_stay_together(kind, values, stalls):
    # 1 with all metadata and three scales in turn: every transfer differs from its neighbours.
    scales = [120, 124, 128] if kind.startswith("special") else [126, 127, 128]
    group, count = group_of(kind), len(values)
    records = [one(2, i % count, scales[i % 3], group) for i in range(24)]
    expected = np.zeros((24, group), np.float32)
    expected[:, 0] = [values[i % count] * 2.0 ** (i % 3 - 1) for i in range(24)]
    check(shared(Decoder, kind=kind), stack(records), {"o": expected.view(np.uint32)},
          stalls=stalls)
