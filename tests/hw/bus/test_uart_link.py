# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""A unit behind a serial line, at the pins: nothing is lost, repeated or reordered."""

import numpy as np
import pytest
from amaranth import ResetInserter, Shape, Signal

from hw.bus.uart_link import (
    FrameReceiver,
    FrameSender,
    Header,
    Kind,
    LinkInput,
    LinkOutput,
    UartLink,
)
from hw.units import Top1
from sim.engines.amaranth import Simulated
from sim.link import Decoder, Frame, Link, encode
from tests.support.serial_line import Levels, Pair, converse

DIVISOR = 4
IDENTITY = b"Pair ~}\n"


def board(**options):
    return UartLink(Pair(), identity=IDENTITY, divisor=DIVISOR,
                    **{"buffer": 32, "timeout": 2500} | options)


def data_for(seed, count):
    """Payloads of both streams; many bytes are the marks of frames."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 1 << 20, count)
    wide[: count // 2] = 0x7E7D7
    return wide, rng.choice(np.array([0x7E, 0x7D, 0x5E, 0x00, 0x31], np.uint8), count)


def exchange(unit, *, count, noise, seed, sessions=(5,), limit=200_000,
             timeout=2500):
    """Sends payloads in each of some sessions, all but the last of which are cut short."""
    wide, small = data_for(seed, count)
    sent = b"".join(int(word).to_bytes(3, "little") for word in wide)
    sessions = [*sessions]
    link = None

    def host(came, now):
        nonlocal link
        if link is None or (sessions and len(link.received(3)) > 6):
            link = Link(sessions.pop(0), timeout=timeout, frame=8, ahead=8)
            link.send(1, sent)
            link.send(2, small.tobytes())
        link.receive(came, now)
        if not sessions and len(link.received(3)) >= 3 * count and len(
                link.received(4)) >= count and len(link.received(0)) >= len(IDENTITY):
            return None
        return link.poll(now)

    _, hits = converse(unit, host, divisor=DIVISOR, noise=noise, seed=seed, limit=limit)
    got = bytes(link.received(3))
    words = [int.from_bytes(got[n : n + 3], "little") for n in range(0, len(got), 3)]
    assert words == (wide ^ 0x5A5A5).tolist()
    assert bytes(link.received(4)) == (small ^ 0x7E).tobytes()
    assert bytes(link.received(0)) == IDENTITY
    return link, hits


@pytest.mark.long
def test_nothing_is_lost_without_noise():
    link, _ = exchange(board(timeout=6000), count=14, noise=0, seed=0, timeout=6000)
    assert (link.repeated, link.dropped) == (0, 0)


@pytest.mark.long
def test_nothing_is_lost_with_noise():
    link, hits = exchange(board(), count=4, noise=0.04, seed=3)
    assert hits > 2 and link.repeated > 0


@pytest.mark.long
@pytest.mark.parametrize("seed, noise", [(0, 0.003), (1, 0.01), (2, 0.03)])
def test_nothing_is_lost_with_more_noise(seed, noise):
    _, hits = exchange(board(), count=40, noise=noise, seed=seed, limit=200_000)
    assert hits > 0


@pytest.mark.long
@pytest.mark.parametrize("noise", [0, 0.01])
def test_a_new_session_begins_anew(noise):
    """The unit and the buffers are full of another session's data."""
    exchange(board(), count=25, noise=noise, seed=3, sessions=(5, 6, 7), limit=200_000)


def answers(*stages, wait=3200):
    """Frames with which a board answers stages of frames or bytes, each with a wait behind it."""
    decoder, found, left = Decoder(), [], 0
    stages = [*stages]

    def host(came, now):
        nonlocal left
        found.extend(decoder.feed(came))
        left -= 20
        if left > 0:
            return b""
        if not stages:
            return None
        left = wait
        return b"".join(f if isinstance(f, bytes) else encode(f) for f in stages.pop(0))

    converse(board(timeout=1 << 20), host, divisor=DIVISOR, limit=100_000)
    return found


RESET = bytes.fromhex("7e 60 09 00 00 90 13 b3 15 7e")
"""A RESET of session 9, as `docs/boards.md` has it."""


