# SPDX-License-Identifier: BSD-2-Clause
"""References of the units: one module per unit, with the name that the unit has in `hw.units`.

Where a module has a function ``definition``, it follows the specification step by step, and the
public function gives the same bits faster. Functions with the name of their module, such as
`golden.units.pe_tile.pe_tile`, are imported from there.
"""

from .decoder import dequantize
from .group_accumulator import accumulate
from .group_mac import matmul
from .nvfp4_quantizer import quantize_nvfp4
from .pe_tile import plain_pe_tile
from .quantization_engine import quantize_activations
from .weight_encoder import quantize_weights

__all__ = [
    "accumulate",
    "dequantize",
    "matmul",
    "plain_pe_tile",
    "quantize_activations",
    "quantize_nvfp4",
    "quantize_weights",
]
