# SPDX-License-Identifier: BSD-2-Clause
"""Attention on an accelerator, with keys and values in planes."""

import dataclasses

import numpy as np
import pytest

from golden import dequantize, quantize_activations, quantize_weights
from golden.models.llama import Cache
from golden.units.sg_engine import sg_engine
from hw.accelerator.config import CONFIGS
from sim import attention
from sim.attention import ChipAttention, bytes_per_token
from sim.driver import Driver, Golden
from tests.support.marks import longer
from tests.support.speakers import SIZES

# A head of a group and a half.
WIDE = dataclasses.replace(SIZES, head=48)
HEADS = WIDE.heads // WIDE.kv_heads


def operands(tokens, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((tokens, heads, WIDE.head), dtype=np.float32)
            for heads in (WIDE.heads, WIDE.kv_heads, WIDE.kv_heads)]


def in_passes(attend, parts, sizes):
    """Outputs of passes with so many new tokens each."""
    cache = Cache(WIDE)
    outputs = []
    for rows in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]):
        outputs.append(attend(0, *(part[rows] for part in parts), cache))
        cache.length += len(rows)
    return outputs


def decoded(x, encoding):
    if encoding == "sg-em":
        return dequantize(sg_engine(x, encoding="sg-em"))
    return dequantize(quantize_weights(x, encoding=encoding))


def by_definition(parts, sizes, tail, encoding, activations):
    """Per head and token; each pass encodes all keys and values anew."""
    q, k, v = parts
    outputs, end = [], 0
    for size in sizes:
        start, end = end, end + size
        group = 64 if encoding == "sg-special64" else 32
        full = end if tail == "again" else end // group * group
        rows = np.empty((size, WIDE.heads, WIDE.head), np.float32)
        for head in range(WIDE.heads):
            keys = decoded(np.ascontiguousarray(k[:end, head // HEADS]), encoding)
            values = v[:end, head // HEADS].copy()
            if full:
                values[:full] = decoded(np.ascontiguousarray(values[:full].T), encoding).T
            scores = activations(q[start:end, head]) @ keys.T / np.sqrt(WIDE.head)
            shares = np.zeros((size, end), np.float32)
            for row in range(size):
                seen = np.exp(scores[row, : start + row + 1] - scores[row, : start + row + 1].max())
                shares[row, : start + row + 1] = seen / seen.sum()
            rows[:, head] = shares[:, full:] @ values[full:]
            if full:
                rows[:, head] += activations(shares[:, :full]) @ values[:full]
        outputs.append(rows.reshape(size, -1))
    return outputs


@pytest.mark.parametrize("tail", attention.TAILS)
@pytest.mark.parametrize("encoding", ["sg-em", "sg-special", longer("sg-special64")])
def test_attention_is_its_definition(tail, encoding):
    """The tail grows, fills a group, and two at once; products in float32 but for the operands."""
    config = dataclasses.replace(CONFIGS["paper"], encoding=encoding, input=None)

    def activations(x):
        q = sg_engine(x, encoding="sg-em") if encoding == "sg-em" \
            else quantize_activations(x, encoding=encoding)
        return dequantize(q)

    sizes = [3, 1, 27, 1, 1, 40, 70]
    parts = operands(sum(sizes))
    found = in_passes(ChipAttention(Driver(Golden(config)), tail), parts, sizes)
    expected = by_definition(parts, sizes, tail, encoding, activations)
    for one, other in zip(found, expected, strict=True):
        # A code of a probability may lie next to its neighbour's threshold.
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-3)
        assert np.abs(one - other).mean() < 2e-5


def test_tails_differ():
    parts = operands(5)
    again, host = (in_passes(ChipAttention(Driver(Golden("paper")), tail), parts, [5])[0]
                   for tail in attention.TAILS)
    exact = by_definition(parts, [5], "host", "sg-em",
                          lambda x: dequantize(quantize_activations(x)))[0]
    assert np.abs(host - exact).max() < 1e-5 < np.abs(again - exact).max()


def test_streams_have_their_own_planes():
    attend = ChipAttention(Driver(Golden("paper")))
    parts, others = operands(4), operands(4, seed=1)
    alone = in_passes(ChipAttention(Driver(Golden("paper"))), parts, [3, 1])
    first, second = Cache(WIDE), Cache(WIDE)
    found = [attend(0, *(part[:3] for part in parts), first)]
    attend(0, *(part[:3] for part in others), second)
    attend(1, *(part[:3] for part in others), first)
    first.length = second.length = 3
    found.append(attend(0, *(part[3:] for part in parts), first))
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bytes():
    """Keys of 48 elements fill two groups of 18 bytes, or one of 36; values share theirs."""
    assert bytes_per_token(WIDE) == (2 * 2 * (2 * 18 + 48 * 18 / 32), 2 * 2 * 2 * 48 * 2)
    wider = dataclasses.replace(WIDE, head=80)
    assert bytes_per_token(wider, 64)[0] == 2 * 2 * (2 * 36 + 80 * 36 / 64)


def test_other_tails_are_refused():
    with pytest.raises(ValueError, match="^tail must be one of again, host, not 'none'$"):
        ChipAttention(Driver(Golden("paper")), "none")
