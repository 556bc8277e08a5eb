# SPDX-License-Identifier: BSD-2-Clause
"""Proofs of the AXI4-Stream wrapper, read as Verilog (specification section 16.5)."""

from collections.abc import Sequence

from amaranth.hdl import C, ClockSignal, Instance, ResetSignal, Signal
from amaranth.lib import data

from ..lib.stream_register import StreamRegister
from ..verilog.axi_wrapper import wrap
from ..verilog.emit import verilog
from .faults import Fault
from .harness import Harness
from .proof import Proof

_LAYOUT = data.StructLayout({"low": 3, "last": 1, "high": 7})
"""A payload with its mark in the middle and, without it, bits that fill no whole bytes."""


def _description():
    """What the wrapper is told of a register with this payload."""
    fields = [{"name": str(name), "lsb": field.offset, "width": field.width}
              for name, field in _LAYOUT]
    streams, ports = [], []
    for name, direction, back in ("i", "input", "output"), ("o", "output", "input"):
        parts = {part: f"{name}__{part}" for part in ("payload", "valid", "ready")}
        streams.append({"name": name, "direction": direction, **parts})
        ports += [{"name": parts["payload"], "direction": direction, "width": _LAYOUT.size,
                   "fields": fields},
                  {"name": parts["valid"], "direction": direction, "width": 1},
                  {"name": parts["ready"], "direction": back, "width": 1}]
    return {"unit": "held", "parameters": {}, "versions": {}, "ports": ports, "streams": streams,
            "clock": {"name": "clk"},
            "reset": {"name": "rst", "active": "high", "synchronous": True}}


def _stream():
    """The wrapped register gives what it took, by the names of AXI and in whole bytes."""
    harness = Harness()
    m = harness.m
    harness.verilog += [verilog(StreamRegister(_LAYOUT), "held"), wrap(_description())[0]]
    valid, ready = harness.input("s_axis_tvalid"), harness.input("m_axis_tready")
    given, last = harness.input("s_axis_tdata", 16), harness.input("s_axis_tlast")
    taken, comes, ends = Signal(), Signal(), Signal()
    out = Signal(16)
    m.submodules.unit = Instance(
        "held_axi", i_aclk=ClockSignal(), i_aresetn=~ResetSignal(), i_s_axis_tdata=given,
        i_s_axis_tlast=last, i_s_axis_tvalid=valid, o_s_axis_tready=taken, o_m_axis_tdata=out,
        o_m_axis_tlast=ends, o_m_axis_tvalid=comes, i_m_axis_tready=ready)

    # The master keeps the rules; upper bits of its data are ignored.
    waits, before = Signal(), Signal(17)
    m.d.sync += [waits.eq(valid & ~taken), before.eq((given << 1) | last)]
    harness.assume("held", ~waits | (valid & (before == (given << 1) | last)))
    full, kept, mark = Signal(), Signal(16), Signal()
    with m.If(~full | ready):
        m.d.sync += [full.eq(valid), kept.eq(given & C(0x3FF, 16)), mark.eq(last)]
    harness.claim("tvalid", comes == full)
    harness.claim("tready", taken == (~full | ready))
    harness.claim("tdata", ~full | (out == kept))
    harness.claim("tlast", ~full | (ends == mark))
    stalled, stalled_data = Signal(), Signal(17)
    m.d.sync += [stalled.eq(comes & ~ready), stalled_data.eq((out << 1) | ends)]
    harness.claim("holds", ~stalled | (comes & (stalled_data == (out << 1) | ends)))
    harness.witness("holds", stalled)
    harness.witness("full", full & taken & valid)
    return harness


PROOFS: Sequence[Proof] = [
    Proof(name="axi_wrapper.stream", depth=1, reach=3,
          claim="Behind AXI's names a payload, its mark and its handshakes are what they were, in "
                "whole bytes with zeros; tvalid and tdata are held", build=_stream,
          fault=Fault("hw.verilog.axi_wrapper", "_slice(value, last, last, payload",
                      "_slice(value, 0, 0, payload")),
]
