# SPDX-License-Identifier: BSD-2-Clause
"""Fails in one line where what `sim` needs is not installed."""

try:
    import hw as hw
except ModuleNotFoundError as error:
    # By this name, `python -m sim` prints one line in place of a traceback.
    raise ModuleNotFoundError(str(error), name="sim") from None
