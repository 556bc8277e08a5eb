# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""AXI wrappers: names, descriptions, and lockstep through the wrapper."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from amaranth import Module, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw import generate, registry
from hw.accelerator.config import CONFIGS
from hw.bus.axi_lite import CommandRegisters
from hw.lib.stream_register import StreamRegister
from hw.verilog import emit
from hw.verilog.axi_wrapper import wrap
from tests.hw.test_generate import lint, run, verible
from tests.support.axi_bus import RegisterStreams
from tests.support.compare import SMALL
from tests.support.verilog_bench import build, missing, write_bench
from tests.support.verilog_bench import run as simulate

STREAMED = [name for name in registry.UNITS
            if all(member.is_signature
                   for member in registry.build(name).signature.members.values())]


def interfaces(component, name="unit"):
    """The core's Verilog, the wrapper's, and the description of its interfaces."""
    text = emit.verilog(component, name)
    return text, *wrap(generate.describe(component, name, text))


def declared(text):
    """Ports of the wrapper as it declares them."""
    return {name: (direction, int(high or 0) + 1) for direction, high, name in re.findall(
        r"^  (input|output) wire (?:\[(\d+):0\] )?(\w+),?$", text, re.M)}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.long if name in (
        "accelerator", "nvfp4_array", "nvfp4_quantizer", "mac_array", "weight_encoder",
        "group_mac", "quantization_engine", "sg_engine") else [])
    for name in STREAMED])
def test_units(name, tmp_path):
    paths = generate.generate(name, SMALL.get(name, []), tmp_path, axi=True)
    assert [path.name for path in paths][:3] == [f"{name}.v", f"{name}.json", f"{name}_axi.v"]
    assert lint(paths[2], f"{name}_axi", paths[0]) == ""
    assert verible(paths[2]) == ""
    description = json.loads(paths[1].read_text())
    # The description alone makes the text.
    text, axi = wrap(description)
    assert paths[2].read_text() == text
    assert description["axi"] == {"file": f"{name}_axi.v"} | axi
    assert text.splitlines()[0] == "// SPDX-License-Identifier: BSD-2-Clause"
    assert declared(text) == {port["name"]: (port["direction"], port["width"])
                              for port in axi["ports"]}
    streams = sorted(name for interface in axi["interfaces"] for name in interface["streams"])
    assert streams == sorted(stream["name"] for stream in description["streams"])


Odd = data.StructLayout({"a": 6, "last": 1, "b": signed(3)})


class Through(wiring.Component):
    """A payload that fills no whole bytes, with the last in its middle."""

    i: In(stream.Signature(Odd))
    o: Out(stream.Signature(Odd))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        m.submodules.register = register = StreamRegister(Odd)
        wiring.connect(m, wiring.flipped(self.i), register.i)
        wiring.connect(m, register.o, wiring.flipped(self.o))

        return m


class Handshakes(wiring.Component):
    """Streams that lack a part: handshakes, or anything but the last in their payload."""

    i_level: In(stream.Signature(3, always_valid=True))
    i_free: In(stream.Signature(8, always_ready=True))
    i_end: In(stream.Signature(data.StructLayout({"last": 1})))
    i_empty: In(stream.Signature(0))
    o_end: Out(stream.Signature(data.StructLayout({"last": 1})))
    o_level: Out(stream.Signature(1, always_valid=True))
    o_free: Out(stream.Signature(8, always_ready=True))
    o_empty: Out(stream.Signature(0))
    o_wide: Out(stream.Signature(data.StructLayout({"last": 2})))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        m.submodules.end = end = StreamRegister(self.i_end.payload.shape())
        wiring.connect(m, wiring.flipped(self.i_end), end.i)
        wiring.connect(m, end.o, wiring.flipped(self.o_end))
        wiring.connect(m, wiring.flipped(self.i_empty), wiring.flipped(self.o_empty))
        m.d.sync += [
            self.o_level.payload.eq(self.i_level.payload == 5),
            self.o_free.valid.eq(self.i_free.valid),
            self.o_free.payload.eq(self.i_free.payload),
            self.o_wide.valid.eq(self.o_level.ready),
            self.o_wide.payload.last.eq(self.i_level.payload),
        ]

        return m


