# SPDX-License-Identifier: BSD-2-Clause
"""The reference of the array for NVFP4 against fractions."""

import numpy as np
import pytest

from golden import reference, stimuli
from golden.units.nvfp4_array import row_terms
from tests.support import oracle


def test_rows_are_rounded_to_odd():
    ones = 2**24 - 1
    for total, expected in [
            (0, 0), (1, 1), (ones, ones), (2**24, 2**24), (2**24 + 1, 2**24 + 2),
            (2**24 + 2, 2**24 + 2), (2**25 + 5, 2**25 + 4), (4 * ones + 1, 4 * ones),
            (2**47 + 1, 2**47 + 2**24), (2**48 - 1, 2**48 - 2**24), (-2**25 - 1, -2**25 - 4)]:
        assert row_terms(np.array([total])).tolist() == [expected / 2**20]


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("encoding", ["nvfp4", "razer"])
def test_against_fractions(encoding, groups):
    columns, count = 2, 130
    parameters = {"columns": columns, "weight_width": 1, "encoding": encoding, "groups": groups}
    inputs = stimuli.nvfp4_array(np.random.default_rng({"nvfp4": 7, "razer": 9}[encoding]), count,
                                 **parameters)
    found = reference.nvfp4_array(inputs, **parameters)["o"]
    expected = oracle.nvfp4_array(inputs, columns, encoding)
    assert found.tolist() == expected
    # All kinds of results are there.
    assert 0 < sum(bits == oracle.NAN for row in expected for bits in row) < count
    assert any(bits & 0x7FFFFFFF == 0x7F800000 for row in expected for bits in row)
    # Rows of four groups are hardly ever zero.
    assert groups == 4 or any(0 < bits < 0x800000 for row in expected for bits in row)
