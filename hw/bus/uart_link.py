# SPDX-License-Identifier: BSD-2-Clause
"""A unit behind a serial line, over which nothing is lost, repeated or reordered.

`docs/boards.md` describes the frames; `sim.link` is the other end. Layers, from the line upwards::

    rx -> UartReceiver -> FrameReceiver -> LinkInput  -> stream of the unit      one per stream
    tx <- UartTransmitter <- FrameSender <- LinkOutput <- stream of the unit     one per stream
"""

from amaranth import *
from amaranth.lib import crc, data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .uart import UartReceiver, UartTransmitter

FLAG, ESCAPE, FLIP = 0x7E, 0x7D, 0x20
"""Marks of RFC 1662: a flag begins and ends a frame; inside, either byte becomes an escape and
itself with bit 5 flipped."""

PROTOCOL = 1
"""Version of the frames, which READY carries."""

CRC_BYTES = 4

LEAST_BUFFER, LARGEST_BUFFER = 32, 32768
"""Limits of a buffer in bytes. Positions in a stream count modulo 65,536, so at most half of them
can be under way."""


class Kind(enum.Enum, shape=3):
    """What a frame is for."""

    DATA = 0
    ACK = 1
    REJECT = 2
    RESET = 3
    READY = 4


Header = data.StructLayout({"stream": 5, "kind": Kind, "session": 8, "position": 16})
"""The first four bytes of a frame, first byte lowest."""

MOST_STREAMS = 32

_crc = crc.catalog.CRC32_ISO_HDLC(data_width=8)


def _bytes(shape):
    return -(-Shape.cast(shape).width // 8)


class FrameReceiver(wiring.Component):
    """Finds frames among bytes and checks them.

    Between two bytes there are four cycles or more.

    Members
    -------
    i : In(stream.Signature(8, always_ready=True))
    header : Out(Header)
        Of the frame under way, from ``start`` to ``end``.
    start : Out(1)
        Set for a cycle once the header is there.
    write : Out(1)
        Set for a cycle with each ``byte`` behind the header, also those of the CRC.
    byte : Out(8)
    end : Out(1)
        Set for a cycle at the end of a frame.
    good : Out(1)
        Valid with ``end``: whether the frame is whole.
    """

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(8, always_ready=True)),
            "header": Out(Header),
            "start": Out(1),
            "write": Out(1),
            "byte": Out(8),
            "end": Out(1),
            "good": Out(1),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.check = check = _crc.create()
        escaped = Signal()
        # Bytes so far, of the header and the CRC of a frame without payload at most.
        least = 4 + CRC_BYTES
        count = Signal(range(least + 1))
        header = Signal(32, reset_less=True)
        flag = Signal()
        take = Signal()
        m.d.comb += [
            flag.eq(self.i.valid & (self.i.payload == FLAG)),
            take.eq(self.i.valid & ~flag & (self.i.payload != ESCAPE)),
            self.byte.eq(self.i.payload ^ Mux(escaped, FLIP, 0)),
            check.start.eq(flag),
            check.valid.eq(take),
            check.data.eq(self.byte),
            self.header.eq(header),
            self.write.eq(take & (count >= 4)),
            self.end.eq(flag),
            # Eight bytes at least: the CRC of no bytes is four zeros, which noise can be.
            self.good.eq(check.match_detected & (count == least) & ~escaped),
        ]
        m.d.sync += self.start.eq(take & (count == 3))
        with m.If(take):
            m.d.sync += escaped.eq(0)
            with m.If(count != least):
                m.d.sync += count.eq(count + 1)
            with m.If(count < 4):
                m.d.sync += header.eq(Cat(header[8:], self.byte))
        with m.Elif(flag):
            m.d.sync += [escaped.eq(0), count.eq(0)]
        with m.Elif(self.i.valid):
            m.d.sync += escaped.eq(1)

        return m


