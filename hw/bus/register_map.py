"""Tables of registers: hardware, descriptions and a C header are made from the same one."""

from dataclasses import dataclass

from amaranth.lib import data

WIDTH = 32
"""Bits of a register."""

ACCESSES = {"ro": "read", "wo": "write", "rw": "read, write"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """Bits of a register that mean something together.

    Attributes
    ----------
    name : str
    lsb, width : int
    description : str
        One sentence, without full stop.
    reset : int
        Value after reset; of a constant, always.
    values : type or None
        Enumeration of the values that have names.

    Raises
    ------
    ValueError
        If the field does not fit a register, or its reset value not the field.
    """

    name: str
    lsb: int
    width: int
    description: str
    reset: int = 0
    values: type | None = None

    def __post_init__(self):
        if self.lsb < 0 or self.width < 1 or self.lsb + self.width > WIDTH:
            raise ValueError(f"Field {self.name} must lie within {WIDTH} bits, not at bit "
                             f"{self.lsb} with {self.width} bits")
        if not 0 <= self.reset < 1 << self.width:
            raise ValueError(f"Reset value of field {self.name} must have {self.width} bits, "
                             f"not {self.reset!r}")

    @property
    def mask(self):
        """The field's bits set, at their place."""
        return ((1 << self.width) - 1) << self.lsb


@dataclass(frozen=True, kw_only=True)
class Register:
    """A word at an address.

    Attributes
    ----------
    name : str
        In capitals.
    offset : int
        In bytes.
    access : str
        "ro", "wo" or "rw".
    fields : tuple of Field
        Bits that belong to none read as 0 and are not written.

    Raises
    ------
    ValueError
        If the offset is not that of a word, the access none of these, or fields overlap.
    """

    name: str
    offset: int
    access: str
    fields: tuple[Field, ...]

    def __post_init__(self):
        if self.offset < 0 or self.offset % (WIDTH // 8):
            raise ValueError(f"Offset of {self.name} must be a multiple of {WIDTH // 8}, "
                             f"not {self.offset!r}")
        if self.access not in ACCESSES:
            raise ValueError(f"Access of {self.name} must be one of {', '.join(ACCESSES)}, "
                             f"not {self.access!r}")
        taken = 0
        for field in self.fields:
            if taken & field.mask:
                raise ValueError(f"Field {field.name} of {self.name} must not overlap others")
            taken |= field.mask

    @property
    def layout(self):
        """Layout of the word."""
        return data.FlexibleLayout(WIDTH, {field.name: data.Field(field.width, field.lsb)
                                           for field in self.fields})

    @property
    def reset(self):
        """The word after reset."""
        return sum(field.reset << field.lsb for field in self.fields)


@dataclass(frozen=True, kw_only=True)
class RegisterMap:
    """All registers of a component.

    Attributes
    ----------
    name : str
        Prefix of all names in the header.
    registers : tuple of Register
        In the order of their offsets.
    functions : str
        C functions for the end of the header.

    Raises
    ------
    ValueError
        If offsets do not rise.
    """

    name: str
    registers: tuple[Register, ...]
    functions: str = ""

    def __post_init__(self):
        for register, after in zip(self.registers, self.registers[1:], strict=False):
            if after.offset <= register.offset:
                raise ValueError(f"Offset of {after.name} must be above {register.offset:#x}, "
                                 f"not {after.offset:#x}")

    def describe(self):
        """The registers as a list of types that JSON has."""
        return [{
            "name": register.name, "offset": register.offset, "access": register.access,
            "reset": register.reset,
            "fields": [{
                "name": field.name, "lsb": field.lsb, "width": field.width, "reset": field.reset,
                "description": field.description, "values": _values(field),
            } for field in register.fields],
        } for register in self.registers]

    def markdown(self):
        """The registers as a Markdown table."""
        lines = ["| offset | register | access | bits | field | reset | meaning |",
                 "|---|---|---|---|---|---|---|"]
        for register in self.registers:
            left = f"`0x{register.offset:02x}`", f"`{register.name}`", register.access
            for field in register.fields:
                high = field.lsb + field.width - 1
                bits = str(high) if field.width == 1 else f"{high}:{field.lsb}"
                values = ", ".join(f"{value} `{name}`" for name, value in _values(field).items())
                reset = f"{field.reset:#x}" if field.reset > 0xFFFF else field.reset
                lines.append(f"| {' | '.join(left)} | {bits} | `{field.name}` | {reset} | "
                             f"{field.description}{': ' if values else ''}{values} |")
                left = "", "", ""
        return "\n".join(lines)

    def header(self):
        """The registers as a C99 header: offsets, masks, shifts, values and the functions."""
        prefix = self.name.upper()
        guard = f"{prefix}_REGISTERS_H"
        lines = ["/* SPDX-License-Identifier: BSD-2-Clause */",
                 f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>"]
        for register in self.registers:
            base = f"{prefix}_{register.name}"
            lines += ["", f"/* {register.name}: {ACCESSES[register.access]} */",
                      f"#define {base}_OFFSET 0x{register.offset:02x}u"]
            for field in register.fields:
                name = f"{base}_{field.name.upper()}"
                lines += [f"/* {field.description} */",
                          f"#define {name}_MASK 0x{field.mask:08x}u",
                          f"#define {name}_SHIFT {field.lsb}"]
                lines += [f"#define {name}_{key} {value}u"
                          for key, value in _values(field).items()]
        if self.functions:
            lines += ["", self.functions.strip("\n")]
        return "\n".join([*lines, "", f"#endif /* {guard} */", ""])


def _values(field):
    return {member.name: member.value for member in field.values} if field.values else {}
