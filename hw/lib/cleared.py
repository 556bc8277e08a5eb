# SPDX-License-Identifier: BSD-2-Clause
"""Components that a signal empties, as their reset does."""

from amaranth import *
from amaranth.hdl import Fragment


class Cleared(Elaboratable):
    """A component that is as new behind each clock edge at which a signal is 1.

    The signal acts on those registers that have a reset, and like a synchronous reset also where
    Verilog is emitted with an asynchronous one. Memories and payload registers keep their contents
    (specification section 16.3). In Verilog each module below has an input with the signal's name.

    Parameters
    ----------
    component : wiring.Component
        It becomes part of the design through this; its ports are connected as ever.
    clear : Signal
        One bit, from registers of the domain sync.

    Raises
    ------
    TypeError
        If ``clear`` is not a signal of one bit.
    """

    def __init__(self, component, clear):
        if not isinstance(clear, Signal) or len(clear) != 1:
            raise TypeError(f"clear must be a Signal of one bit, not {clear!r}")
        self.component = component
        self.clear = clear

    def elaborate(self, platform):
        return ResetInserter(self.clear)(Fragment.get(self.component, platform))
