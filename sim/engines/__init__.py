# SPDX-License-Identifier: BSD-2-Clause
"""Engines that simulate a component: Amaranth's simulator and compiled ones."""
