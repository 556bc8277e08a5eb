# SPDX-License-Identifier: BSD-2-Clause
"""M2XFP, its encodings and the formats that it is compared with."""

from ..codec.quantized import Blocks
from .catalogue import FORMATS
from .format import Format
from .minifloats import CODECS, Codec

__all__ = [
    "Blocks",
    "CODECS",
    "Codec",
    "FORMATS",
    "Format",
]
