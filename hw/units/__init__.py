# SPDX-License-Identifier: BSD-2-Clause
"""The units: encoders, decoders, dot products, accumulators and the MAC array."""

from .decoder import Decoder
from .group_accumulator import GroupAccumulator
from .group_dot import GroupDot
from .group_mac import GroupMac
from .mac_array import MacArray
from .nvfp4_array import Nvfp4Array
from .nvfp4_pe_tile import Nvfp4PETile
from .nvfp4_quantizer import Nvfp4Quantizer
from .pe_tile import PETile
from .quantization_engine import QuantizationEngine
from .sg_engine import SgEngine
from .sg_pe_tile import SgPETile
from .top1 import Top1
from .top1_decode import Top1Decode
from .weight_encoder import WeightEncoder

__all__ = [
    "Decoder",
    "GroupAccumulator",
    "GroupDot",
    "GroupMac",
    "MacArray",
    "Nvfp4Array",
    "Nvfp4PETile",
    "Nvfp4Quantizer",
    "PETile",
    "QuantizationEngine",
    "SgEngine",
    "SgPETile",
    "Top1",
    "Top1Decode",
    "WeightEncoder",
]
