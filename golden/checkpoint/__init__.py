# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoint files: reading what others wrote, and writing planes."""

from .safetensors import BadFile, Reader, Writer

__all__ = [
    "BadFile",
    "Reader",
    "Writer",
]
