# SPDX-License-Identifier: BSD-2-Clause
"""The codec: number formats, quantized tensors, and the blocked and compiled implementations."""

from .quantized import Blocks, Quantized

__all__ = [
    "Blocks",
    "Quantized",
]
