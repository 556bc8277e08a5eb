# SPDX-License-Identifier: BSD-2-Clause
"""Accumulation of group sums in float32."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.float_adder import SUMS, Normalizer, PlainSum, TermAdder, scale_sum
from ..lib.formats import check_encoding, check_metadata, check_plain, has_specials, is_wide
from ..lib.pipeline import Control, Stages, check_depth
from ..lib.stream import link


class GroupAccumulator(wiring.Component):
    """Adds a scaled group sum to a float32: acc + G * 2**(Xw + Xx - 260), rounded once.

    It rounds to nearest, ties to even, with gradual underflow and overflow to infinity. An exact
    zero is +0; an infinite ``acc`` stays; a NaN scale or a NaN ``acc`` gives 0x7FC00000. Latency
    ``depth``; one sum per cycle. Specification section 7.

    Parameters
    ----------
    metadata : bool
        Whether the sum is one of operands with metadata. Otherwise it is narrower and in units of
        1/4: acc + G * 2**(Xw + Xx - 256).
    depth : int
        Pipeline registers: 3 for 500 MHz in a 45 nm library, 8 for 1 GHz, 10 for 100 MHz on an ECP5
        FPGA.
    encoding : str
        That of the activations: "elem-em", "sg-em", "sg-special", whose sums are a bit wider, or
        "sg-special64", where they are four bits wider.

    Members
    -------
    i : In(stream.Signature(GroupSum))
        The sum, its scales as E8M0 codes and the float32 bits that it is added to. Without metadata
        its payload is a ``PlainSum``, of Sg-special a ``SpecialSum``, of Sg-special64 a
        ``WideSum``.
    o : Out(stream.Signature(32))
        Float32 bits.

    Raises
    ------
    TypeError
        If ``metadata`` is not a bool.
    ValueError
        If ``depth`` is not 3, 8 or 10, if there is no such encoding, or if there is no metadata and
        ``encoding`` is not "elem-em".
    """

    latency = 3

    def __init__(self, *, metadata=True, depth=3, encoding="elem-em"):
        check_metadata(metadata)
        check_encoding(encoding)
        check_plain(metadata, encoding)
        check_depth(depth, (3, 8, 10))
        self.has_metadata = metadata
        self.encoding = encoding
        self.latency = depth
        super().__init__({
            "i": In(stream.Signature(SUMS[encoding] if metadata else PlainSum)),
            "o": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()

        cuts = {"fine": self.latency >= 8, "finest": self.latency == 10}
        m.submodules.control = control = Control(self.latency, rigid=self.latency == 10)
        m.submodules.normalize = normalize = Normalizer(
            metadata=self.has_metadata, special=has_specials(self.encoding),
            wide=is_wide(self.encoding), **cuts)
        m.submodules.add = add = TermAdder(normalize.o.shape(), **cuts)
        link(m, self.i, control.i)
        link(m, control.o, self.o)

        # The float32 waits until the term is normalized.
        i = self.i.payload
        before, after = control.enable[: normalize.latency], control.enable[normalize.latency:]
        acc = Stages(m, before).delay("acc", i.acc, normalize.latency)
        m.d.comb += [
            normalize.sum.eq(i.sum),
            normalize.scale.eq(scale_sum(i.activation_scale, i.weight_scale)),
            normalize.enable.eq(before),
            add.term.eq(normalize.o),
            add.acc.eq(acc),
            add.enable.eq(after),
            self.o.payload.eq(add.o),
        ]

        return m
