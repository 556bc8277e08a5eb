"""Exact NumPy model of M2XFP, a 4-bit microscaling format with two metadata bits per subgroup."""

from .decoder import dequantize
from .group_mac import matmul
from .quantization_engine import quantize_activations
from .quantized import Quantized
from .weight_encoder import quantize_weights

__all__ = ["Quantized", "dequantize", "matmul", "quantize_activations", "quantize_weights"]
