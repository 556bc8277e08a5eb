# SPDX-License-Identifier: BSD-2-Clause
"""The command that lists the formats, ``python -m golden formats``."""

from collections.abc import Sequence

from ..command import Parser, run
from .catalogue import FORMATS


@run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser().parse_args(arguments)
    print(table())
    return 0


def parser() -> Parser:
    """The command's parser."""
    return Parser(prog="python -m golden formats",
                  description="Lists the formats that can be compared.")


def table() -> str:
    """The formats as a table: group size, codes, metadata and bits per element."""
    lines = [f"{'format':<28}{'group':>6}  {'element':<8}{'scale':<7}"
             f"{'metadata':<13}{'bits per element':>16}"]
    for form in FORMATS.values():
        metadata = f"{form.metadata_bits} per {form.subgroup}" if form.metadata_bits else ""
        lines.append(f"{form.name:<28}{form.group:>6}  {form.element.name:<8}"
                     f"{form.scale.name:<7}{metadata:<13}{form.bits_per_element:>16g}")
    return "\n".join(lines)
