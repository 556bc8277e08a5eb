# SPDX-License-Identifier: BSD-2-Clause
"""The host's end of a serial link."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.bus.uart_link import FLAG, Kind
from sim.link import Decoder, Frame, Link, ProtocolVersionError, encode

FRAMES = st.builds(Frame, kind=st.sampled_from(Kind), stream=st.integers(0, 31),
                   session=st.integers(1, 255), position=st.integers(0, 65535),
                   payload=st.binary(max_size=40))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(FRAMES, st.binary(max_size=20)), max_size=5))
def test_frames_are_found_behind_noise(pieces):
    line = b"".join(noise + bytes([FLAG]) + encode(frame) for frame, noise in pieces)
    assert [*Decoder().feed(line)] == [frame for frame, _ in pieces]


@settings(max_examples=30, deadline=None)
@given(FRAMES, st.data())
def test_a_spoiled_frame_is_dropped(frame, data):
    line = bytearray(encode(frame))
    place = data.draw(st.integers(1, len(line) - 2))
    kind = data.draw(st.sampled_from(["damaged", "lost", "doubled"]))
    if kind == "damaged":
        line[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "lost":
        del line[place]
    else:
        line.insert(place, line[place])
    # What is doubled may be an escape, which means no more than once.
    found = [*Decoder().feed(bytes(line))]
    assert found in ([], [frame]) and (found == [] or kind == "doubled")


def link(**options):
    made = Link(3, timeout=10, frame=16, **options)
    made.receive(encode(Frame(kind=Kind.READY, session=3, position=1)), 0)
    return made


def frames(data):
    return [*Decoder().feed(data)]


def ack(position, limit, kind=Kind.ACK, stream=1, session=3):
    return encode(Frame(kind=kind, stream=stream, session=session, position=position,
                        payload=limit.to_bytes(2, "little")))


def test_reset_is_sent_until_there_is_an_answer():
    made = Link(3, timeout=10)
    made.send(1, b"abc")
    assert [f.kind for f in frames(made.poll(0) + made.poll(9) + made.poll(10))] == [Kind.RESET] * 2
    # Not by an answer of another session.
    made.receive(encode(Frame(kind=Kind.READY, session=4, position=1)), 11)
    assert not made.ready
    with pytest.raises(ProtocolVersionError, match="version 2 of the protocol, not 1"):
        made.receive(encode(Frame(kind=Kind.READY, session=3, position=2)), 12)


def test_data_wait_for_room_and_are_sent_again():
    made = link()
    made.send(1, bytes(range(40)))
    assert frames(made.poll(0)) == []
    made.receive(ack(0, 28), 1)
    sent = frames(made.poll(1))
    assert [(f.position, len(f.payload)) for f in sent] == [(0, 16)]
    made.receive(ack(16, 44), 2)
    assert [(f.position, len(f.payload)) for f in frames(made.poll(2))] == [(16, 16), (32, 8)]
    assert frames(made.poll(11)) == []
    assert [f.position for f in frames(made.poll(12))] == [16, 32] and made.repeated == 24
    made.receive(ack(32, 60, Kind.REJECT), 13)
    assert [(f.position, f.payload) for f in frames(made.poll(13))] == [(32, bytes(range(32, 40)))]
    made.receive(ack(40, 60), 14)
    assert made.acknowledged(1) == 40 and frames(made.poll(100)) == []


def test_a_lost_limit_is_asked_for():
    made = link()
    made.send(1, b"abc")
    assert frames(made.poll(0)) == []
    asked, = frames(made.poll(10))
    assert (asked.kind, asked.payload) == (Kind.DATA, b"")


def test_positions_wrap():
    made = link(ahead=1)
    given_bytes = bytes(n * 7 & 255 for n in range(70_000))
    made.send(1, given_bytes)
    got = b""
    while len(got) < len(given_bytes):
        made.receive(ack(len(got) % 65536, (len(got) + 60) % 65536), 0)
        for f in frames(made.poll(0)):
            assert f.position == len(got) % 65536
            got += f.payload
    assert got == given_bytes


def test_received_data():
    made = link()

    def data(position, payload):
        made.receive(encode(Frame(kind=Kind.DATA, stream=2, session=3, position=position,
                                  payload=payload)), 0)
        return [(f.kind, f.position) for f in frames(made.poll(0))]

    assert data(0, b"ab") == [(Kind.ACK, 2)]
    assert data(4, b"ef") == [(Kind.REJECT, 2)]
    assert data(6, b"gh") == []
    # A frame that was cut otherwise brings what is new.
    assert data(0, b"abcd") == [(Kind.ACK, 4)]
    assert data(0, b"ab") == [(Kind.ACK, 4)]
    assert bytes(made.received(2)) == b"abcd"


@pytest.mark.parametrize("session", [0, 256])
def test_session(session):
    with pytest.raises(ValueError, match=f"session must be within 1 and 255, not {session}"):
        Link(session, timeout=1)
