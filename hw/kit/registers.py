# SPDX-License-Identifier: BSD-2-Clause
"""The registers of a unit as SystemRDL 2.0 and as IP-XACT (IEEE 1685-2014)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from ..bus.register_map import WIDTH

NAMESPACE = "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"

VENDOR, LIBRARY = "m2xfp", "rtl"
"""What stands before the name of every unit in IP-XACT and FuseSoC."""

# Words of SystemRDL 2.0 that are no names unless a backslash stands before them.
_RESERVED = frozenset("""
abstract accesstype addressingtype addrmap alias all bit boolean bothedge compact component
componentwidth constraint default encode enum external false field fullalign hw inside internal
level longint mem na negedge nonsticky number onreadtype onwritetype posedge property r rclr ref
reg regalign regfile rset ruser rw rw1 signal string struct sw this true type unsigned w w1 wclr
woclr woset wot wr wset wuser wzc wzs wzt
""".split())

# Software's and hardware's access to a field in SystemRDL, and software's in IP-XACT.
_ACCESSES = {
    "ro": ("sw = r; hw = w;", "read-only"),
    "wo": ("sw = w; hw = r;", "write-only"),
    "rw": ("sw = rw; hw = r;", "read-write"),
    "w1c": ("sw = rw; hw = rw; onwrite = woclr;", "read-write"),
}


def system_rdl(description: Mapping[str, Any]) -> str:
    """The registers of a unit as SystemRDL 2.0.

    Parameters
    ----------
    description : dict
        Description of a unit that has registers, see `hw.generate.describe`.

    Returns
    -------
    str
        One ``addrmap`` with the unit's name.
    """
    name = description["unit"]
    lines = ["// SPDX-License-Identifier: BSD-2-Clause",
             f"// {name}: registers, in SystemRDL 2.0",
             "",
             f"addrmap {name} {{",
             f"  name = {_text(name)};",
             f"  desc = {_text(description['summary'] or name)};",
             f"  default regwidth = {WIDTH};",
             f"  default accesswidth = {WIDTH};",
             "  lsb0;"]
    for register in description["registers"]["table"]:
        lines += ["", "  reg {"]
        for field in register["fields"]:
            lines += _field(register, field)
        lines.append(f"  }} {_word(register['name'])} @ 0x{register['offset']:x};")
    return "\n".join([*lines, "};", ""])


def _field(register, field):
    """Lines of a field, with the enumeration of its values before it."""
    width, low = field["width"], field["lsb"]
    lines = []
    encode = ""
    if field["values"]:
        encode = f" encode = {field['name']}_values;"
        lines += [f"    enum {field['name']}_values {{",
                  *(f"      {_word(value)} = {width}'d{number};"
                    for value, number in field["values"].items()),
                  "    };"]
    access, _ = _ACCESSES[_access(register, field)]
    return [*lines,
            "    field {",
            f"      desc = {_text(field['description'])};",
            f"      {access}{encode}",
            f"    }} {_word(field['name'])}[{low + width - 1}:{low}] = "
            f"{width}'h{field['reset']:x};"]


def _access(register, field):
    """Access of a field: its own, or that of its register."""
    return field.get("access") or register["access"]


def _word(name):
    return f"\\{name}" if name in _RESERVED else name


def _text(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def ip_xact(description: Mapping[str, Any], sources: Sequence[str]) -> str:
    """A unit with registers as a component of IP-XACT (IEEE 1685-2014).

    With an AXI wrapper the component is the wrapper, with its bus interfaces by the names of Arm's
    bus definitions; without one it is the unit with plain ports.

    Parameters
    ----------
    description : dict
        Description of a unit that has registers, see `hw.generate.describe`.
    sources : list of str
        Verilog files.

    Returns
    -------
    str
    """
    axi = description["axi"]
    name = axi["module"] if axi else description["unit"]
    ElementTree.register_namespace("ipxact", NAMESPACE)
    component = ElementTree.Element(_tag("component"))
    for tag, value in (("vendor", VENDOR), ("library", LIBRARY), ("name", name),
                       ("version", description["versions"]["m2xfp-rtl"])):
        _add(component, tag, value)
    if axi:
        interfaces = _add(component, "busInterfaces")
        for interface in axi["interfaces"]:
            _bus_interface(interfaces, interface, axi)
    _memory_map(_add(component, "memoryMaps"), description)
    _model(component, name, description, axi)
    files = _add(_add(component, "fileSets"), "fileSet")
    _add(files, "name", "rtl")
    for source in sources:
        file = _add(files, "file")
        _add(file, "name", source)
        _add(file, "fileType", "verilogSource")
    _add(component, "description", description["summary"] or name)
    ElementTree.indent(component)
    text = ElementTree.tostring(component, encoding="unicode")
    return ('<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<!-- SPDX-License-Identifier: BSD-2-Clause -->\n{text}\n")


def _tag(name):
    return f"{{{NAMESPACE}}}{name}"


def _add(parent, tag, text=None, **attributes):
    element = ElementTree.SubElement(parent, _tag(tag), attributes)
    element.text = text
    return element


def _bus_interface(parent, interface, axi):
    """A bus interface with the ports of the wrapper that it consists of."""
    name = interface["name"]
    lite = interface["protocol"] == "axi4-lite"
    kind, version = ("AXI4-Lite", "r0p0_0") if lite else ("AXI4Stream", "r0p0_1")
    element = _add(parent, "busInterface")
    _add(element, "name", name)
    library = {"vendor": "amba.com", "library": "AMBA4"}
    _add(element, "busType", **library, name=kind, version=version)
    abstraction = _add(_add(element, "abstractionTypes"), "abstractionType")
    _add(abstraction, "abstractionRef", **library, name=f"{kind}_rtl", version=version)
    maps = _add(abstraction, "portMaps")
    ports = [("ACLK", axi["clock"]["name"]), ("ARESETn", axi["reset"]["name"])]
    ports += [(port["name"].removeprefix(f"{name}_").upper(), port["name"])
              for port in axi["ports"] if re.fullmatch(rf"{name}_[a-z]+", port["name"])
              and (lite or port["name"].removeprefix(f"{name}_")[0] == "t")]
    for logical, physical in ports:
        port = _add(maps, "portMap")
        _add(_add(port, "logicalPort"), "name", logical)
        _add(_add(port, "physicalPort"), "name", physical)
    mode = _add(element, "master" if name.startswith("m_") else "slave")
    if lite:
        _add(mode, "memoryMapRef", memoryMapRef="registers")


def _memory_map(parent, description):
    """The memory map with all registers."""
    axi = description["axi"]
    table = description["registers"]["table"]
    width = next((interface["address_width"] for interface in (axi or {}).get("interfaces", ())
                  if interface["protocol"] == "axi4-lite"),
                 (table[-1]["offset"] + WIDTH // 8 - 1).bit_length())
    memory = _add(parent, "memoryMap")
    _add(memory, "name", "registers")
    block = _add(memory, "addressBlock")
    _add(block, "name", description["unit"])
    _add(block, "baseAddress", "0")
    _add(block, "range", str(1 << width))
    _add(block, "width", str(WIDTH))
    for register in table:
        _register(block, register)
    _add(memory, "addressUnitBits", "8")


def _register(parent, register):
    element = _add(parent, "register")
    _add(element, "name", register["name"])
    _add(element, "addressOffset", f"'h{register['offset']:x}")
    _add(element, "size", str(WIDTH))
    _add(element, "access", _ACCESSES[register["access"]][1])
    for field in register["fields"]:
        part = _add(element, "field")
        access = _access(register, field)
        _add(part, "name", field["name"])
        _add(part, "description", field["description"])
        _add(part, "bitOffset", str(field["lsb"]))
        _add(_add(_add(part, "resets"), "reset"), "value", f"'h{field['reset']:x}")
        _add(part, "bitWidth", str(field["width"]))
        _add(part, "access", _ACCESSES[access][1])
        if field["values"]:
            values = _add(part, "enumeratedValues")
            for value, number in field["values"].items():
                entry = _add(values, "enumeratedValue")
                _add(entry, "name", value)
                _add(entry, "value", str(number))
        if access == "w1c":
            _add(part, "modifiedWriteValue", "oneToClear")


def _model(component, name, description, axi):
    """The view of the Verilog, and the ports."""
    model = _add(component, "model")
    view = _add(_add(model, "views"), "view")
    _add(view, "name", "rtl")
    _add(view, "componentInstantiationRef", "verilog")
    instance = _add(_add(model, "instantiations"), "componentInstantiation")
    _add(instance, "name", "verilog")
    _add(instance, "language", "Verilog")
    _add(instance, "moduleName", name)
    _add(_add(instance, "fileSetRef"), "localName", "rtl")
    ports = _add(model, "ports")
    signals = axi["ports"] if axi else [
        *({"name": description[part]["name"], "direction": "input", "width": 1}
          for part in ("clock", "reset")), *description["ports"]]
    for signal in signals:
        port = _add(ports, "port")
        _add(port, "name", signal["name"])
        wire = _add(port, "wire")
        _add(wire, "direction", "in" if signal["direction"] == "input" else "out")
        if signal["width"] > 1:
            vector = _add(_add(wire, "vectors"), "vector")
            _add(vector, "left", str(signal["width"] - 1))
            _add(vector, "right", "0")
