"""Plain MXFP4, the format without metadata, for comparison (specification section 9)."""

import numpy as np

from .formats import FLOAT32_NAN, SCALE_NAN, e2m1_integers
from .quantization_engine import quantize_activations


def mxfp4_round_trip(x, *, group=32, rule="floor"):
    """Values of a tensor after MXFP4: E2M1 elements under an E8M0 scale per group.

    Parameters and errors as in `golden.quantize_activations`, whose elements and scales are
    MXFP4; the result has the shape of ``x``.

    Returns
    -------
    float32 array
    """
    q = quantize_activations(x, group=group, rule=rule)
    scales = q.scales.repeat(group, axis=-1)
    values = np.ldexp(e2m1_integers(q.elements).astype(np.float32), scales.astype(np.int32) - 128)
    values[scales == SCALE_NAN] = FLOAT32_NAN
    return values[..., : x.shape[-1]]
