# SPDX-License-Identifier: BSD-2-Clause
"""SystemRDL and IP-XACT of the registers, as foreign tools read them."""

import importlib.util
from enum import Enum
from pathlib import Path

import pytest
from lxml import etree
from peakrdl_ipxact import IPXACTImporter
from systemrdl import RDLCompiler
from systemrdl.node import RegNode

from hw import registry
from hw.kit import registers
from tests.support import descriptions

ACCESSES = {"ro": ("r", None), "wo": ("w", None), "rw": ("rw", None), "w1c": ("rw", "woclr")}


def describe(config, *, axi=True):
    component = registry.build("axi_accelerator", [f"config={config}"], units=registry.offered())
    return descriptions.describe(component, "machine", axi=axi)


def expected(description):
    """All that a driver needs of the registers, by name."""
    return {register["name"]: (register["offset"], [
        (field["name"], field["lsb"], field["width"], field["reset"],
         *ACCESSES[field.get("access") or register["access"]], field["values"])
        for field in register["fields"]]) for register in description["registers"]["table"]}


def found(compiler):
    """The same, from what a compiler of SystemRDL has read."""
    def values(field):
        encode = field.get_property("encode")
        return {member.name: member.value for member in encode} if encode else {}

    def onwrite(field):
        effect = field.get_property("onwrite")
        return effect.name if isinstance(effect, Enum) else effect

    return {node.inst_name: (node.absolute_address, [
        (field.inst_name, field.low, field.width, field.get_property("reset"),
         field.get_property("sw").name, onwrite(field), values(field)) for field in node.fields()])
        for node in compiler.elaborate().top.descendants() if isinstance(node, RegNode)}


def read_rdl(path, text):
    path.write_text(text)
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    return found(compiler)


def read_xml(path, text):
    path.write_text(text)
    compiler = RDLCompiler()
    IPXACTImporter(compiler).import_file(str(path))
    return found(compiler)


@pytest.mark.parametrize("config", ["lite", "tiny"])
def test_foreign_tools_read_the_table(config, tmp_path):
    description = describe(config)
    table = expected(description)
    assert {"ID", "COMMAND", "STATUS", "POP"} <= {*table} and len(table) > 12
    assert read_rdl(tmp_path / "a.rdl", registers.system_rdl(description)) == table
    assert read_xml(tmp_path / "a.xml", registers.ip_xact(description, ["a.v"])) == table


def test_every_access_and_reserved_names(tmp_path):
    fields = [{"name": name, "lsb": 4 * i, "width": 3, "reset": i, "description": 'Says "a\\b"',
               "values": {"na": 0, "LAST": 7} if i == 1 else {}, "access": access}
              for i, (name, access) in enumerate([("level", "ro"), ("mem", "w1c"), ("x", "rw")])]
    table = [{"name": "reg", "offset": 0x24, "access": "rw", "reset": 0x210, "fields": fields},
             {"name": "DOOR", "offset": 0x28, "access": "wo", "reset": 0, "fields": [
                 {"name": "key", "lsb": 31, "width": 1, "reset": 0, "description": "x",
                  "values": {}}]}]
    description = describe("lite", axi=False) | {"registers": {"header": "x.h", "table": table}}
    wanted = expected(description)
    assert read_rdl(tmp_path / "a.rdl", registers.system_rdl(description)) == wanted
    xml = registers.ip_xact(description, ["machine.v"])
    assert read_xml(tmp_path / "a.xml", xml) == wanted
    assert errors(xml) == []


def schema():
    """The schema of IEEE 1685-2014, which a package carries."""
    # Several distributions can share the name pyEDAA, and a distribution can be there twice.
    paths = [Path(folder) / "IPXACT" / "Schema" / "ieee-1685-2014" / "index.xsd"
             for folder in importlib.util.find_spec("pyEDAA").submodule_search_locations]
    return etree.XMLSchema(etree.parse(str(next(path for path in paths if path.is_file()))))


def errors(text):
    checked = schema()
    checked.validate(etree.fromstring(text.encode()))
    return [error.message for error in checked.error_log]


@pytest.mark.parametrize("axi", [True, False])
def test_ip_xact_is_valid(axi):
    description = describe("tiny", axi=axi)
    text = registers.ip_xact(description, ["machine.v", "machine_axi.v"])
    assert errors(text) == []
    assert errors(text.replace("bitOffset", "bitoffset")) != []
    root = etree.fromstring(text.encode())
    space = {"x": registers.NAMESPACE}
    ports = root.xpath("//x:port/x:name/text()", namespaces=space)
    mapped = root.xpath("//x:physicalPort/x:name/text()", namespaces=space)
    if axi:
        assert ports == [port["name"] for port in description["axi"]["ports"]]
        names = root.xpath("//x:busInterface/x:name/text()", namespaces=space)
        assert names == [interface["name"] for interface in description["axi"]["interfaces"]]
        # Each port of a bus is in one interface, the clock and the reset in all.
        assert {*mapped} == {port for port in ports if port.startswith(("a", "s_", "m_"))}
        assert len(mapped) == len({*mapped}) + 2 * (len(names) - 1)
        streams = root.xpath("//x:busType[@name='AXI4Stream']", namespaces=space)
        assert len(streams) == len(names) - 1
    else:
        assert ports[:2] == ["clk", "rst"] and mapped == []
