# SPDX-License-Identifier: BSD-2-Clause
"""Building blocks of the units: arithmetic, pipelines, streams, buffers, number formats."""

from .buffer import Bank, Buffer
from .cleared import Cleared
from .formats import PlainRecord, Record
from .pipeline import Control, Register, Stages
from .skid_buffer import SkidBuffer
from .stream import Handshake, chain, fork, gate, join, link
from .stream_queue import StreamQueue
from .stream_register import StreamRegister

__all__ = [
    "Bank",
    "Buffer",
    "Cleared",
    "Control",
    "Handshake",
    "PlainRecord",
    "Record",
    "Register",
    "SkidBuffer",
    "Stages",
    "StreamQueue",
    "StreamRegister",
    "chain",
    "fork",
    "gate",
    "join",
    "link",
]
