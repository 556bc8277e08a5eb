# SPDX-License-Identifier: BSD-2-Clause
"""Exact NumPy model of M2XFP, a 4-bit microscaling format with two metadata bits per subgroup."""

# First, as it sees to Ctrl-C during the other imports.
from . import interrupts as interrupts

# isort: split
# The redundant name is on purpose: this package brings the decoders for `dequantize`.
from . import formats as formats
from .codec.quantized import Quantized
from .units.decoder import dequantize
from .units.group_mac import matmul
from .units.quantization_engine import quantize_activations
from .units.weight_encoder import quantize_weights

__version__ = "0.2.0"

__all__ = ["Quantized", "dequantize", "matmul", "quantize_activations", "quantize_weights"]
