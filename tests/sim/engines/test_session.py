# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""A simulation that goes on from run to run."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sim import Deadlock, ProtocolError, SimulationError
from sim.engines import build
from sim.engines.session import Session

pytestmark = pytest.mark.skipif(not build.compiler(), reason="needs a C++ compiler")


class Total(wiring.Component):
    """Gives the sum of all bytes since reset: for each odd byte once, for 255 three times."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(16))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        total, left = Signal(16), Signal(2)
        m.d.comb += [self.i.ready.eq(left == 0), self.o.valid.eq(left != 0),
                     self.o.payload.eq(total)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [total.eq(total + self.i.payload), left.eq(self.i.payload[0])]
            with m.If(self.i.payload == 255):
                m.d.sync += left.eq(3)
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += left.eq(left - 1)

        return m


def given(session, values, count):
    rows = np.array(values, np.uint32).reshape(-1, 1)
    return session.run({"i": rows}, {"o": count}, patience=20)["o"][:, 0].tolist()


@pytest.fixture(scope="module")
def component():
    return Total()


def test_a_session_goes_on(component):
    with Session(component, "cxxrtl") as session:
        assert given(session, [1, 3], 2) == [1, 4]
        # A byte in, its sum out, twice.
        assert session.cycles == 4
        assert given(session, [2, 5], 1) == [11]
        # The even one goes in at once.
        assert session.cycles == 3
        session.restart()
        assert given(session, [7], 1) == [7]
        assert session.cycles == 2


def test_payloads_that_were_not_taken_stay(component):
    with Session(component, "cxxrtl") as session:
        assert given(session, [1, 3, 5], 1) == [1]
        assert session.left("i") == 2
        with pytest.raises(ValueError, match="^i must have taken its payloads, not 1 of 3$"):
            given(session, [7], 1)
        assert session.run({}, {"o": 2})["o"][:, 0].tolist() == [4, 9]


def test_too_much_comes_out_in_the_next_run(component):
    with Session(component, "cxxrtl") as session:
        given(session, [255], 1)
        with pytest.raises(ProtocolError, match="^o sent more than 0 payloads$"):
            session.run({}, {"o": 0})


def test_nothing_comes(component):
    with Session(component, "cxxrtl") as session:
        with pytest.raises(Deadlock, match="No transfer for 20 cycles: i took 1 of 1 .*"
                                           "o gave 0 of 1"):
            given(session, [2], 1)


def test_no_compiler(component, monkeypatch):
    monkeypatch.setattr(build, "compiler", lambda: None)
    with pytest.raises(SimulationError, match="^no C\\+\\+ compiler: "):
        Session(Total())
