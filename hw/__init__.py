# SPDX-License-Identifier: BSD-2-Clause
"""RTL of the M2XFP units in Amaranth, and the commands that emit and measure it."""
