# SPDX-License-Identifier: BSD-2-Clause
"""Memories with banks, read as a stream."""

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2


class Buffer(wiring.Component):
    """Stores rows: a memory with a write port, and a read port that is a stream.

    An address on ``i`` gives its row on ``o`` with latency 1, one per cycle; a row is held while
    ``o`` is stalled. A row can be read from the cycle after it was written on. A row that is
    written in the cycle in which it is read, or that was never written, is undefined.

    The rows lie in banks, each a `Bank`; adjacent addresses are in different banks. A read or a
    write enables one bank only.

    Parameters
    ----------
    shape : ShapeLike
        Shape of a row.
    depth : int
        Rows.
    banks : int, power of two
        Divides ``depth``.

    Members
    -------
    write : In(1)
    address : In(range(depth))
    row : In(shape)
        Goes to ``address`` at clock edges at which ``write`` is set.
    i : In(stream.Signature(range(depth)))
        Addresses to read.
    o : Out(stream.Signature(shape))

    Raises
    ------
    ValueError
        If ``depth`` is not a multiple of ``banks``, or ``banks`` not a power of two.
    """

    latency = 1

    def __init__(self, shape, *, depth, banks=1):
        if banks < 1 or banks.bit_count() != 1:
            raise ValueError(f"Banks must be a power of two, not {banks!r}")
        if depth < 2 * banks or depth % banks:
            raise ValueError(f"Depth must be a multiple of {banks} banks, of at least two rows "
                             f"each, not {depth!r}")
        self.shape = shape
        self.depth = depth
        self.banks = banks
        super().__init__({
            "write": In(1),
            "address": In(range(depth)),
            "row": In(shape),
            "i": In(stream.Signature(range(depth))),
            "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform):
        m = Module()

        valid = Signal()
        m.d.comb += [self.i.ready.eq(~valid | self.o.ready), self.o.valid.eq(valid)]
        with m.If(self.i.ready):
            m.d.sync += valid.eq(self.i.valid)
        read = Signal()
        m.d.comb += read.eq(self.i.ready & self.i.valid)

        # The lower bits of an address choose the bank, as the rows of a bank need not be a power of
        # two.
        bits = exact_log2(self.banks)
        chosen = Signal(bits, reset_less=True)
        with m.If(read):
            m.d.sync += chosen.eq(self.i.payload[:bits])
        rows = []
        for n in range(self.banks):
            m.submodules[f"bank{n}"] = bank = Bank(Shape.cast(self.shape).width,
                                                   depth=self.depth // self.banks)
            m.d.comb += [
                bank.write.eq(self.write & (self.address[:bits] == n)),
                bank.write_address.eq(self.address[bits:]),
                bank.write_row.eq(self.row),
                bank.read.eq(read & (self.i.payload[:bits] == n)),
                bank.read_address.eq(self.i.payload[bits:]),
            ]
            rows.append(bank.read_row)
        m.d.comb += Value.cast(self.o.payload).eq(Array(rows)[chosen] if bits else rows[0])

        return m


class Bank(wiring.Component):
    """Holds a memory and nothing else, so that a macro can take its place.

    Latency 1 from ``read_address`` to ``read_row``. Without ``read`` the row that was read last
    stays. A row that is written in the cycle in which it is read is undefined.

    Parameters
    ----------
    width : int
        Bits of a row.
    depth : int
        Rows, at least 2.

    Members
    -------
    write : In(1)
    write_address : In(range(depth))
    write_row : In(width)
    read : In(1)
    read_address : In(range(depth))
    read_row : Out(width)
    """

    latency = 1

    def __init__(self, width, *, depth):
        self.width = width
        self.depth = depth
        super().__init__({
            "write": In(1),
            "write_address": In(range(depth)),
            "write_row": In(width),
            "read": In(1),
            "read_address": In(range(depth)),
            "read_row": Out(width),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.memory = rows = memory.Memory(shape=self.width, depth=self.depth, init=[])
        write_port = rows.write_port()
        read_port = rows.read_port()
        m.d.comb += [
            write_port.en.eq(self.write),
            write_port.addr.eq(self.write_address),
            write_port.data.eq(self.write_row),
            read_port.en.eq(self.read),
            read_port.addr.eq(self.read_address),
            self.read_row.eq(read_port.data),
        ]

        return m
