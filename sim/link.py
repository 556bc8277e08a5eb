# SPDX-License-Identifier: BSD-2-Clause
"""The host's end of a serial link to a unit: frames, and what makes them reliable.

Nothing here reads or writes: `Link` takes the bytes that came and returns those to send, so that a
serial port, a simulation and a test can be the line. `docs/boards.md` describes the frames.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hw.bus.uart_link import CRC_BYTES, ESCAPE, FLAG, FLIP, PROTOCOL, Kind

_ESCAPED = {byte: bytes([ESCAPE, byte ^ FLIP]) for byte in (FLAG, ESCAPE)}
_SHORTEST = 4 + CRC_BYTES


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame on the line.

    Attributes
    ----------
    kind : hw.bus.uart_link.Kind
    stream : int
        Number of a stream, 0 to 31.
    session : int
        1 to 255.
    position : int
        Position in the stream modulo 65,536.
    payload : bytes
    """

    kind: Any
    stream: int = 0
    session: int
    position: int = 0
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """Bytes of a frame on the line, with the flags around it."""
    body = struct.pack("<BBH", frame.kind.value << 5 | frame.stream, frame.session,
                       frame.position) + frame.payload
    body += struct.pack("<I", zlib.crc32(body))
    return bytes([FLAG]) + b"".join(_ESCAPED.get(byte, bytes([byte])) for byte in body) + bytes(
        [FLAG])


class Decoder:
    """Finds frames among the bytes of a line and drops those that are not whole.

    Attributes
    ----------
    dropped : int
        Pieces between flags that were no frame.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._body = bytearray()
        self._escaped = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that end in these bytes."""
        for byte in data:
            if byte == FLAG:
                if frame := self._end():
                    yield frame
            elif byte == ESCAPE:
                self._escaped = True
            else:
                self._body.append(byte ^ FLIP if self._escaped else byte)
                self._escaped = False

    def _end(self):
        body, whole = bytes(self._body), not self._escaped
        self._body.clear()
        self._escaped = False
        if not body and whole:
            return None
        if whole and len(body) >= _SHORTEST:
            *_, check = struct.unpack(f"<{len(body) - CRC_BYTES}sI", body)
            kind, stream = body[0] >> 5, body[0] & 31
            if check == zlib.crc32(body[:-CRC_BYTES]) and kind in _KINDS:
                return Frame(kind=Kind(kind), stream=stream, session=body[1],
                             position=int.from_bytes(body[2:4], "little"),
                             payload=body[4:-CRC_BYTES])
        self.dropped += 1
        return None


_KINDS = {kind.value for kind in Kind.__members__.values()}


class ProtocolVersionError(Exception):
    """The device speaks another version of the protocol."""


class _Out:
    """Bytes to the device on one stream."""

    def __init__(self):
        self.data = bytearray()
        # Positions since the start of the session: first byte without an answer, next byte to
        # send, and the end of the room that the device has told of.
        self.acked = self.sent = self.limit = 0
        self.base = 0
        self.deadline = None

    @property
    def end(self):
        return self.base + len(self.data)

    def cut(self, start, count):
        start -= self.base
        return bytes(self.data[start : start + count])

    def answered(self, position, limit):
        distance = (position - self.acked) % 65536
        if distance > self.end - self.acked:
            return 0
        self.acked += distance
        room = (limit - position) % 65536
        self.limit = max(self.limit, self.acked + room)
        self.sent = max(self.sent, self.acked)
        # What the device has is not kept; cutting often would copy often.
        if self.acked - self.base >= 1 << 16:
            del self.data[: self.acked - self.base]
            self.base = self.acked
        return distance


class _In:
    """Bytes from the device on one stream."""

    def __init__(self):
        self.data = bytearray()
        self.expected = 0
        self.answer = None
        self.rejected = False

    def take(self, frame):
        gap = (frame.position - self.expected) % 65536
        if 0 < gap < 32768:
            if not self.rejected:
                self.answer = Kind.REJECT
            self.rejected = True
            return 0
        known = -gap % 65536
        new = frame.payload[known:]
        self.data += new
        self.expected += len(new)
        self.rejected = self.rejected and not new
        self.answer = self.answer if self.rejected and self.answer else Kind.ACK
        return len(new)


