# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the accelerator: its plan, its streams and what it computes."""
