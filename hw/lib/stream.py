# SPDX-License-Identifier: BSD-2-Clause
"""Handshakes between streams: links, forks, joins and chains (specification section 16).

`link`, `fork`, `join` and `gate` connect handshakes only; their caller connects the payloads. They
are combinational. A transfer happens on all of their streams in the same cycle or on none, so
nothing is lost, repeated or reordered. A stream is anything with a ``valid`` and a ``ready``.
"""

from functools import reduce
from operator import and_

from amaranth.lib import wiring
from amaranth.lib.wiring import Out

Handshake = wiring.Signature({"valid": Out(1), "ready": wiring.In(1)})
"""A stream without a payload."""


def link(m, source, sink):
    """Gives each transfer of one stream to another stream.

    Parameters
    ----------
    m : Module
    source : stream, taken from
    sink : stream, given to
    """
    m.d.comb += [sink.valid.eq(source.valid), source.ready.eq(sink.ready)]


def fork(m, source, sinks):
    """Gives each transfer of one stream to several streams at once.

    ``valid`` of a sink depends on ``ready`` of the other sinks, so ``ready`` of at most one of
    them may depend on its ``valid``.

    Parameters
    ----------
    m : Module
    source : stream, taken from
    sinks : sequence of streams, at least two, given to
    """
    m.d.comb += source.ready.eq(_all(sink.ready for sink in sinks))
    for sink in sinks:
        others = (other.ready for other in sinks if other is not sink)
        m.d.comb += sink.valid.eq(source.valid & _all(others))


def join(m, sources, sink):
    """Takes one transfer of each of several streams as one transfer of another stream.

    ``ready`` of a source depends on ``valid`` of the other sources, so ``valid`` of none of them
    may depend on its ``ready``.

    Parameters
    ----------
    m : Module
    sources : sequence of streams, at least two, taken from
    sink : stream, given to
    """
    m.d.comb += sink.valid.eq(_all(source.valid for source in sources))
    for source in sources:
        others = (other.valid for other in sources if other is not source)
        m.d.comb += source.ready.eq(sink.ready & _all(others))


def gate(m, source, sink, when):
    """Connects two streams while a condition holds, and stalls both otherwise.

    Parameters
    ----------
    m : Module
    source : stream, taken from
    sink : stream, given to
    when : Value
        One bit. Once it is 1 it stays 1 until the transfer, or ``valid`` of the sink would fall.
    """
    m.d.comb += [
        sink.valid.eq(source.valid & when),
        source.ready.eq(sink.ready & when),
    ]


def chain(m, parts, *, name):
    """Connects components in a row, from each one's ``o`` to the next one's ``i``.

    Parameters
    ----------
    m : Module
    parts : sequence of components
        They become submodules ``name0``, ``name1`` and so on. ``i`` of the first and ``o`` of the
        last are left to the caller.
    name : str
    """
    for number, part in enumerate(parts):
        m.submodules[f"{name}{number}"] = part
        if number:
            wiring.connect(m, parts[number - 1].o, part.i)


def _all(bits):
    return reduce(and_, bits)