class Link:
    """One session with a device.

    Parameters
    ----------
    session : int
        1 to 255; another one than that of the program before, or its late frames are taken for
        this one's.
    timeout : float
        Time after which bytes without an answer are sent again, in the unit of ``now``.
    frame : int
        The most bytes of payload in a frame.
    ahead : int
        The most bytes of frames that `poll` returns at once.

    Attributes
    ----------
    ready : bool
        Whether the device has answered the reset.
    repeated : int
        Bytes of payload that were sent again.
    new, taken : int
        Bytes of streams that came from the device, and that the device has acknowledged.
    """

    def __init__(self, session: int, *, timeout: float, frame: int = 128,
                 ahead: int = 4096) -> None:
        if not 1 <= session <= 255:
            raise ValueError(f"session must be within 1 and 255, not {session!r}")
        self.session = session
        self.timeout = timeout
        self.frame = frame
        self.ahead = ahead
        self.ready = False
        self.repeated = self.new = self.taken = 0
        self._decoder = Decoder()
        self._deadline: float | None = None
        self._outs: dict[int, _Out] = {}
        self._ins: dict[int, _In] = {}

    @property
    def dropped(self) -> int:
        """Pieces between flags that were no frame."""
        return self._decoder.dropped

    def send(self, stream: int, data: bytes) -> None:
        """Puts bytes into the queue of a stream to the device."""
        self._outs.setdefault(stream, _Out()).data.extend(data)

    def received(self, stream: int) -> bytearray:
        """All bytes that came on a stream; what the caller deletes of it is gone."""
        return self._ins.setdefault(stream, _In()).data

    def acknowledged(self, stream: int) -> int:
        """Bytes of a stream that the device has."""
        return self._outs[stream].acked if stream in self._outs else 0

    def receive(self, data: bytes, now: float) -> None:
        """Takes the bytes that came from the line.

        Raises
        ------
        ProtocolVersionError
            If the device has another version of the protocol.
        """
        for frame in self._decoder.feed(data):
            if frame.session != self.session:
                continue
            if frame.kind == Kind.READY:
                if frame.position != PROTOCOL:
                    raise ProtocolVersionError(f"the device speaks version {frame.position} of "
                                               f"the protocol, not {PROTOCOL}")
                self.ready = True
            elif not self.ready:
                continue
            elif frame.kind == Kind.DATA:
                self.new += self._ins.setdefault(frame.stream, _In()).take(frame)
            elif frame.kind in (Kind.ACK, Kind.REJECT) and len(frame.payload) == 2:
                self._answered(frame, now)

    def _answered(self, frame, now):
        out = self._outs.setdefault(frame.stream, _Out())
        if count := out.answered(frame.position, int.from_bytes(frame.payload, "little")):
            self.taken += count
            out.deadline = now + self.timeout
        if frame.kind == Kind.REJECT:
            self._rewind(out)

    def _rewind(self, out):
        self.repeated += out.sent - out.acked
        out.sent = out.acked

    def poll(self, now: float) -> bytes:
        """Bytes to send now: the reset until it is answered, then answers and data."""
        if not self.ready:
            if self._deadline is not None and now < self._deadline:
                return b""
            self._deadline = now + self.timeout
            return encode(Frame(kind=Kind.RESET, session=self.session))
        answers = [encode(self._answer(number, end)) for number, end in self._ins.items()
                   if end.answer]
        frames, size = [], 0
        waiting = True
        while waiting and size < self.ahead:
            waiting = False
            for number, out in self._outs.items():
                if frame := self._data(number, out, now):
                    frames.append(encode(frame))
                    size += len(frames[-1])
                    waiting = True
        return b"".join(answers + frames)

    def _answer(self, number, end):
        kind, end.answer = end.answer, None
        return Frame(kind=kind, stream=number, session=self.session,
                     position=end.expected % 65536)

    def _data(self, number, out, now):
        """The next frame of a stream, or None."""
        if out.acked == out.end:
            out.deadline = None
            return None
        late = out.deadline is not None and now >= out.deadline
        if late:
            self._rewind(out)
        count = min(self.frame, out.end - out.sent, out.limit - out.sent)
        if out.deadline is None or late:
            out.deadline = now + self.timeout
        # While answers are to come, a small room is left to grow. A frame without payload asks for
        # the limit, which may have been lost.
        small = count < min(self.frame, out.end - out.sent) and out.sent > out.acked
        if (count <= 0 or small) and not late:
            return None
        count = max(0, count)
        frame = Frame(kind=Kind.DATA, stream=number, session=self.session,
                      position=out.sent % 65536, payload=out.cut(out.sent, count))
        out.sent += count
        return frame
