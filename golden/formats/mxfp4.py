# SPDX-License-Identifier: BSD-2-Clause
"""MXFP4, the format without metadata, for comparison (specification section 9)."""

import numpy as np

from ..codec import blocked
from ..codec.arrays import Float32Array, FloatArray, UInt8Array
from ..codec.numbers import check_sizes, check_tensor, check_threads
from ..codec.quantized import Quantized
from ..units.decoder import dequantize
from .rules import check_rule


def quantize_mxfp4(x: FloatArray, *, group: int = 32, rule: str = "floor", threads: int = 1
                   ) -> tuple[UInt8Array, UInt8Array]:
    """Quantizes a tensor to MXFP4: E2M1 elements under an E8M0 scale per group.

    Elements and scales are those of `golden.quantize_activations`, which has the same errors.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        Groups lie along the last axis, which is padded with +0 to whole groups.
    group : int
        Elements per scale: 16 or 32.
    rule : str
        Scale rule: "floor", "ceil", "rtn1" or "rtn2" (section 5), "even" or "ceil-log2"
        (`golden.formats.rules`).
    threads : int
        Threads that share the work, at least 1.

    Returns
    -------
    elements : uint8 array, shape (..., Kpad)
        E2M1 codes, one per byte.
    scales : uint8 array, shape (..., Kpad / group)
        E8M0 scale code of each group; 255 is NaN.
    """
    check_sizes(group, group)
    check_rule(rule)
    check_threads(threads)
    check_tensor(x, "x")
    planes = blocked.encode(x, group, group, rule, threads, encoding="elem-em", metadata=False)
    return planes["elements"], planes["scales"]


def mxfp4_round_trip(x: FloatArray, *, group: int = 32, rule: str = "floor", threads: int = 1
                     ) -> Float32Array:
    """Quantizes a tensor to MXFP4 and dequantizes it.

    Parameters
    ----------
    x, group, rule, threads
        As in `quantize_mxfp4`.

    Returns
    -------
    float32 array
        Of the shape of ``x``.
    """
    elements, scales = quantize_mxfp4(x, group=group, rule=rule, threads=threads)
    # These are weights whose factors are all 1.
    return dequantize(Quantized(kind="weight", shape=x.shape, group=group, subgroup=group,
                                elements=elements, metadata=np.zeros_like(scales),
                                scales=scales), threads=threads)
