# SPDX-License-Identifier: BSD-2-Clause
"""What an integrator chooses about emitted Verilog."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a design meets the chip around it. The defaults are what all published figures are from.

    Attributes
    ----------
    reset : str
        "sync": registers with a reset take their reset value at a rising edge of the clock.
        "async": they take it as soon as the reset is active. Its end must be synchronous.
    level : str
        Level at which the reset is active, "high" or "low".
    sram : bool
        Whether memories are instances that macros can replace, see `hw.verilog.sram`.

    Raises
    ------
    ValueError
        If a choice is not offered.
    """

    reset: str = "sync"
    level: str = "high"
    sram: bool = False

    def __post_init__(self):
        for option, value, offered in (("--reset", self.reset, ("sync", "async")),
                                       ("--reset-level", self.level, ("high", "low"))):
            if value not in offered:
                raise ValueError(f"{option} must be one of {', '.join(offered)}, not {value!r}")

    @property
    def reset_port(self):
        """Name of the reset's port in every module."""
        return "rst" if self.level == "high" else "rst_n"

    @property
    def asynchronous(self):
        """Whether the reset acts without a clock edge."""
        return self.reset == "async"

    @property
    def about(self):
        """Lines for the head of a file; none for the default."""
        if self.reset_port == "rst" and not self.asynchronous:
            return []
        edge = ("asynchronous; its end must be synchronous to clk" if self.asynchronous
                else "synchronous to clk")
        return [f"Reset {self.reset_port}: active {self.level}, {edge}"]


DEFAULT = Style()
