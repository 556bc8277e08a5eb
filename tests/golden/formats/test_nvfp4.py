# SPDX-License-Identifier: BSD-2-Clause
"""NVFP4's tensor scales, decoding and special values."""

import ml_dtypes
import numpy as np
import pytest

from golden.formats.nvfp4 import dequantize_nvfp4, tensor_scale_of
from golden.units.nvfp4_quantizer import SCALE_NAN, TENSOR_SCALE_MIN, quantize_nvfp4
from tests.support import oracle

ONE = np.float32(1)
TYPES = [np.float32, np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_not_finite(special, dtype):
    x = np.full((1, 48), 6, dtype)
    x[0, 21] = special
    q = quantize_nvfp4(x, ONE)
    assert q.scales.tolist() == [[0x38, SCALE_NAN, 0x38]]
    assert q.elements[0].tolist() == [7] * 16 + [0] * 16 + [7] * 16
    back = dequantize_nvfp4(q).view(np.uint32)
    assert (back[0, 16:32] == oracle.NAN).all()
    assert (back[0, :16] == np.float32(6).view(np.uint32)).all()
    assert tensor_scale_of(x) == np.float32(6 / 2688)


def test_tensor_scale():
    assert tensor_scale_of(np.array([1, -2688], np.float32)) == 1
    assert tensor_scale_of(np.array([3], np.float16)) == np.float32(3 / 2688)
    for nothing in (np.zeros(5, np.float32), np.full(5, np.nan, np.float32)):
        assert tensor_scale_of(nothing) == TENSOR_SCALE_MIN
    # The largest group's scale is 448, up to the tensor scale's rounding.
    x = np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32)
    assert quantize_nvfp4(x, tensor_scale_of(x)).scales.max() == 0x7E


def test_round_trip():
    x = np.random.default_rng(3).standard_normal((5, 40)).astype(np.float32)
    q = quantize_nvfp4(x, tensor_scale_of(x))
    assert (q.shape, q.elements.shape, q.scales.shape) == ((5, 40), (5, 48), (5, 3))
    back = dequantize_nvfp4(q)
    assert back.shape == x.shape
    values = q.elements.view(ml_dtypes.float4_e2m1fn).astype(float)
    values *= q.scales.view(ml_dtypes.float8_e4m3fn).astype(float).repeat(16, axis=-1)
    expected = (values * float(q.tensor_scale)).astype(np.float32)[:, :40]
    assert back.tobytes() == expected.tobytes()
    # Half a step of the coarsest binade, and what the scale's rounding makes saturate.
    largest = np.abs(np.pad(x, ((0, 0), (0, 8)))).reshape(5, 3, 16).max(-1).repeat(16, -1)[:, :40]
    assert (np.abs(back - x) <= largest * 0.19).all()
