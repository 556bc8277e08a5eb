# SPDX-License-Identifier: BSD-2-Clause
"""What the tools expect of a component."""

from typing import Any

from amaranth.lib import wiring


def check(component: Any) -> None:
    """Checks that a component can be simulated and described.

    Parameters
    ----------
    component : wiring.Component
        With ``latency``, the number of its cycles.

    Raises
    ------
    TypeError
        If it is not a component, such as the class in place of an instance, or if its latency is
        missing or no integer.
    ValueError
        If its latency is negative.
    """
    if isinstance(component, type):
        raise TypeError(f"component must be an instance, not the class {component.__name__}")
    if not isinstance(component, wiring.Component):
        raise TypeError(f"component must be a wiring.Component, not {component!r}")
    latency = getattr(component, "latency", None)
    if not isinstance(latency, int) or isinstance(latency, bool):
        raise TypeError(f"{type(component).__name__} must have the attribute latency, its number "
                        f"of cycles, 0 if it is combinational, not {latency!r}")
    if latency < 0:
        raise ValueError(f"latency of {type(component).__name__} must be at least 0, not {latency}")
