# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The writer of Verilog: every operator with the widths and signs of its context."""

import re

import pytest
from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from hw import registry
from hw.tools import yosys
from hw.verilog import emit, equivalence, expressions, operators, statistics, writer
from tests.hw.test_generate import lint


class Color(enum.Enum, shape=2):
    RED = 0
    GREEN = 1
    BLUE = 2


class Operators(wiring.Component):
    """Every operator, with operands whose context would extend them in the wrong way.

    Members
    -------
    a : In(5)
        An operand.
    color : Out(Color)
        What the machine shows.
    """

    latency = 1

    a: In(5)
    b: In(3)
    s: In(signed(4))
    t: In(signed(4))
    pair: In(data.StructLayout({"low": 3, "high": signed(2)}))
    color: Out(Color)
    results: Out(data.ArrayLayout(12, 24))

    def elaborate(self, platform):
        m = Module()

        a, b, s, t = self.a, self.b, self.s, self.t
        # Both operands of a comparison are signed ports, but only the first one compares them so.
        values = [
            s < t,
            s.as_unsigned() < t.as_unsigned(),
            s > a.as_signed(),
            (s >> b[:2]) ^ a,
            ((s + t) >> 1) + a,
            a >> b,
            (a + 1) << b,
            -s,
            s * t,
            a * b,
            (a - b) >> 2,
            a.bit_select(b, 2),
            a.word_select(b[:1], 2),
            Mux(a > b, s, t),
            Mux(b[0], Mux(b[1], a, b), Mux(b[2], s, 3)),
            Cat(a.any(), ~a.all(), a.xor(), ~b.any(), a == 0, b != 5),
            ~(s & t) | (a ^ b),
            self.pair.high + self.pair.low,
            abs(s) - t,
        ]
        # A sum of which two signals are the parts.
        low, high = Signal(3), Signal(3)
        m.d.comb += Cat(low, high).eq(a + b)
        values += [low, high, low + high]
        # A name for a sum that is used twice, and for one of which bits are used.
        total = a + b
        values += [total * total, (total + s)[1:4]]
        m.d.comb += [result.eq(value) for result, value in zip(self.results, values, strict=True)]

        count = Signal(4, init=5)
        with m.If(b == 2):
            m.d.sync += count.eq(count + 1)
        with m.Elif(b == 3):
            m.d.sync += count.eq(Mux(a[0], count, 0))
        with m.FSM(name="show"):
            with m.State("START"):
                with m.If(a == 7):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.color.eq(Mux(count[3], Color.BLUE, Color.GREEN))
                with m.If(count == 0):
                    m.next = "END"
            with m.State("END"):
                # Until the operand is large.
                with m.If(a > 20):
                    m.next = "START"
        return m


@pytest.fixture(scope="module")
def text():
    return emit.verilog(Operators(), "operators")


def test_operators_are_equivalent(text):
    equivalence.prove(Operators(), "operators", text)


def test_lint_of_operators_is_silent(text, tmp_path):
    (tmp_path / "operators.v").write_text(text)
    assert lint(tmp_path / "operators.v", "operators") == ""


@pytest.mark.parametrize("part", [
    "// Every operator, with operands whose context would extend them in the wrong way.\n"
    "// Latency: 1 cycle.\nmodule operators (\n  input wire",
    "  // a: An operand.\n  input wire [4:0] a,\n",
    "  // color: What the machine shows.\n  // color = 0 RED, 1 GREEN, 2 BLUE\n",
    "  // low [2:0], high [4:3]\n  input wire [4:0] pair,\n",
    "  localparam [1:0] ShowStart = 2'd0;\n",
    "  localparam [1:0] ColorGreen = 2'd1;\n",
    "ColorBlue : ColorGreen",
    "      case (show_state)\n",
    "        ShowStart:",
    "      show_state <= ShowStart;\n",
    "s < t;",
    "$unsigned(s) < $unsigned(t)",
])
def test_text(text, part):
    # Ports are aligned.
    assert part in re.sub(r"(?<=\w|\]) +", " ", text)


def test_statistics():
    counted = statistics.count("""
module one(a, y);
  input [3:0] a;
  wire [3:0] a;
  output y;
  // A comment
  wire \\$1 ;
  wire _2_;
  wire y_sum = 1;  // and another
  reg signed [1:0] held;
endmodule
module two (
  input  wire       a,
  output reg  [1:0] y
);
  wire a_2;
endmodule
""".lstrip(), {"y_sum"})
    assert counted == {"lines": 16, "longest": 33, "signals": 5, "anonymous": 3, "comments": 1}
    assert statistics.row("it", counted) == "| it | 16 | 33 | 5 | 60% | 6% |"


@pytest.mark.long
@pytest.mark.parametrize("name", registry.UNITS)
def test_few_names_are_made_up(name):
    text, made = emit.written(registry.build(name), name)
    counted = statistics.count(text, made)
    # The comparison's quantizer has long carry chains without names.
    limit = 0.11 if name == "nvfp4_quantizer" else 0.07
    assert counted["anonymous"] <= limit * counted["signals"]
    assert all(re.search(rf"\b{name}\b", text) for name in made)


