# SPDX-License-Identifier: BSD-2-Clause
"""A top of one's own from two units: reads Sg-special records, writes Elem-EM records.

The MAC array reads Elem-EM activations. A tensor that another machine stored as Sg-special passes
through `Decoder` and `QuantizationEngine` on its way to the array. Both have valid/ready streams,
so the top is a connection of the two and nothing else.

    python examples/transcoder.py

simulates the top with random stalls at both ends, compares every bit with the golden model and
writes its Verilog to build/transcoder.v.
"""

import sys
from pathlib import Path

import numpy as np
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

import sim
from golden import dequantize, quantize_activations
from hw.lib import Record
from hw.tools.files import write
from hw.units import Decoder, QuantizationEngine
from hw.verilog import verilog


class Transcoder(wiring.Component):
    """Turns an Sg-special record into an Elem-EM record.

    Decodes to float32 and encodes again: one more rounding per element, and NaN groups stay NaN
    groups. Latency 3 cycles, one group per cycle.

    Members
    -------
    i : In(stream.Signature(Record))
        Sg-special (specification section 12).
    o : Out(stream.Signature(Record))
        Elem-EM (specification section 3).
    """

    i: In(stream.Signature(Record))
    o: Out(stream.Signature(Record))

    latency = Decoder.latency + 2

    def elaborate(self, platform):
        m = Module()

        m.submodules.decoder = decoder = Decoder(kind="special")
        m.submodules.engine = engine = QuantizationEngine(depth=2)
        wiring.connect(m, wiring.flipped(self.i), decoder.i)
        wiring.connect(m, decoder.o, engine.i)
        wiring.connect(m, engine.o, wiring.flipped(self.o))

        return m


def reference(stored):
    """What the top computes, in NumPy: `Quantized` Sg-special to `Quantized` Elem-EM."""
    return quantize_activations(dequantize(stored))


def rows(quantized):
    """Rows for a stream of `Record`: a group each."""
    return {"elements": quantized.elements.reshape(-1, 32),
            "metadata": quantized.metadata.reshape(-1, 4), "scale": quantized.scales.reshape(-1)}


def main(folder="build"):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((16, 320)) * np.exp2(rng.integers(-20, 20, (16, 1)))
    x[3, 5] = np.nan
    stored = quantize_activations(x.astype(np.float32), encoding="sg-special")

    given = sim.run(Transcoder(), {"i": rows(stored)}, stalls=0.3, seed=1)
    wrong = int(sim.mismatches(given["o"], rows(reference(stored))).sum())
    print(f"{stored.scales.size} groups, {wrong} mismatches against golden")

    path = Path(folder, "transcoder.v")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, verilog(Transcoder(), "transcoder"))
    print(f"Verilog in {path}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
