# SPDX-License-Identifier: BSD-2-Clause
"""The Sg engine's reference against its definition, the oracle and the exact choice."""

import ml_dtypes
import numpy as np
import pytest

from golden import quantize_activations, stimuli
from golden.codec.numbers import FLOATS, default_group
from golden.units.sg_engine import BIASES, ENCODINGS, cut_errors, definition, sg_engine, trial
from tests.support import oracle

PLANES = "elements", "metadata", "scales"


def same(a, b):
    return all(np.array_equal(getattr(a, plane), getattr(b, plane)) for plane in PLANES)


@pytest.mark.parametrize("encoding", BIASES)
@pytest.mark.parametrize("input", FLOATS)
def test_definition(input, encoding):
    bits = stimuli.sg_engine(np.random.default_rng(0), 1500, input=input)["i"]
    x = bits.view(FLOATS[input])
    assert same(sg_engine(x, encoding=encoding), definition(x, encoding=encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_oracle(encoding):
    rng, size = np.random.default_rng(1), default_group(encoding)
    x = np.concatenate([
        stimuli.sg_engine(rng, 14, input="float32", encoding=encoding)["i"].view(np.float32),
        oracle.hard_groups(rng, 8, size), rng.standard_normal((4, size)).astype(np.float32)])
    q = sg_engine(x, encoding=encoding)
    with np.errstate(invalid="ignore"):
        for row, group in enumerate(x.astype(float).tolist()):
            assert oracle.encode_sg_engine(group, encoding) == (
                q.elements[row].tolist(), q.metadata[row].tolist(), q.scales[row, 0]), group


@pytest.mark.parametrize("encoding", BIASES)
def test_same_as_the_exact_encoder_under_the_same_factor(encoding):
    x = stimuli.sg_engine(np.random.default_rng(2), 2000, input="float32")["i"].view(np.float32)
    q, exact = sg_engine(x, encoding=encoding), quantize_activations(x, encoding=encoding)
    agree = q.scales == exact.scales
    assert agree.all() if encoding == "sg-threshold" else 0.9 < agree.mean() < 1
    agree = agree & (q.metadata == exact.metadata)
    assert 0.7 < agree.mean() < 1
    assert np.array_equal(q.elements.reshape(-1, 4, 8)[agree],
                          exact.elements.reshape(-1, 4, 8)[agree])


def test_errors_of_all_magnitudes():
    """In Python's integers: all magnitudes in units of 1/32 under all factors."""
    for k in range(4):
        codes, distances = trial(np.arange(352) / 32, k)
        errors = cut_errors(distances, "sg-threshold")
        for n in range(352):
            code = oracle.nearest(Fraction32(n), oracle.E2M1_HALVES, Fraction32(4 * (4 + k)))
            value, lower = 2 * oracle.E2M1_HALVES[code] * (4 + k), n // 2
            distance = max(abs(value - lower), abs(value - lower - 1))
            assert (codes[n], errors[n]) == (code, min(distance**2 // 8, 127)), (k, n)


def Fraction32(n):
    return oracle.Fraction(n, 32)


def test_shapes_and_types():
    x = np.random.default_rng(3).standard_normal((2, 3, 40)).astype(ml_dtypes.bfloat16)
    q = sg_engine(x)
    assert q.elements.shape == (2, 3, 64) and q.metadata.shape == (2, 3, 8)
    assert (q.kind, q.encoding, q.scales.shape) == ("activation", "sg-em", (2, 3, 2))
    assert not (q.elements[..., 40:] & 7).any()
    with pytest.raises(TypeError, match="x must be a NumPy array of one of"):
        sg_engine([1.0])
    with pytest.raises(ValueError, match="encoding must be one of .*, not 'mixed'"):
        sg_engine(x, encoding="mixed")
    with pytest.raises(ValueError, match="x must have at least one axis and one element"):
        sg_engine(x[:0])
