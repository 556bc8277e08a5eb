# SPDX-License-Identifier: BSD-2-Clause
"""Proofs about the units: claims for all inputs, each with a fault that it finds."""
