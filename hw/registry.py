"""The units of the project: the one list that generation, synthesis and co-simulation read."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .top1 import Top1


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit of the project.

    Attributes
    ----------
    component : callable
        Component class; ``component(**parameters)`` builds it.
    summary : str
        What the unit does, in one line.
    parameters : dict of str to tuple
        Every parameter with the values that are offered, the default first.
    """

    component: Callable
    summary: str
    parameters: dict[str, tuple] = field(default_factory=dict)


UNITS = {
    "top1": Unit(
        component=Top1,
        summary="Lane of the largest FP4 code of a subgroup",
        parameters={"lanes": (8, 2, 4, 16, 32)},
    ),
}
