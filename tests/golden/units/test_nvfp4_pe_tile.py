# SPDX-License-Identifier: BSD-2-Clause
"""The reference of the NVFP4 PE tile against values that ml_dtypes reads."""

import ml_dtypes
import numpy as np

from golden import stimuli
from golden.units.nvfp4_pe_tile import nvfp4_pe_tile


def test_against_values():
    i = stimuli.nvfp4_pe_tile(np.random.default_rng(4), 500, lanes=16)
    total, shift, nan = nvfp4_pe_tile(i["activations"], i["weights"], i["activation_scale"],
                                      i["weight_scale"])
    x, w = (i[name].view(ml_dtypes.float4_e2m1fn).astype(float)
            for name in ("activations", "weights"))
    scale = np.prod([i[name].view(ml_dtypes.float8_e4m3fn).astype(float)
                     for name in ("activation_scale", "weight_scale")], axis=0)
    assert np.array_equal(nan, np.isnan(scale))
    assert 0 < nan.sum() < 500
    value = np.ldexp(total.astype(float), shift.astype(int) - 20)
    assert np.array_equal(value[~nan], ((x * w).sum(-1) * scale)[~nan])
    assert np.abs(total).max() <= 518400
