# SPDX-License-Identifier: BSD-2-Clause
"""The codec: number formats, quantized tensors, and the blocked and compiled implementations."""

from .quantized import Quantized

__all__ = [
    "Quantized",
]
