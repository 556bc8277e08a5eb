# SPDX-License-Identifier: BSD-2-Clause
"""A unit of one's own, outside this tree, with its golden reference.

`ZeroCounter` counts the zeros of a group record, from which an architect learns what skipping them
would save. The file holds what every unit brings: the component, its reference in NumPy, stimuli
that look for trouble, and its entry for the registry. With the entry in place all commands know
the unit.

    python examples/zero_counter.py

checks the unit against its reference, writes its Verilog with a JSON description, proves the
Verilog equivalent to what was simulated, and prints area and timing.
"""

import sys

import numpy as np
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw import generate, registry, synth
from hw.lib import Record
from hw.lib.formats import GROUP
from hw.lib.stream_register import StreamRegister
from sim import __main__ as sim


class ZeroCounter(wiring.Component):
    """Counts the elements of a group record that are +0 or -0.

    Latency 1 cycle, one group per cycle.

    Members
    -------
    i : In(stream.Signature(Record))
    o : Out(stream.Signature(6))
        The count, 0 to 32.
    """

    i: In(stream.Signature(Record))
    o: Out(stream.Signature(range(GROUP + 1)))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        # The count is held, not the record: 6 flip-flops in place of 144.
        m.submodules.register = register = StreamRegister(range(GROUP + 1))
        is_zero = [~self.i.payload.elements[lane][:3].any() for lane in range(GROUP)]
        m.d.comb += [
            register.i.payload.eq(sum(is_zero)),
            register.i.valid.eq(self.i.valid),
            self.i.ready.eq(register.i.ready),
        ]
        wiring.connect(m, register.o, wiring.flipped(self.o))

        return m


def reference(inputs):
    """Counts of zeros: rows of the unit's inputs to rows of its outputs."""
    return {"o": np.count_nonzero(inputs["i"]["elements"] & 0b111 == 0, axis=-1)}


def stimuli(rng, count):
    """Random records; some have no zeros, some nothing else."""
    elements = rng.integers(0, 16, (count, GROUP), np.uint8)
    kind = rng.random((count, 1))
    elements = np.where(kind < 0.2, elements | 1, np.where(kind < 0.4, elements & 8, elements))
    return {"i": {"elements": elements, "metadata": rng.integers(0, 4, (count, 4), np.uint8),
                  "scale": rng.integers(0, 256, count, np.uint8)}}


ENTRY = registry.Unit(component=ZeroCounter, summary="Zeros of a group record",
                      reference=reference, stimuli=stimuli)


def main(folder="build"):
    registry.UNITS["zero_counter"] = ENTRY
    try:
        return (sim.main(["cosim", "zero_counter", "--count", "2000", "--stalls", "0.3"])
                or generate.main(["zero_counter", "--prove", "-o", folder])
                or synth.main(["zero_counter", "--json", f"{folder}/zero_counter_synth.json"]))
    finally:
        del registry.UNITS["zero_counter"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
