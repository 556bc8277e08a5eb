# SPDX-License-Identifier: BSD-2-Clause
"""Faults in files that a check must find."""

import re

# What drives an output, or the register behind it.
_DRIVER = re.compile(
    r"^( +(?:assign )?(?:o__payload|lane|sum)(?:\[[^\]]*\])? <?= )([^;]*);", re.M)


def break_a_bit(path):
    """Inverts bit 0 of an output in a file of Verilog."""
    text = path.read_text()
    broken, count = _DRIVER.subn(r"\1(\2) ^ 1'b1;", text, count=1)
    assert count == 1
    path.write_text(broken)


def flip_a_digit(path, row):
    """Inverts bit 0 of a row of vectors."""
    rows = path.read_text().splitlines()
    rows[row] = rows[row][:-1] + f"{int(rows[row][-1], 16) ^ 1:x}"
    path.write_text("".join(f"{row}\n" for row in rows))