def test_odd_widths():
    _, wrapper, axi = interfaces(Through())
    ports = declared(wrapper)
    assert ports["s_axis_tdata"] == ("input", 16)
    assert ports["m_axis_tdata"] == ("output", 16)
    for interface in axi["interfaces"]:
        assert (interface["payload_width"], interface["tdata_width"]) == (9, 16)
        assert [(field["name"], field["lsb"], field["width"], field["signed"])
                for field in interface["fields"]] == [("a", 0, 6, False), ("b", 6, 3, True)]


def test_odd_handshakes(tmp_path):
    text, wrapper, _ = interfaces(Handshakes())
    (tmp_path / "unit.v").write_text(text)
    (tmp_path / "unit_axi.v").write_text(wrapper)
    assert lint(tmp_path / "unit_axi.v", "unit_axi", tmp_path / "unit.v") == ""
    ports = declared(wrapper)
    stems = {re.fullmatch("([sm]_axis_[a-z]+)_t[a-z]+", name)[1]
             for name in ports if "axis" in name}
    parts = {stem: {name.rpartition("_")[2]: ports[name][1] for name in ports
                    if name.startswith(f"{stem}_")} for stem in stems}
    both = {"tvalid": 1, "tready": 1}
    assert parts == {
        "s_axis_level": {"tdata": 8, "tready": 1}, "s_axis_free": {"tdata": 8, "tvalid": 1},
        "s_axis_end": {"tlast": 1} | both, "s_axis_empty": both,
        "m_axis_end": {"tlast": 1} | both, "m_axis_level": {"tdata": 8} | both,
        "m_axis_free": {"tdata": 8, "tvalid": 1}, "m_axis_empty": both,
        # A field of two bits is no mark.
        "m_axis_wide": {"tdata": 8} | both}
    assert "assign m_axis_level_tvalid = 1'b1;" in wrapper


# The wrapped unit with the unit's own ports again, written without looking at the wrapper. What
# fills up an input is not zero, and an output that is not filled up with zeros is spoilt.
THROUGH = """
module shim(clk, rst, i__payload, i__valid, i__ready, o__payload, o__valid, o__ready);
  input clk, rst, i__valid, o__ready;
  output i__ready, o__valid;
  input [9:0] i__payload;
  output [9:0] o__payload;
  wire [15:0] o;
  wire last;
  unit_axi wrapped (
    .aclk(clk), .aresetn(!rst),
    .s_axis_tdata({7'h7f, i__payload[9:7], i__payload[5:0]}), .s_axis_tlast(i__payload[6]),
    .s_axis_tvalid(i__valid), .s_axis_tready(i__ready),
    .m_axis_tdata(o), .m_axis_tlast(last), .m_axis_tvalid(o__valid), .m_axis_tready(o__ready)
  );
  assign o__payload = {o[8:6], last, o[5:0]} ^ {10{|o[15:9]}};
endmodule
"""

ARRAY = """
module shim(clk, rst, i_weight__payload, i_weight__valid, i_weight__ready,
            i_activation__payload, i_activation__valid, i_activation__ready,
            i_acc__payload, i_acc__valid, i_acc__ready, o__payload, o__valid, o__ready);
  input clk, rst, i_weight__valid, i_activation__valid, i_acc__valid, o__ready;
  output i_weight__ready, i_activation__ready, i_acc__ready, o__valid;
  input [143:0] i_weight__payload;
  input [144:0] i_activation__payload;
  input [127:0] i_acc__payload;
  output [127:0] o__payload;
  unit_axi wrapped (
    .aclk(clk), .aresetn(!rst),
    .s_axis_weight_tdata(i_weight__payload), .s_axis_weight_tvalid(i_weight__valid),
    .s_axis_weight_tready(i_weight__ready),
    .s_axis_activation_tdata(i_activation__payload[143:0]),
    .s_axis_activation_tlast(i_activation__payload[144]),
    .s_axis_activation_tvalid(i_activation__valid),
    .s_axis_activation_tready(i_activation__ready),
    .s_axis_acc_tdata(i_acc__payload), .s_axis_acc_tvalid(i_acc__valid),
    .s_axis_acc_tready(i_acc__ready),
    .m_axis_tdata(o__payload), .m_axis_tvalid(o__valid), .m_axis_tready(o__ready)
  );
endmodule
"""


