# SPDX-License-Identifier: BSD-2-Clause
"""The float types on both sides of the tests: hardware and golden model."""

import ml_dtypes
import pytest

from golden.reference import FLOATS
from hw.lib import formats


def test_types_are_those_of_the_golden_model():
    assert formats.FLOATS.keys() == FLOATS.keys()


@pytest.mark.parametrize("name", FLOATS)
def test_fields_of_float_types(name):
    info = ml_dtypes.finfo(FLOATS[name])
    layout = formats.FLOATS[name]
    assert (layout.exponent, layout.mantissa, layout.width) == (info.iexp, info.nmant, info.bits)
    assert formats.values_layout(name).size == 32 * info.bits
