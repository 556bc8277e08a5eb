# SPDX-License-Identifier: BSD-2-Clause
"""Real models: loading, calibration, and what formats cost them."""
