# SPDX-License-Identifier: BSD-2-Clause
"""The reference of the array against one group step after the other."""

import numpy as np

from golden import Quantized, stimuli
from golden.units.decoder import element_integers
from golden.units.group_mac import group_mac
from golden.units.mac_array import mac_array


def quantized(planes, kind, part=slice(None)):
    elements, metadata, scales = (planes[name][part] for name in ("elements", "metadata", "scale"))
    return Quantized(kind=kind, shape=elements.shape, elements=elements, metadata=metadata,
                     scales=scales[:, None])


def test_against_group_mac():
    rng = np.random.default_rng(0)
    columns, last = 3, np.array([0, 0, 1, 1, 0, 1, 0, 0])
    tiles = [0, 0, 0, 1, 2, 2, 3, 3]
    x, w = stimuli.records(rng, len(last)), stimuli.records(rng, 4 * columns)
    acc = rng.standard_normal((len(last), columns)).astype(np.float32)
    found = mac_array(
        element_integers(quantized(x, "activation")),
        element_integers(quantized(w, "weight")).reshape(4, columns, 32),
        x["scale"], w["scale"].reshape(4, columns), last, acc)
    for i, tile in enumerate(tiles):
        for column in range(columns):
            row = tile * columns + column
            expected = group_mac(quantized(x, "activation", slice(i, i + 1)),
                                 quantized(w, "weight", slice(row, row + 1)), acc[i, column:][:1])
            assert found[i, column].tobytes() == expected.tobytes()
