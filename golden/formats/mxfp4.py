"""Plain MXFP4, the format without metadata, for comparison (specification section 9)."""

import numpy as np

from ..codec import blocked
from ..codec.numbers import check_sizes, check_tensor, check_threads
from ..codec.quantized import Quantized
from ..units.decoder import dequantize
from ..units.quantization_engine import check_rule


def quantize_mxfp4(x, *, group=32, rule="floor", threads=1):
    """Quantizes a tensor to MXFP4: E2M1 elements under an E8M0 scale per group.

    Parameters and errors as in `golden.quantize_activations`, whose elements and scales these are.

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


def mxfp4_round_trip(x, *, group=32, rule="floor", threads=1):
    """Values of a tensor after MXFP4.

    Parameters and errors as in `quantize_mxfp4`; the result has the shape of ``x``.

    Returns
    -------
    float32 array
    """
    elements, scales = quantize_mxfp4(x, group=group, rule=rule, threads=threads)
    # Weights whose factors are all 1.
    return dequantize(Quantized(kind="weight", shape=x.shape, group=group, subgroup=group,
                                elements=elements, metadata=np.zeros_like(scales),
                                scales=scales), threads=threads)
