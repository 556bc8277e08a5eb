"""The golden model's commands: ``python -m golden check``, ``formats`` and others, see --help."""

import sys

from .checkpoint import convert
from .command import Parser
from .formats import catalogue
from .formats.check import check, table
from .formats.minifloats import CODECS
from .models import calibrate


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in ("convert", "calibrate"):
        return {"convert": convert, "calibrate": calibrate}[arguments[0]].main(arguments[1:])
    parser = Parser(prog="python -m golden", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("check", help="prints the values of all codes and proves that every code "
                                      "and scale round-trips")
    commands.add_parser("formats", help="lists the formats that can be compared")
    commands.add_parser("convert", help="a checkpoint's weights to planes, and back; "
                                        "see convert --help")
    commands.add_parser("calibrate", help="a model's best weights for the hardware, as planes; "
                                          "see calibrate --help")
    if parser.parse_args(arguments).command == "formats":
        print(formats())
        return 0

    for codec in CODECS.values():
        print(table(codec) + "\n")
    failed = 0
    for name, wrong in check().items():
        failed += bool(wrong)
        for line in wrong:
            print(f"error: {line}", file=sys.stderr)
        codec = CODECS.get(name)
        exceptions = codec.never_encoded if codec else {}
        # Those with a sign read alike.
        text = ", ".join(f"0x{a:02x} as 0x{b:02x}" for a, b in exceptions.items())
        print(f"{name}: {'FAILED' if wrong else 'ok'}"
              + (f" (never written, comes back otherwise: {text})" if text else ""))
    print(f"{failed} of {len(CODECS)} codes and {len(catalogue.FORMATS)} formats failed")
    return int(failed > 0)


def formats():
    """The list of formats as a table."""
    lines = [f"{'format':<28}{'group':>6}  {'element':<8}{'scale':<7}"
             f"{'metadata':<13}{'bits per element':>16}"]
    for form in catalogue.FORMATS.values():
        metadata = f"{form.metadata_bits} per {form.subgroup}" if form.metadata_bits else ""
        lines.append(f"{form.name:<28}{form.group:>6}  {form.element.name:<8}"
                     f"{form.scale.name:<7}{metadata:<13}{form.bits_per_element:>16g}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
