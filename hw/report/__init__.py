# SPDX-License-Identifier: BSD-2-Clause
"""Figures for people: comparisons, sweeps, fronts, tables and the report page."""
