# SPDX-License-Identifier: BSD-2-Clause
"""Tables of registers, from which hardware, descriptions and a C header are generated.

`hw.bus.axi_lite.register_map` has the table of specification section 15.1.
"""

from dataclasses import dataclass

from amaranth.lib import data

WIDTH = 32
"""Bits of a register."""

ACCESSES = {"ro": "read", "wo": "write", "rw": "read, write"}

FIELD_ACCESSES = ("ro", "w1c")
"""Accesses that single fields of a register can have in place of the register's."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a register: bits that form one value.

    Attributes
    ----------
    name : str
        In small letters.
    lsb, width : int
        Number of the lowest bit, and of bits.
    description : str
        One sentence, without full stop.
    reset : int
        Value after reset. A constant field has this value always.
    values : type or None
        Enumeration of the values that have names.
    access : str or None
        "ro" or "w1c" (read, a written 1 clears) in a register that is otherwise "rw"; None stands
        for the access of the register.

    Raises
    ------
    ValueError
        If the field does not fit into a register, its reset value does not fit into the field, or
        the access is not one of these.
    """

    name: str
    lsb: int
    width: int
    description: str
    reset: int = 0
    values: type | None = None
    access: str | None = None

    def __post_init__(self):
        if self.access not in (None, *FIELD_ACCESSES):
            raise ValueError(f"Access of field {self.name} must be one of "
                             f"{', '.join(FIELD_ACCESSES)}, not {self.access!r}")
        if self.lsb < 0 or self.width < 1 or self.lsb + self.width > WIDTH:
            raise ValueError(f"Field {self.name} must lie within {WIDTH} bits, not at bit "
                             f"{self.lsb} with {self.width} bits")
        if not 0 <= self.reset < 1 << self.width:
            raise ValueError(f"Reset value of field {self.name} must have {self.width} bits, "
                             f"not {self.reset!r}")

    @property
    def mask(self):
        """Word in which the bits of the field are 1 and all others 0."""
        return ((1 << self.width) - 1) << self.lsb


@dataclass(frozen=True, kw_only=True)
class Register:
    """A register: one word at an address.

    Attributes
    ----------
    name : str
        In capitals.
    offset : int
        Address in bytes.
    access : str
        "ro" (read), "wo" (write) or "rw" (both).
    fields : tuple of Field
        Bits that belong to no field read as 0 and are not written.

    Raises
    ------
    ValueError
        If the offset is not that of a word, the access is not one of these, fields overlap, or a
        field has an access of its own in a register that is not "rw".
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
            if field.access and self.access != "rw":
                raise ValueError(f"Access of {self.name} must be rw for a field with an access of "
                                 f"its own, not {self.access!r}")

    def access_of(self, field):
        """Access of a field of this register: "ro", "wo", "rw" or "w1c"."""
        return field.access or self.access

    @property
    def layout(self):
        """Amaranth layout of the word."""
        return data.FlexibleLayout(WIDTH, {field.name: data.Field(field.width, field.lsb)
                                           for field in self.fields})

    @property
    def reset(self):
        """Value of the word after reset."""
        return sum(field.reset << field.lsb for field in self.fields)


@dataclass(frozen=True, kw_only=True)
class RegisterMap:
    """All registers of a component.

    Attributes
    ----------
    name : str
        Prefix of all names in the C header.
    registers : tuple of Register
        Registers in ascending order of their offsets.
    functions : str
        C functions that end the header.

    Raises
    ------
    ValueError
        If the offsets are not in ascending order.
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
        """Registers and fields as a list of dicts that JSON can hold."""
        return [{
            "name": register.name, "offset": register.offset, "access": register.access,
            "reset": register.reset,
            "fields": [{
                "name": field.name, "lsb": field.lsb, "width": field.width, "reset": field.reset,
                "access": register.access_of(field), "description": field.description,
                "values": _values(field),
            } for field in register.fields],
        } for register in self.registers]

    def markdown(self):
        """Registers and fields as a Markdown table."""
        lines = ["| offset | register | access | bits | field | reset | meaning |",
                 "|---|---|---|---|---|---|---|"]
        for register in self.registers:
            left = f"`0x{register.offset:02x}`", f"`{register.name}`"
            for field in register.fields:
                high = field.lsb + field.width - 1
                bits = str(high) if field.width == 1 else f"{high}:{field.lsb}"
                values = ", ".join(f"{value} `{name}`" for name, value in _values(field).items())
                reset = f"{field.reset:#x}" if field.reset > 0xFFFF else field.reset
                # The access stands beside the first field, and where a field has its own.
                access = register.access_of(field) if left[0] or field.access else ""
                lines.append(f"| {' | '.join(left)} | {access} | {bits} | `{field.name}` | {reset} "
                             f"| {field.description}{': ' if values else ''}{values} |")
                left = "", ""
        return "\n".join(lines)

    def header(self):
        """C99 header of the registers: offsets, masks, shifts, named values and functions."""
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