class LinkInput(wiring.Component):
    """Puts the bytes of frames together to the payloads of one stream of the unit.

    Bytes go into the buffer as they come, and count once their frame has proved whole. Only the
    frame that begins where the bytes so far end is taken, so none is lost, repeated or reordered.

    Parameters
    ----------
    width : int
        Bits of a payload, which comes as whole bytes, least significant first.
    buffer : int, power of two
        Bytes that the buffer holds.

    Members
    -------
    start, write, byte, end, good
        As in `FrameReceiver`, of DATA frames of this stream.
    position : In(16)
        Of the frame.
    expected : Out(16)
        Position of the next byte.
    limit : Out(16)
        Position up to which there is room. The four bytes of a CRC, which the buffer receives
        before it can know, are not part of it.
    acknowledge : Out(1)
        Set for a cycle in which the other end should learn the two.
    reject : Out(1)
        Set for a cycle at the first frame beyond a gap.
    o : Out(stream.Signature(width))
    """

    def __init__(self, width, *, buffer):
        self.width = width
        self.buffer = buffer
        super().__init__({
            "start": In(1), "write": In(1), "byte": In(8), "end": In(1), "good": In(1),
            "position": In(16),
            "expected": Out(16), "limit": Out(16), "acknowledge": Out(1), "reject": Out(1),
            "o": Out(stream.Signature(width)),
        })

    def elaborate(self, platform):
        m = Module()

        bits = exact_log2(self.buffer)
        m.submodules.memory = rows = memory.Memory(shape=8, depth=self.buffer, init=[])
        write_port = rows.write_port()
        read_port = rows.read_port()
        # Positions of the next byte to read, of the end of all whole frames, and of the next byte.
        head = Signal(16)
        tail = self.expected
        free = Signal(16, reset_less=True)
        taking = Signal()
        beyond = Signal(reset_less=True)
        rejected = Signal()
        step = Signal()
        full = Signal()
        distance = Signal(16)
        m.d.comb += [
            self.limit.eq(head + (self.buffer - CRC_BYTES)),
            distance.eq(self.position - tail),
            write_port.addr.eq(free[:bits]),
            write_port.data.eq(self.byte),
            full.eq(Value.cast(free - head)[:16] == self.buffer),
            write_port.en.eq(self.write & taking & ~full),
        ]
        with m.If(self.start):
            # Positions in the half above the expected one are those behind a gap.
            m.d.sync += [free.eq(tail), taking.eq(distance == 0),
                         beyond.eq((distance != 0) & ~distance[15])]
        with m.Elif(self.end):
            m.d.sync += taking.eq(0)
            with m.If(self.good & taking):
                m.d.sync += [tail.eq(free - CRC_BYTES), rejected.eq(0)]
            with m.Elif(self.good & beyond):
                m.d.sync += rejected.eq(1)
        with m.Elif(self.write):
            # Beyond the limit there may be no room: such a frame is not taken.
            m.d.sync += [free.eq(free + 1), taking.eq(taking & ~full)]

        # A quarter of the buffer has become free.
        quarter = Signal()
        m.d.comb += [
            quarter.eq(step & head[: bits - 2].all()),
            self.acknowledge.eq(self.end & self.good | quarter),
            self.reject.eq(self.end & self.good & ~taking & beyond & ~rejected),
        ]

        # One byte every other cycle: it is read in one and moves to the payload in the next one.
        count = _bytes(self.width)
        missing = Signal(range(count + 1), init=count)
        payload = Signal(8 * count, reset_less=True)
        fetched = Signal()
        m.d.comb += [
            read_port.addr.eq(head[:bits]),
            read_port.en.eq((head != tail) & (missing != 0) & ~fetched),
            step.eq(fetched),
            self.o.valid.eq(missing == 0),
            self.o.payload.eq(payload),
        ]
        m.d.sync += fetched.eq(read_port.en)
        with m.If(fetched):
            m.d.sync += [
                payload.eq(Cat(payload[8:], read_port.data)),
                head.eq(head + 1),
                missing.eq(missing - 1),
            ]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += missing.eq(count)

        return m


