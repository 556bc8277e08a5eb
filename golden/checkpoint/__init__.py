# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoint files: reading weights that others wrote, and writing planes of M2XFP and MXFP4."""

from .gguf import GgufReader
from .model import Model
from .planes import check, restore, write
from .safetensors import BadFile, Reader, Writer
from .sources import Plan, plan
from .values import Weight, open_rows

__all__ = [
    "BadFile",
    "GgufReader",
    "Model",
    "Plan",
    "Reader",
    "Weight",
    "Writer",
    "check",
    "open_rows",
    "plan",
    "restore",
    "write",
]
