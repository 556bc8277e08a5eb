# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Widths of the units' ports, by section 8 of the specification: other chips rest on them."""

import pytest
from amaranth import Shape, Value

from hw import registry
from hw.accelerator.activation_feeder import product_layout
from hw.accelerator.config import CONFIGS
from hw.accelerator.loop_nest import step_layout
from hw.accelerator.planner import plan_layout
from hw.units.group_dot import GroupDot
from hw.units.sg_group_dot import SgGroupDot
from hw.units.wide_group_dot import WideGroupDot
from tests.support.compare import SMALL

RECORD, VALUES, FLOATS = 144, 32 * 32, 4 * 32

# Payloads of streams, and plain ports. Arrays have four columns, the accelerators are lite.
WIDTHS = {
    "top1": {"codes": 8 * 4, "lane": 3},
    "top1_decode": {"codes": 8 * 4, "meta": 2, "lane": 8, "refinement": 4},
    "decoder": {"i": RECORD, "o": VALUES},
    "quantization_engine": {"i": VALUES, "o": RECORD},
    "weight_encoder": {"i": VALUES, "o": RECORD},
    "sg_engine": {"i": VALUES, "o": RECORD},
    "pe_tile": {"activations": 8 * 4, "lane": 8, "refinement": 4, "weights": 8 * 4, "meta": 2,
                "sum": 17},
    "sg_pe_tile": {"activations": 8 * 4, "activation_meta": 2, "weights": 8 * 4, "meta": 2,
                   "sum": 17},
    # Sixteen values of 32 bits and a tensor scale; sixteen codes and a block scale.
    "nvfp4_quantizer": {"i": 17 * 32, "o": 16 * 4 + 8},
    "nvfp4_pe_tile": {"activations": 8 * 4, "weights": 8 * 4, "activation_scale": 7,
                      "weight_scale": 7, "sum": 19, "shift": 5, "nan": 1},
    "group_accumulator": {"i": 32 + 19 + 8 + 8, "o": 32},
    "group_mac": {"i": RECORD + RECORD + 32, "o": 32},
    "mac_array": {"i_weight": RECORD, "i_activation": RECORD + 1, "i_acc": FLOATS, "o": FLOATS},
    "nvfp4_array": {"i_weight": RECORD, "i_activation": RECORD + 1, "i_acc": FLOATS,
                    "o": FLOATS},
    "accelerator": {"i_command": 3 * 20 + 2 + 2, "i_weight": RECORD, "i_activation": RECORD,
                    "i_value": VALUES, "o": FLOATS + 1, "o_status": 3},
}


def test_all_units_are_here():
    assert {*WIDTHS} == {*registry.UNITS}


@pytest.mark.parametrize("name", WIDTHS)
def test_widths(name):
    unit = registry.build(name, SMALL.get(name, []))
    found = {}
    for path, _, value in unit.signature.flatten(unit):
        width = len(Value.cast(value))
        if path[-1] in ("valid", "ready"):
            assert width == 1
        else:
            found[path[0]] = width
    assert found == WIDTHS[name]


def test_widths_of_a_plan():
    """Section 14.6: up to 2^15 groups; tiles of 32 columns or four; rows of the output buffer."""
    for config, tiles, columns, rows in (("paper", 16, 6, 9), ("lite", 19, 3, 9)):
        layout = plan_layout(CONFIGS[config])
        found = {name: Shape.cast(field.shape).width for name, field in layout}
        assert found == {"code": 3, "source": 2, "result": 2, "groups": 16, "tiles": tiles,
                         "columns": columns, "blocks": 20, "rows": rows, "larger": 20,
                         "resident": 1}


@pytest.mark.parametrize("layout, flags", [
    (product_layout, ["last"]),
    (step_layout, ["index_last", "tile_first", "tile_last", "group_first", "group_last",
                   "bundle_first", "bundle_last", "last"])])
def test_flags_are_bits(layout, flags):
    fields = layout(CONFIGS["tiny"])
    assert {name: Shape.cast(fields[name].shape).width for name in flags} == dict.fromkeys(flags, 1)


@pytest.mark.parametrize("cuts", [
    {"fine": False}, {"fine": True}, {"fine": True, "finest": True}])
def test_all_dot_products_take_as_long(cuts):
    dots = [WideGroupDot(**cuts), *(SgGroupDot(special=special, **cuts)
                                    for special in (False, True))]
    assert {dot.latency for dot in dots} == {GroupDot(metadata=True, **cuts).latency}