# Each is a fault that a writer of Verilog makes. Equivalence is checked by Yosys, which reads the
# text without a line of the writer.
FAULTS = {
    "shift without sign": (writer.SHIFTS, "$sshr", ">>"),
    "wrong shift": (writer.SHIFTS, "$shr", "<<"),
    "at most for less": (writer.COMPARED, "$lt", "<="),
    "equal for unequal": (writer.COMPARED, "$ne", "=="),
    "sum for product": (writer.ARITHMETIC, "$mul", "+"),
    "any for all": (writer.REDUCTIONS, "$reduce_and", "|"),
    "and for or": (writer.BITWISE, "$or", "&"),
}


def proved():
    try:
        equivalence.prove(Operators(), "operators", emit.verilog(Operators(), "operators"))
    except yosys.ToolError:
        return False
    return True


@pytest.mark.long
@pytest.mark.parametrize("table, kind, wrong", FAULTS.values(), ids=FAULTS)
def test_a_wrong_operator_is_found(table, kind, wrong, monkeypatch):
    assert table[kind] != wrong
    monkeypatch.setitem(table, kind, wrong)
    assert not proved()


def swapped(condition, value, default):
    return expressions.Choice(((condition, default),), value)


def unsigned(bits, width, signed):
    return (bits + ["0"] * width)[:width]


def no_call(function, inner):
    return inner


def not_grouped(self):
    return self.inner.flat


@pytest.mark.long
@pytest.mark.parametrize("place, name, wrong", [
    (writer, "choice", swapped),  # the branches of a choice
    (operators, "extended", unsigned),  # zeros before a signed operand
    (writer, "Call", no_call),  # $signed and $unsigned left out
    (expressions.Parentheses, "flat", property(not_grouped)),  # parentheses left out
])
def test_a_wrong_tree_is_found(place, name, wrong, monkeypatch):
    monkeypatch.setattr(place, name, wrong)
    assert not proved()


def test_what_cannot_be_emitted():
    class Divider(wiring.Component):
        a: In(4)
        y: Out(4)

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.y.eq(self.a // 3)
            return m

    with pytest.raises(ValueError, match=r"^A \$divfloor of divider cannot be emitted"):
        emit.verilog(Divider(), "divider")


def test_words_of_the_language():
    class Child(wiring.Component):
        begin: In(1)
        end: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.end.eq(~self.begin)
            return m

    class Parent(wiring.Component):
        wire: In(1)
        y: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.submodules.case = child = Child()
            m.d.comb += [child.begin.eq(self.wire), self.y.eq(child.end)]
            return m

    text = emit.verilog(Parent(), "parent")
    assert "  parent_child \\case  (\n    .\\begin (\\wire ),\n    .\\end (y)\n  );" in text
    equivalence.prove(Parent(), "parent", text)


@pytest.mark.parametrize("width", [30, 60, 99])
def test_layout_keeps_lines_short(width, monkeypatch):
    monkeypatch.setattr(expressions, "WIDTH", width)
    names = [expressions.Text(f"name{i}") for i in range(40)]
    tree = expressions.choice(
        expressions.Chain("==", (names[0], expressions.number(3, 2))),
        expressions.chain("|", [expressions.Unary("~", name) for name in names]),
        expressions.Concatenation(tuple(names)))
    lines = ("x = " + tree.layout(4, 4)).splitlines()
    assert len(lines) > 3 and max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "") == ("x=" + tree.flat).replace(" ", "")


@pytest.mark.parametrize("operator, parts, expected", [
    ("&", "a[3] a[1] b a[2]", "(&a[3:1]) & b"), ("|", "a[4] a[2] a[3] a[2]", "|a[4:2]"),
    ("&", "a[1] a[0]", "a[1] & a[0]"), ("&", "a[5] a[3:1] a[2]", "a[5] & a[2] & a[3:1]"),
    ("^", "a[2] a[1] a[0]", "a[2] ^ a[1] ^ a[0]")])
def test_bits_side_by_side(operator, parts, expected):
    tree = expressions.chain(operator, map(expressions.Text, parts.split()))
    assert tree.flat == expected


def test_reductions_become_one():
    text = expressions.Text
    tree = expressions.chain("&", [expressions.Unary("&", text("a[7:4]")), text("a[3]")])
    assert tree.flat == "&a[7:3]"
    tree = expressions.chain("|", [expressions.Unary("&", text("a[7:4]")), text("a[3]")])
    assert tree.flat == "(&a[7:4]) | a[3]"


@pytest.mark.parametrize("value, width, expected", [
    (0, 1, "1'b0"), (1, 1, "1'b1"), (9, 4, "4'd9"), (255, 8, "8'hff"), (0, 65, "{65{1'b0}}"),
    (2**65 - 1, 65, "{65{1'b1}}"), (5, 65, "65'd5")])
def test_numbers(value, width, expected):
    assert expressions.number(value, width).flat == expected