def test_frames_are_those_of_the_page():
    assert encode(Frame(kind=Kind.RESET, session=9)) == RESET
    # The check of CRC catalogues: that of 123456789 is cbf43926.
    nine = Frame(kind=Kind.ACK, stream=17, session=0x32, position=0x3433, payload=b"56789")
    assert encode(nine) == b"\x7e123456789\x26\x39\xf4\xcb\x7e"


def test_reset_ready_identity_and_a_damaged_frame():
    damaged = bytearray(encode(Frame(kind=Kind.DATA, stream=2, session=9, payload=b"ab")))
    damaged[5] ^= 1
    ready, *others = answers([RESET, bytes(damaged)])
    assert ready == Frame(kind=Kind.READY, session=9, position=1)
    identity = [f for f in others if f.kind == Kind.DATA]
    assert {f.stream for f in identity} == {0} and identity[0].payload == IDENTITY
    rooms = {f.stream: f.payload for f in others if f.kind == Kind.ACK}
    # A buffer of 32 bytes takes 28, and a CRC.
    assert rooms == {1: b"\x1c\x00", 2: b"\x1c\x00"}
    assert not any(f.position or f.stream == 4 for f in others)


@pytest.mark.long
def test_silent_before_a_reset_and_to_other_sessions():
    data = Frame(kind=Kind.DATA, stream=2, session=9, payload=b"abc")
    assert answers([data, b"\x7e\x7e\x60", b"\x00" * 9]) == []
    other = Frame(kind=Kind.DATA, stream=2, session=8, payload=b"abc")
    assert all(f.stream != 4 for f in answers([RESET, other]))


@pytest.mark.long
def test_gaps_are_rejected_once_and_copies_ignored():
    def data(position, payload):
        return Frame(kind=Kind.DATA, stream=2, session=9, position=position, payload=payload)

    found = answers([RESET, data(0, b"ab"), data(0, b"ab"), data(4, b"ef"), data(6, b"gh"),
                     data(2, b"cd")], wait=5000)
    assert [f.position for f in found if f.kind == Kind.REJECT] == [2]
    came = b"".join(f.payload for f in found if f.stream == 4 and f.kind == Kind.DATA)
    assert bytes(byte ^ 0x7E for byte in came) == b"abcd"
    assert [f.position for f in found if f.stream == 2][-1] == 4


@pytest.mark.long
def test_a_reset_empties_the_unit():
    def data(session, position, payload):
        return Frame(kind=Kind.DATA, stream=2, session=session, position=position, payload=payload)

    # Nobody acknowledges the 36 bytes: 32 wait in the buffer behind the unit, one in the unit.
    found = answers([RESET, data(9, 0, bytes(28)), data(9, 28, bytes(8))],
                    [Frame(kind=Kind.RESET, session=10), data(10, 0, b"xyz")])
    assert max(f.position for f in found if f.stream == 2 and f.session == 9) == 36
    came = b"".join(f.payload for f in found if f.stream == 4 and f.session == 10)
    assert bytes(byte ^ 0x7E for byte in came) == b"xyz"


@pytest.mark.long
def test_no_more_than_there_is_room_for():
    """A frame beyond the limit is dropped as a whole."""
    long = Frame(kind=Kind.DATA, stream=2, session=9, payload=bytes(60))
    found = answers([RESET, long], wait=5000)
    assert [f.position for f in found if f.stream == 2 and f.kind != Kind.DATA][-1] == 0
    assert not [f for f in found if f.stream == 4]


@pytest.mark.parametrize("position", [5, 0x4000, 0x8000, 0xFFFF])
def test_answers_of_bytes_that_never_were_are_ignored(position):
    unit, seen = LinkOutput(8, buffer=32), []

    async def bench(ctx):
        ctx.set(unit.i.valid, 1)
        taken = 0
        while taken < 4:
            _, _, ready = await ctx.tick().sample(unit.i.ready)
            taken += ready
        ctx.set(unit.i.valid, 0)
        await ctx.tick().repeat(3)
        ctx.set(unit.position, position)
        ctx.set(unit.acknowledge, 1)
        await ctx.tick()
        ctx.set(unit.acknowledge, 0)
        # What is sent again begins at the first byte that was not acknowledged: here nothing was.
        for tick in (0, 1, 1, 0):
            ctx.set(unit.tick, tick)
            await ctx.tick()
            seen.append((ctx.get(unit.wanted), ctx.get(unit.sent)))

    Simulated(unit).run(bench)
    assert seen == [(1, 0)] * 4


