# SPDX-License-Identifier: BSD-2-Clause
"""The reference of a group's dot product against decoded values."""

import numpy as np
import pytest

from golden import Quantized, dequantize, stimuli
from golden.units.group_dot import group_dot


def quantized(rng, kind, count, encoding):
    planes = stimuli.records(rng, count)
    return Quantized(kind=kind, encoding=encoding, shape=(count, 32), elements=planes["elements"],
                     metadata=planes["metadata"], scales=np.full((count, 1), 127, np.uint8))


@pytest.mark.parametrize("encoding", ["elem-em", "sg-em", "mixed"])
def test_against_values(encoding):
    rng = np.random.default_rng(0)
    a = quantized(rng, "activation", 500, encoding)
    w = quantized(rng, "weight", 500, "sg-em")
    values = (dequantize(a).astype(np.float64) * dequantize(w)).sum(-1) * 64
    total = group_dot(a, w)
    assert total.dtype == np.int32
    assert total.tolist() == values.tolist()
    assert 2**13 < np.abs(total).max() < 2**18


def test_largest():
    planes = {"shape": (1, 32), "elements": np.full((1, 32), 7, np.uint8),
              "metadata": np.full((1, 4), 3, np.uint8), "scales": np.zeros((1, 1), np.uint8)}
    w = Quantized(kind="weight", **planes)
    # Per subgroup: seven products of 6 and one of 7, times 6 and 1.75.
    refined = Quantized(kind="activation", **planes)
    assert group_dot(refined, w).tolist() == [4 * (7 * 48 + 56) * 84]
    factored = Quantized(kind="activation", encoding="sg-em", **planes)
    assert group_dot(factored, w).tolist() == [225792]
