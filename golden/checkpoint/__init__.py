# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoint files: reading weights that others wrote, and writing planes of M2XFP and MXFP4."""

from .planes import check, restore, write
from .safetensors import BadFile, Reader, Writer
from .sources import Weight, weights_of

__all__ = [
    "BadFile",
    "Reader",
    "Weight",
    "Writer",
    "check",
    "restore",
    "weights_of",
    "write",
]