@pytest.mark.parametrize("frame", [
    Frame(kind=Kind.REJECT, stream=21, session=0xAA, position=0x5555, payload=b"\x01\x80"),
    Frame(kind=Kind.ACK, stream=31, session=0xFF, position=0xFFFF, payload=b"\xfe\x7f"),
    Frame(kind=Kind.READY, stream=10, session=0x55, position=0xAAAA)])
def test_frames_carry_every_bit(frame):
    sender, came = FrameSender(2, frame=8), bytearray()
    bare = frame.payload == b""

    async def bench(ctx):
        ctx.set(sender.header, {"stream": frame.stream, "kind": frame.kind,
                                "session": frame.session, "position": frame.position})
        ctx.set(sender.extra, int.from_bytes(frame.payload, "little"))
        ctx.set(sender.has_extra, not bare)
        ctx.set(sender.wanted, 0b10)
        ctx.set(sender.enable, 1)
        ctx.set(sender.o.ready, 1)
        for _ in range(40):
            _, _, begin, valid, byte = await ctx.tick().sample(
                sender.begin, sender.o.valid, sender.o.payload)
            if begin:
                ctx.set(sender.wanted, 0)
            if valid:
                came.append(byte)

    Simulated(sender).run(bench)
    assert bytes(came) == encode(frame)


def test_a_reset_of_the_board_ends_the_session():
    """The line is silent behind it, however much was to be sent."""
    reset = Signal()
    unit = board()
    again = Simulated(ResetInserter(reset)(unit))
    came = [b"", b""]

    async def bench(ctx):
        levels = Levels(DIVISOR)
        for level in [1] * 8 + levels.encode(RESET) + [1] * 200:
            ctx.set(unit.rx, level)
            came[0] += levels.decode(ctx.get(unit.tx))
            await ctx.tick()
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        levels = Levels(DIVISOR)
        for _ in range(400):
            came[1] += levels.decode(ctx.get(unit.tx))
            await ctx.tick()

    again.run(bench)
    assert came[0] and not came[1]


def test_flags_are_bits():
    widths = {(type(part).__name__, name): Shape.cast(member.shape).width
              for part in (FrameReceiver(), LinkInput(20, buffer=32), LinkOutput(20, buffer=32),
                           FrameSender(3, frame=8))
              for name, member in part.signature.members.items() if not member.is_signature}
    wide = {("FrameReceiver", "header"): 32, ("FrameReceiver", "byte"): 8,
            ("LinkInput", "byte"): 8, ("LinkInput", "position"): 16,
            ("LinkInput", "expected"): 16, ("LinkInput", "limit"): 16,
            ("LinkOutput", "position"): 16, ("LinkOutput", "sent"): 16, ("LinkOutput", "byte"): 8,
            ("FrameSender", "wanted"): 3, ("FrameSender", "header"): 32,
            ("FrameSender", "extra"): 16, ("FrameSender", "byte"): 8, ("FrameSender", "chosen"): 2}
    assert widths == dict.fromkeys(widths, 1) | wide
    assert Header.size == 32


@pytest.mark.parametrize("options, text", [
    ({"buffer": 48}, "Buffer must be a power of two within 32 and 32768, not 48"),
    ({"buffer": 16}, "Buffer must be .*, not 16"),
    ({"timeout": 0}, "Timeout must be a positive integer, not 0"),
    ({"identity": b""}, "Identity must be 1 to 1024 bytes, not b''"),
    ({"unit": Top1()}, "Ports of Top1 must all be streams, and codes is none")])
def test_wrong_parameters(options, text):
    given = {"unit": Pair(), "identity": b"x", "divisor": 4} | options
    with pytest.raises(ValueError, match=text):
        UartLink(given.pop("unit"), **given)
