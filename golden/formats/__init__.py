# SPDX-License-Identifier: BSD-2-Clause
"""M2XFP, its encodings and the formats that it is compared with."""

from .catalogue import FORMATS
from .format import Blocks, Format
from .minifloats import CODECS, Codec

__all__ = [
    "Blocks",
    "CODECS",
    "Codec",
    "FORMATS",
    "Format",
]