def through(shim, component, text, inputs, expected, folder):
    """What the bench of a wrapped unit prints."""
    write_bench(folder, "shim", component, text + shim, inputs, expected)
    return simulate(build("iverilog", folder, ["shim"]), folder)["shim"]


def random_rows(count):
    rng = np.random.default_rng(0)
    return {"a": rng.integers(0, 64, count), "last": rng.integers(0, 2, count),
            "b": rng.integers(-4, 4, count)}


needs_iverilog = pytest.mark.skipif(missing("iverilog") is not None,
                                    reason=str(missing("iverilog")))


@needs_iverilog
def test_data_pass(tmp_path):
    component = Through()
    text, wrapper, _ = interfaces(component)
    rows = random_rows(200)
    assert through(THROUGH, component, text + wrapper, {"i": rows}, {"o": rows},
                   tmp_path) == "PASS 200"


@needs_iverilog
@pytest.mark.parametrize("old, new", [
    ("~aresetn", "aresetn"),
    ("{s_axis_tdata[8:6], s_axis_tlast,", "{s_axis_tlast, s_axis_tdata[8:6],"),
    ("m_axis_tlast = o__payload[6]", "m_axis_tlast = o__payload[5]"),
    ("7'b0", "7'b1"),
])
def test_data_do_not_pass_a_wrong_wrapper(old, new, tmp_path):
    component = Through()
    text, wrapper, _ = interfaces(component)
    assert old in wrapper
    rows = random_rows(200)
    printed = through(THROUGH, component, text + wrapper.replace(old, new), {"i": rows},
                      {"o": rows}, tmp_path)
    assert printed.startswith("FAIL")


@pytest.mark.long
def test_array(tmp_path):
    unit = registry.UNITS["mac_array"]
    parameters = registry.parameters("mac_array", ["columns=4"])
    component = unit.component(**parameters)
    text, wrapper, axi = interfaces(component)
    assert declared(wrapper) == {
        "aclk": ("input", 1), "aresetn": ("input", 1),
        "s_axis_weight_tdata": ("input", 144), "s_axis_weight_tvalid": ("input", 1),
        "s_axis_weight_tready": ("output", 1),
        "s_axis_activation_tdata": ("input", 144), "s_axis_activation_tlast": ("input", 1),
        "s_axis_activation_tvalid": ("input", 1), "s_axis_activation_tready": ("output", 1),
        "s_axis_acc_tdata": ("input", 128), "s_axis_acc_tvalid": ("input", 1),
        "s_axis_acc_tready": ("output", 1),
        "m_axis_tdata": ("output", 128), "m_axis_tvalid": ("output", 1),
        "m_axis_tready": ("input", 1)}
    assert axi["interfaces"][1] | {"fields": None} == {
        "name": "s_axis_activation", "protocol": "axi4-stream", "streams": ["i_activation"],
        "payload_width": 144, "tdata_width": 144, "tlast": True, "fields": None}
    if reason := missing("iverilog"):
        pytest.skip(reason)

    inputs = unit.stimuli(np.random.default_rng(0), 40, **parameters)
    assert through(ARRAY, component, text + wrapper, inputs, unit.reference(inputs, **parameters),
                   tmp_path) == "PASS 40"