class LinkOutput(wiring.Component):
    """Divides the payloads of one stream of the unit into bytes.

    It keeps these until they are acknowledged.

    Parameters
    ----------
    width : int
        Bits of a payload, which becomes whole bytes, least significant first.
    buffer : int, power of two
        Bytes that the buffer holds.
    text : bytes, optional
        The bytes to send, in place of a stream.

    Members
    -------
    acknowledge, reject : In(1)
        Set for a cycle when the other end has the bytes before ``position``, and when it lacks
        those from there on.
    position : In(16)
    tick : In(1)
        Bytes that two of these see unacknowledged are sent again.
    busy : In(1)
        Whether a frame of this stream is being sent.
    take : In(1)
        Set for a cycle in which ``byte`` is taken. The next byte is there two cycles later.
    more : Out(1)
        Whether there are bytes to send.
    wanted : Out(1)
        Whether a frame of them may begin.
    sent : Out(16)
        Position of ``byte``.
    byte : Out(8)
    i : In(stream.Signature(width))
    """

    def __init__(self, width, *, buffer, text=None):
        self.width = width
        self.buffer = buffer
        self.text = text
        members = {
            "acknowledge": In(1), "reject": In(1), "position": In(16), "tick": In(1),
            "busy": In(1), "take": In(1),
            "more": Out(1), "wanted": Out(1), "sent": Out(16), "byte": Out(8),
        }
        super().__init__(members if text else members | {"i": In(stream.Signature(width))})

    def elaborate(self, platform):
        m = Module()

        sent = self.sent
        # Positions of the first byte that is not acknowledged and of the end.
        acked = Signal(16)
        if self.text:
            tail = Const(len(self.text), 16)
            m.d.sync += self.byte.eq(Array(self.text)[sent[: (len(self.text) - 1).bit_length()]])
        else:
            tail = self._queue(m, acked)

        waiting = Signal(16)
        unsent = Signal(16)
        distance = Signal(16)
        known = Signal()
        answer = Signal()
        rewind = Signal()
        stale = Signal()
        behind = Signal()
        m.d.comb += [
            waiting.eq(tail - acked),
            unsent.eq(tail - sent),
            distance.eq(self.position - acked),
            answer.eq(self.acknowledge | self.reject),
            # An answer that was under way for long may be of bytes acknowledged since.
            known.eq(distance <= waiting),
            # An answer may come after its bytes have begun to be sent again.
            behind.eq(unsent > waiting),
            self.more.eq(unsent != 0),
            self.wanted.eq(self.more & ~self.busy & ~rewind & ~behind),
        ]
        with m.If(answer & known):
            m.d.sync += acked.eq(self.position)
        with m.If(self.take):
            m.d.sync += sent.eq(sent + 1)
        with m.Elif(~self.busy & (rewind | behind)):
            m.d.sync += [sent.eq(acked), rewind.eq(0)]
        with m.If(answer & known & (distance != 0) | (sent == acked)):
            m.d.sync += stale.eq(0)
        with m.Elif(self.tick):
            m.d.sync += stale.eq(~stale)
            with m.If(stale):
                m.d.sync += rewind.eq(1)
        with m.If(self.reject & known):
            m.d.sync += rewind.eq(1)

        return m

    def _queue(self, m, acked):
        """Fills the buffer from the stream; returns the position of its end."""
        bits = exact_log2(self.buffer)
        count = _bytes(self.width)
        m.submodules.memory = rows = memory.Memory(shape=8, depth=self.buffer, init=[])
        write_port = rows.write_port()
        read_port = rows.read_port()
        tail = Signal(16)
        left = Signal(range(count + 1))
        payload = Signal(8 * count, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(left == 0),
            write_port.addr.eq(tail[:bits]),
            write_port.data.eq(payload[:8]),
            write_port.en.eq((left != 0) & (Value.cast(tail - acked)[:16] != self.buffer)),
            read_port.addr.eq(self.sent[:bits]),
            self.byte.eq(read_port.data),
        ]
        with m.If(write_port.en):
            m.d.sync += [tail.eq(tail + 1), left.eq(left - 1), payload.eq(payload >> 8)]
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += [payload.eq(self.i.payload), left.eq(count)]
        return tail


