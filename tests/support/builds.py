# SPDX-License-Identifier: BSD-2-Clause
"""What a session replaces in `sim.engines.build`, as it was."""

from sim.engines import build

PORTIONS = build._portions