REGISTERS = """
module bench;
  reg clk = 0, aresetn = 0, awvalid = 0, wvalid = 0, arvalid = 0;
  reg [11:0] awaddr, araddr;
  reg [31:0] wdata;
  reg [3:0] wstrb;
  wire awready, wready, bvalid, arready, rvalid, command_valid;
  wire [1:0] bresp, rresp;
  wire [31:0] rdata;
  wire [63:0] command;
  wire irq;

  unit_axi dut (
    .aclk(clk), .aresetn(aresetn),
    .s_axi_awaddr(awaddr), .s_axi_awprot(3'b010), .s_axi_awvalid(awvalid),
    .s_axi_awready(awready),
    .s_axi_wdata(wdata), .s_axi_wstrb(wstrb), .s_axi_wvalid(wvalid), .s_axi_wready(wready),
    .s_axi_bresp(bresp), .s_axi_bvalid(bvalid), .s_axi_bready(1'b1),
    .s_axi_araddr(araddr), .s_axi_arprot(3'b010), .s_axi_arvalid(arvalid),
    .s_axi_arready(arready),
    .s_axi_rdata(rdata), .s_axi_rresp(rresp), .s_axi_rvalid(rvalid), .s_axi_rready(1'b1),
    .m_axis_command_tdata(command), .m_axis_command_tvalid(command_valid),
    .m_axis_command_tready(1'b0),
    .s_axis_status_tdata(8'd0), .s_axis_status_tvalid(1'b0), .s_axis_status_tready(),
    .irq(irq)
  );

  always #1 clk = ~clk;

  task write(input [11:0] address, input [31:0] data, input [3:0] strobe);
    begin
      awaddr = address; wdata = data; wstrb = strobe; awvalid = 1; wvalid = 1;
      while (awvalid || wvalid) begin
        @(posedge clk);
        if (awready) awvalid <= 0;
        if (wready) wvalid <= 0;
        @(negedge clk);
      end
      while (!bvalid) @(negedge clk);
      $display("%h %0d", address, bresp);
      @(negedge clk);
    end
  endtask

  task read(input [11:0] address);
    begin
      araddr = address; arvalid = 1;
      while (arvalid) begin
        @(posedge clk);
        if (arready) arvalid <= 0;
        @(negedge clk);
      end
      while (!rvalid) @(negedge clk);
      $display("%h %h %0d", address, rdata, rresp);
      @(negedge clk);
    end
  endtask

  initial begin
    repeat (3) @(negedge clk);
    aresetn = 1;
    read(12'h000);
    write(12'h020, 32'h00012345, 4'b1111);
    write(12'h020, 32'h000000ff, 4'b0001);
    read(12'h020);
    write(12'h000, 32'd0, 4'b1111);
    write(12'h02c, 32'h12, 4'b0001);
    read(12'h030);
    read(12'hffc);
    if (command_valid) $display("%h", command);
    $display("%b", irq);
    write(12'h04c, 32'd2, 4'b0001);
    @(negedge clk) $display("%b", irq);
    aresetn = 0;
    @(negedge clk) aresetn = 1;
    read(12'h020);
    $finish;
  end
  initial #1000 $finish;
endmodule
"""


