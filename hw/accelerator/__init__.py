# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator: array, buffers, quantization engines and the control that drives them."""

from .accelerator import Accelerator
from .config import CONFIGS, Config

__all__ = [
    "Accelerator",
    "CONFIGS",
    "Config",
]
