# SPDX-License-Identifier: BSD-2-Clause
"""Which cases of a test are for the longer checks."""

import pytest


def longer(*case, **options):
    """A case of a parametrised test that only the longer checks have."""
    return pytest.param(*case, marks=pytest.mark.long, **options)