@needs_iverilog
def test_registers(tmp_path):
    text, wrapper, axi = interfaces(RegisterStreams(CONFIGS["tiny"], irq=True))
    assert [interface["name"] for interface in axi["interfaces"]] == [
        "s_axi", "m_axis_command", "s_axis_status"]
    assert axi["interfaces"][0] == {
        "name": "s_axi", "protocol": "axi4-lite", "streams": ["i_aw", "i_w", "o_b", "i_ar", "o_r"],
        "address_width": 12, "data_width": 32}
    (tmp_path / "all.v").write_text(text + wrapper + REGISTERS)
    for command in (["iverilog", "-g2005", "-Wall", "-s", "bench", "-o", "bench", "all.v"],
                    ["vvp", "-n", "bench"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if "$finish" not in line]
    assert lines == [
        "000 4d325846 0", "020 0", "020 0", "020 000123ff 0", "000 2", "02c 0", "030 00000103 0",
        "ffc 00000000 2", f"{0x123ff | 2 << 60 | 1 << 62:016x}", "0", "04c 0", "1",
        "020 00000000 0"]


def test_four_channels_are_no_bus():
    class Four(wiring.Component):
        i_aw: In(stream.Signature(data.StructLayout({"addr": 8, "prot": 3})))
        o_b: Out(stream.Signature(data.StructLayout({"resp": 2})))

        latency = 1

        def elaborate(self, platform):
            m = Module()
            m.d.sync += [self.o_b.payload.resp.eq(self.i_aw.payload.addr),
                         self.o_b.valid.eq(self.i_aw.valid)]
            m.d.comb += self.i_aw.ready.eq(self.o_b.ready)
            return m

    _, wrapper, _ = interfaces(Four())
    assert "s_axi_" not in wrapper
    assert {"s_axis_aw_tdata", "m_axis_b_tdata"} < declared(wrapper).keys()


class Wires(wiring.Component):
    """Outputs beside streams that are no streams."""

    i: In(stream.Signature(8))
    o_level: Out(signed(5))
    o_irq: Out(1)

    latency = 1

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [self.o_irq.eq(self.i.valid), self.o_level.eq(self.i.payload)]
        m.d.comb += self.i.ready.eq(1)
        return m


def test_outputs_that_are_no_streams(tmp_path):
    text, wrapper, axi = interfaces(Wires())
    (tmp_path / "unit.v").write_text(text)
    (tmp_path / "unit_axi.v").write_text(wrapper)
    assert lint(tmp_path / "unit_axi.v", "unit_axi", tmp_path / "unit.v") == ""
    ports = declared(wrapper)
    assert ports["level"] == ("output", 5) and ports["irq"] == ("output", 1)
    assert ".o_irq(irq)" in wrapper and ".o_level(level)" in wrapper
    assert {"name": "irq", "direction": "output", "width": 1} in axi["ports"]


class Wired(wiring.Component):
    """An input beside a stream that is no stream."""

    i: In(stream.Signature(8))
    i_enable: In(1)
    o_irq: Out(1)

    latency = 1

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o_irq.eq(self.i.valid & self.i_enable)
        m.d.comb += self.i.ready.eq(self.i.payload == 1)
        return m


class Named(wiring.Component):
    """An input that is called like an output."""

    o_x: In(stream.Signature(8))

    latency = 1

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o_x.ready.eq(self.o_x.valid & (self.o_x.payload == 1))
        return m


@pytest.mark.parametrize("build, others", [
    (lambda: registry.build("top1"), "codes, lane"),
    (lambda: registry.build("pe_tile", ["depth=1"]),
     "activations, enable, lane, meta, refinement, sum, weights"),
    (Named, "o_x"),
    (Wired, "i_enable"),
])
def test_ports_that_are_no_streams(build, others):
    with pytest.raises(ValueError) as info:
        interfaces(build())
    assert str(info.value) == ("Ports of unit must all be streams i, i_x, o or o_x of a clocked "
                               f"unit to become AXI, not {others}")


def test_command_line_complains_in_one_line(tmp_path, capsys):
    assert generate.main(["top1", "--axi", "-o", str(tmp_path)]) == 2
    assert re.fullmatch("error: Ports of top1 must all be streams .*, not codes, lane\n",
                        capsys.readouterr().err)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.long
def test_accelerator(tmp_path):
    done = run("axi_accelerator", "--axi", "--set", "config=lite", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    names = ["axi_accelerator.v", "axi_accelerator.json", "axi_accelerator_axi.v",
             "m2xfp_registers.h"]
    kit = [f"axi_accelerator{end}" for end in (".f", ".sdc", "_axi.sdc", ".rdl", ".xml", ".core")]
    assert done.stdout.split() == [str(tmp_path / name) for name in (*names, *kit, "Bender.yml")]
    assert lint(tmp_path / names[2], "axi_accelerator_axi", tmp_path / names[0]) == ""
    description = json.loads((tmp_path / names[1]).read_text())
    assert [interface["name"] for interface in description["axi"]["interfaces"]] == [
        "s_axi", "s_axis_weight", "s_axis_activation", "s_axis_value", "m_axis"]
    assert description["axi"]["interfaces"][-1]["tlast"]
    assert description["registers"]["header"] == names[3]
    columns = next(field for register in description["registers"]["table"]
                   for field in register["fields"] if field["name"] == "columns")
    assert columns["reset"] == 4
    if shutil.which("gcc"):
        subprocess.run(["gcc", "-std=c99", "-Wall", "-Werror", "-pedantic", "-fsyntax-only",
                        tmp_path / names[3]], check=True)


def test_registers_are_described_without_wrapper():
    component = CommandRegisters(CONFIGS["tiny"])
    description = generate.describe(component, "unit", emit.verilog(component, "unit"))
    assert description["axi"] is None
    assert description["registers"]["table"] == component.registers.describe()
