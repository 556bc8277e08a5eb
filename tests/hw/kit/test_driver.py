# SPDX-License-Identifier: BSD-2-Clause
"""What the JSON says of lanes, machines and reset."""

import itertools
import re

import numpy as np
import pytest
from amaranth.lib import wiring

from hw import registry
from hw.kit import driver
from hw.tools.packing import to_bits
from tests.support.compare import SMALL
from tests.support.descriptions import describe
from tests.support.imports import ROOT


def leaves(value, path=""):
    """Arrays of a mapping of mappings, by path."""
    if isinstance(value, dict):
        return {key: array for name, part in value.items()
                for key, array in leaves(part, f"{path}.{name}".lstrip(".")).items()}
    return {path: np.asarray(value)}


@pytest.mark.parametrize("name", registry.UNITS)
def test_lanes_are_where_they_say(name):
    settings = SMALL.get(name, [])
    parameters = registry.parameters(name, settings)
    component = registry.build(name, settings)
    lanes = driver.lanes(describe(component, "unit"))
    unit = registry.UNITS[name]
    inputs = unit.stimuli(np.random.default_rng(0), 3, **parameters)
    checked = 0
    for port, value in inputs.items():
        member = component.signature.members[port]
        shape = member.signature.members["payload"].shape if member.is_signature else member.shape
        bits = to_bits(shape, value, port)
        found = leaves(value)
        assert [lane["field"] for lane in lanes[port]] == [*found]
        for lane, array in zip(lanes[port], found.values(), strict=True):
            dimensions = lane["dimensions"]
            assert array.shape[1:] == tuple(index["count"] for index in dimensions)
            places = itertools.product(*(range(index["count"]) for index in dimensions))
            for place in itertools.islice(places, 70):
                low = lane["lsb"] + sum(i * index["stride"]
                                        for i, index in zip(place, dimensions, strict=True))
                weights = 1 << np.arange(lane["width"], dtype=np.uint64)
                read = bits[:, low : low + lane["width"]].astype(np.uint64) @ weights
                wanted = array[(slice(None), *place)].astype(np.int64) % (1 << lane["width"])
                assert read.tolist() == wanted.tolist()
                checked += len(read)
    assert checked or not inputs
    # Outputs have lanes, too.
    outputs = {port for port, member in component.signature.members.items()
               if member.flow == wiring.Out}
    assert outputs <= {*lanes}


@pytest.mark.parametrize("name", ["accelerator", "axi_accelerator"])
def test_machine(name):
    component = registry.build(name, ["config=lite"], units=registry.offered())
    machine = driver.machine(component)
    assert machine["sizes"] | {"columns": 4, "activations": 1024, "weights": 256, "rows": 256,
                               "weight_width": 1, "input": "float32", "group": 32, "subgroup": 8,
                               "record_bytes": 18} == machine["sizes"]
    wide = registry.build(name, ["config=lite", "config.encoding=sg-special64",
                                 "config.engine=sg-special64"], units=registry.offered())
    wide = driver.machine(wide)
    assert (wide["sizes"]["group"], wide["sizes"]["record_bytes"]) == (64, 36)
    assert "with 64 values in place" in wide["order"]["streams"]["i_value"]
    order = machine["order"]
    assert "with 32 values in place" in order["streams"]["i_value"]
    assert {"i_weight", "i_activation", "i_value", "o"} <= {*order["streams"]} <= {
        *component.signature.members}
    file, _, section = order["where"].removesuffix(" (C99)").partition(", ")
    text = (ROOT / file).read_text()
    assert f"## {section}\n" in text and f" {order['function']}(" in text
    file, _, functions = order["driver"].removesuffix(" (C99)").partition(", ")
    text = (ROOT / file).read_text()
    assert all(f" {function.rstrip('.')}" in text for function in functions.split(" and "))
    file, _, section = order["specification"].partition(", sections ")
    text = (ROOT / file).read_text()
    assert all(f"## {number} " in text for number in re.findall(r"\d+\.\d+", section))


def test_marks_are_said_where_there_are_any():
    order = {framed: driver.machine(registry.build("accelerator", [
        "config=lite", f"config.framed={framed}"]))["order"]["streams"]
        for framed in ("true", "false")}
    assert {name: "last is 1" in text for name, text in order["true"].items()} == {
        "i_weight": True, "i_activation": True, "i_value": True, "i_command": False, "o": True,
        "o_status": False, "o_misframed": False}
    assert [name for name, text in order["false"].items() if "last is 1" in text] == ["o"]


def test_only_machines_have_sizes():
    assert driver.machine(registry.build("decoder")) is None


@pytest.mark.parametrize("synchronous, cycles", [(True, 1), (False, 0)])
def test_reset(synchronous, cycles):
    given = {"name": "rst", "active": "high", "synchronous": synchronous}
    contract = driver.reset_contract({"reset": given, "streams": ["i"]})
    assert given.items() <= contract.items() and contract["cycles"] == cycles
    assert driver.reset_contract({"reset": None}) is None