class FrameSender(wiring.Component):
    """Sends frames for several channels in turn.

    Parameters
    ----------
    channels : int
    frame : int
        The most bytes of payload in a frame.

    Members
    -------
    enable : In(1)
        Whether frames may begin.
    wanted : In(channels)
        Which channels have something to send. A channel takes it back only when it is chosen.
    header : In(Header)
        Of the channel ``chosen``.
    extra : In(16)
        Two bytes behind the header.
    has_extra : In(1)
        Whether these are sent.
    has_payload : In(1)
        Whether bytes follow until ``more`` falls.
    byte : In(8)
    more : In(1)
    chosen : Out(range(channels))
    begin : Out(1)
        Set for a cycle in which the channel is chosen for a frame.
    busy : Out(1)
        Whether its frame is being sent.
    take : Out(1)
        Set for a cycle in which ``byte`` is taken.
    o : Out(stream.Signature(8))
    """

    def __init__(self, channels, *, frame):
        self.channels = channels
        self.frame = frame
        super().__init__({
            "enable": In(1), "wanted": In(channels),
            "header": In(Header),
            "extra": In(16), "has_extra": In(1),
            "has_payload": In(1), "byte": In(8), "more": In(1),
            # The last channel, which answers a reset, begins.
            "chosen": Out(range(channels), init=channels - 1),
            "begin": Out(1), "busy": Out(1), "take": Out(1),
            "o": Out(stream.Signature(8)),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.check = check = _crc.create()
        # Header and the two bytes behind it, later the CRC.
        bits = Signal(48, reset_less=True)
        left = Signal(range(7), reset_less=True)
        payload = Signal(reset_less=True)
        checked = Signal()
        room = Signal(range(self.frame + 1), reset_less=True)
        byte = Signal(8)
        sending = Signal()
        escaped = Signal()
        special = Signal()
        done = Signal()
        m.d.comb += [
            special.eq((byte == FLAG) | (byte == ESCAPE)),
            done.eq(sending & self.o.ready & (~special | escaped)),
            check.data.eq(byte),
            self.busy.eq(1),
        ]
        with m.If(sending):
            m.d.comb += [
                self.o.valid.eq(1),
                self.o.payload.eq(Mux(escaped, byte ^ FLIP, Mux(special, ESCAPE, byte))),
            ]
            with m.If(self.o.ready):
                m.d.sync += escaped.eq(special & ~escaped)
        with m.FSM():
            with m.State("CHOOSE"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += [
                    bits.eq(Cat(self.header, self.extra)),
                    left.eq(Mux(self.has_extra, 6, 4)),
                    payload.eq(self.has_payload),
                    room.eq(self.frame),
                    checked.eq(0),
                ]
                with m.If(self.wanted.bit_select(self.chosen, 1) & self.enable):
                    m.d.comb += self.begin.eq(1)
                    m.next = "OPEN"
                with m.Elif(self.chosen == self.channels - 1):
                    m.d.sync += self.chosen.eq(0)
                with m.Else():
                    m.d.sync += self.chosen.eq(self.chosen + 1)
            with m.State("OPEN"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(FLAG), check.start.eq(1)]
                with m.If(self.o.ready):
                    m.next = "BITS"
            with m.State("BITS"):
                m.d.comb += [sending.eq(1), byte.eq(bits[:8]), check.valid.eq(done & ~checked)]
                with m.If(done):
                    m.d.sync += [bits.eq(bits >> 8), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "CHECK"
                        with m.If(checked):
                            m.next = "CLOSE"
                        with m.Elif(payload):
                            m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "BYTE"
                with m.If(~self.more | (room == 0)):
                    m.next = "CHECK"
            with m.State("BYTE"):
                m.d.comb += [sending.eq(1), byte.eq(self.byte), check.valid.eq(done),
                             self.take.eq(done)]
                with m.If(done):
                    m.d.sync += room.eq(room - 1)
                    m.next = "FETCH"
            with m.State("CHECK"):
                m.d.sync += [bits.eq(check.crc), left.eq(CRC_BYTES), checked.eq(1)]
                m.next = "BITS"
            with m.State("CLOSE"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(FLAG)]
                with m.If(self.o.ready):
                    # The next channel has its turn.
                    m.d.sync += self.chosen.eq(
                        Mux(self.chosen == self.channels - 1, 0, self.chosen + 1))
                    m.next = "CHOOSE"

        return m


class UartLink(wiring.Component):
    """A unit behind a serial line.

    The streams have numbers: 0 is the identity, the unit's streams follow in the order of its
    ports. A frame of kind RESET resets the unit and all buffers and begins a session; frames of
    other sessions are ignored. Before the first one the line is silent.

    Parameters
    ----------
    unit : wiring.Component
        All its ports are streams. Only the ``sync`` domain is clocked.
    identity : bytes
        Stream 0, which tells the other end what it talks to.
    divisor : int, at least 4
        Cycles per bit of the line.
    buffer : int, power of two
        Bytes of the buffer of each stream.
    timeout : int
        Cycles after which bytes that are not acknowledged are sent again: once to twice as many.

    Members
    -------
    rx : In(1)
    tx : Out(1)

    Raises
    ------
    ValueError
        If a port of the unit is no stream, there are too many, or a parameter is out of range.
    """

    def __init__(self, unit, *, identity, divisor, buffer=512, timeout=1 << 20):
        self.streams = streams_of(unit)
        if type(buffer) is not int or buffer.bit_count() != 1 or not (
                LEAST_BUFFER <= buffer <= LARGEST_BUFFER):
            raise ValueError(f"Buffer must be a power of two within {LEAST_BUFFER} and "
                             f"{LARGEST_BUFFER}, not {buffer!r}")
        if not isinstance(identity, bytes) or not 0 < len(identity) <= 1024:
            raise ValueError(f"Identity must be 1 to 1024 bytes, not {identity!r}")
        if type(timeout) is not int or timeout < 1:
            raise ValueError(f"Timeout must be a positive integer, not {timeout!r}")
        self.unit = unit
        self.identity = identity
        self.divisor = divisor
        self.buffer = buffer
        self.timeout = timeout
        self.latency = unit.latency + 10 * divisor
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()

        m.submodules.uart_rx = uart_rx = UartReceiver(divisor=self.divisor)
        m.submodules.uart_tx = uart_tx = UartTransmitter(divisor=self.divisor)
        m.submodules.received = received = FrameReceiver()
        m.d.comb += [uart_rx.rx.eq(self.rx), self.tx.eq(uart_tx.tx)]
        wiring.connect(m, uart_rx.o, received.i)

        # A reset reaches all that follows; the answer goes out behind it.
        session = Signal(8)
        restart = Signal()
        ready = Signal()
        good = Signal()
        m.d.comb += good.eq(received.end & received.good)
        m.d.sync += restart.eq(good & (received.header.kind == Kind.RESET))
        with m.If(restart):
            m.d.sync += [session.eq(received.header.session), ready.eq(1)]
        own = Signal()
        m.d.comb += own.eq((received.header.session == session) & (session != 0))
        resets = ResetInserter(restart)
        m.submodules.unit = resets(self.unit)

        # The other end may ask again for what it missed when twice this time has passed.
        timer = Signal(range(self.timeout), init=self.timeout - 1)
        tick = Signal()
        m.d.comb += tick.eq(timer == 0)
        m.d.sync += timer.eq(Mux(tick, self.timeout - 1, timer - 1))

        # The last channel is that of READY; the others are the streams.
        count = 1 + len(self.streams)
        sender = FrameSender(count + 1, frame=self.buffer // 4)
        m.submodules.sender = resets(sender)
        m.d.comb += [uart_tx.i.valid.eq(sender.o.valid), uart_tx.i.payload.eq(sender.o.payload),
                     sender.o.ready.eq(uart_tx.i.ready),
                     sender.header.session.eq(session)]
        outputs = {0: LinkOutput(8, buffer=self.buffer, text=self.identity)}
        inputs = {}
        for number, (name, port) in enumerate(self.streams.items(), 1):
            end = getattr(self.unit, name)
            width = Shape.cast(port.signature.members["payload"].shape).width
            if port.flow == In:
                inputs[number] = part = LinkInput(width, buffer=self.buffer)
                m.d.comb += [end.valid.eq(part.o.valid), part.o.ready.eq(end.ready),
                             Value.cast(end.payload).eq(part.o.payload)]
            else:
                outputs[number] = part = LinkOutput(width, buffer=self.buffer)
                m.d.comb += [part.i.valid.eq(end.valid), part.i.payload.eq(end.payload)]
                if not port.signature.always_ready:
                    m.d.comb += end.ready.eq(part.i.ready)
        for number, part in (inputs | outputs).items():
            m.submodules[f"stream{number}"] = resets(part)
            mine = Signal(name=f"mine{number}")
            chosen = Signal(name=f"chosen{number}")
            m.d.comb += [
                mine.eq(own & (received.header.stream == number)),
                chosen.eq(sender.chosen == number),
                part.position.eq(received.header.position),
            ]
            (self._input if number in inputs else self._output)(
                m, number, part, received, sender, good, mine, chosen, restart)
        for part in outputs.values():
            m.d.comb += part.tick.eq(tick)

        with m.If(sender.chosen == count):
            m.d.comb += [
                sender.header.kind.eq(Kind.READY),
                sender.header.position.eq(PROTOCOL),
            ]
            with m.If(sender.begin):
                m.d.sync += ready.eq(0)
        # Nothing leaves before the first session.
        m.d.comb += [sender.wanted[count].eq(ready), sender.enable.eq(session != 0)]

        return m

    def _input(self, m, number, part, received, sender, good, mine, chosen, restart):
        """Gives a stream of the unit its frames, and its answers to the sender."""
        wanted = Signal(name=f"answer{number}")
        rejects = Signal(name=f"rejects{number}")
        frame = Signal(name=f"data{number}")
        m.d.comb += [
            frame.eq(mine & (received.header.kind == Kind.DATA)),
            part.start.eq(received.start & frame),
            part.write.eq(received.write & frame),
            part.byte.eq(received.byte),
            part.end.eq(received.end & frame),
            part.good.eq(good),
            sender.wanted[number].eq(wanted),
        ]
        with m.If(chosen):
            m.d.comb += [
                sender.header.stream.eq(number),
                sender.header.kind.eq(Mux(rejects, Kind.REJECT, Kind.ACK)),
                sender.header.position.eq(part.expected),
                sender.extra.eq(part.limit),
                sender.has_extra.eq(1),
            ]
            with m.If(sender.begin):
                m.d.sync += [wanted.eq(0), rejects.eq(0)]
        with m.If(part.acknowledge | restart):
            m.d.sync += wanted.eq(1)
        with m.If(part.reject):
            m.d.sync += rejects.eq(1)
        with m.If(restart):
            m.d.sync += rejects.eq(0)

    def _output(self, m, number, part, received, sender, good, mine, chosen, restart):
        """Gives a stream of the unit the answers to its frames, and its bytes to the sender."""
        m.d.comb += [
            part.acknowledge.eq(good & mine & (received.header.kind == Kind.ACK)),
            part.reject.eq(good & mine & (received.header.kind == Kind.REJECT)),
            part.busy.eq(chosen & sender.busy),
            part.take.eq(chosen & sender.take),
            sender.wanted[number].eq(part.wanted),
        ]
        with m.If(chosen):
            m.d.comb += [
                sender.header.stream.eq(number),
                sender.header.kind.eq(Kind.DATA),
                sender.header.position.eq(part.sent),
                sender.has_payload.eq(1),
                sender.byte.eq(part.byte),
                sender.more.eq(part.more),
            ]


def streams_of(unit):
    """The streams of a unit by name, in the order of its ports.

    Raises
    ------
    ValueError
        If a port is no stream, or there are more than frames can name.
    """
    members = dict(unit.signature.members)
    wrong = [name for name, member in members.items()
             if not member.is_signature or not isinstance(member.signature, stream.Signature)]
    if wrong:
        raise ValueError(f"Ports of {type(unit).__name__} must all be streams, and {wrong[0]} is "
                         "none")
    if not 0 < len(members) < MOST_STREAMS:
        raise ValueError(f"Streams must be 1 to {MOST_STREAMS - 1}, not {len(members)}")
    return members
