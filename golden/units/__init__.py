# SPDX-License-Identifier: BSD-2-Clause
"""References of the units, one module per unit, with the definitions of every rounding."""

from .decoder import dequantize
from .group_accumulator import accumulate
from .group_mac import matmul
from .quantization_engine import quantize_activations
from .weight_encoder import quantize_weights

__all__ = [
    "accumulate",
    "dequantize",
    "matmul",
    "quantize_activations",
    "quantize_weights",
]
