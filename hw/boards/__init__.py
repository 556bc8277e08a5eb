# SPDX-License-Identifier: BSD-2-Clause
"""Units on FPGA boards, behind a serial line: ``python -m hw.boards BOARD``."""
