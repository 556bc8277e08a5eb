# SPDX-License-Identifier: BSD-2-Clause
"""Partition: which modules are mapped by themselves, on made-up modules."""

import pytest

from hw.flow.partition import LARGEST, partition


def module(name, bits, *children):
    """Verilog in the form of the emitted one."""
    instances = (f"  {child} part{number} (\n    .clk(clk)\n  );\n"
                 for number, child in enumerate(children))
    return f"module {name}(clk);\n  input clk;\n  wire clk;\n  reg [{bits - 2}:0] held = 1'h0;\n" \
        f"{''.join(instances)}endmodule\n"


INNER = LARGEST // 8


@pytest.mark.parametrize(("own", "kept"), [
    (LARGEST - 4 * INNER - 5, ["large", "small"]),
    (LARGEST - 4 * INNER - 4, ["large", "leaf", "inner", "small"]),
])
def test_the_largest_that_can_be_mapped_whole(own, kept):
    """Of large, inner counts four times, and its leaf with it."""
    text = (module("top", 9, "large", "small", "large") + module("small", 9)
            + module("large", own, "leaf", *["inner"] * 4)
            + module("inner", INNER - 5, "leaf") + module("leaf", 5))
    assert partition(text, "top") == kept


def test_small_units_are_mapped_whole():
    text = module("top", LARGEST - 9, "part") + module("part", 9)
    assert partition(text, "top") == []
    text = module("top", LARGEST - 8, "part") + module("part", 9)
    assert partition(text, "top") == ["part"]


def test_names_that_are_keywords():
    """They are escaped in Verilog, of instances and of signals."""
    text = (module("top", 9, "part").replace("part0 (", "\\logic  (") + module("part", LARGEST)
            .replace("held =", "\\byte  ="))
    assert partition(text, "top") == ["part"]
