# SPDX-License-Identifier: BSD-2-Clause
"""The boards: those that were tried by name, and every other one of ``amaranth-boards``."""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from ..tools.errors import ToolError


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board, and what goes onto it by default.

    Attributes
    ----------
    name : str
        On the command line.
    module, platform : str
        Module of ``amaranth_boards`` and class in it.
    unit : str
    set : tuple of str
        Settings of the unit.
    pins : tuple of str
        Connector, its number, receiving and transmitting pin of a serial adapter, for a board
        without a UART of its own.
    """

    name: str
    module: str
    platform: str
    unit: str = "accelerator"
    set: Sequence[str] = ("config=lite",)
    pins: Sequence[str] = ()


_SMALL: dict[str, Any] = {"unit": "quantization_engine", "set": ("input=bfloat16", "depth=3")}

BOARDS = {board.name: board for board in (
    Board(name="ulx3s", module="ulx3s", platform="ULX3S_85F_Platform"),
    Board(name="ecpix5", module="ecpix5", platform="ECPIX585Platform"),
    # Its USB socket goes straight to the FPGA. A serial adapter takes the pins that the Feather
    # form has for a UART: 0 receives, 1 transmits.
    Board(name="orangecrab", module="orangecrab_r0_2", platform="OrangeCrabR0_2_85FPlatform",
          pins=("io", "0", "0", "1")),
    Board(name="versa", module="versa_ecp5", platform="VersaECP5Platform"),
    Board(name="icebreaker", module="icebreaker", platform="ICEBreakerPlatform", **_SMALL),
    Board(name="icesugar", module="icesugar", platform="ICESugarPlatform", **_SMALL),
)}
"""Boards with a name of their own."""

FAMILIES = {"LatticeECP5Platform": "ecp5", "LatticePlatform": "ecp5",
            "LatticeICE40Platform": "ice40", "SiliconBluePlatform": "ice40"}
"""Families of FPGAs that can be built for, by the platform's class in Amaranth."""


def check() -> None:
    """Raises ToolError unless ``amaranth-boards`` is installed."""
    if not find_spec("amaranth_boards"):
        raise ToolError("boards need amaranth-boards: pip install 'm2xfp-rtl[boards]'")


@cache
def others() -> dict[str, Board]:
    """Every platform of ``amaranth_boards`` by the name of its class.

    Raises
    ------
    ToolError
        If the package is not installed.
    """
    check()
    import amaranth_boards
    from amaranth.build import Platform
    found = {}
    for info in pkgutil.iter_modules(amaranth_boards.__path__):
        if info.ispkg:
            continue
        module = importlib.import_module(f"amaranth_boards.{info.name}")
        for name, value in vars(module).items():
            if (isinstance(value, type) and issubclass(value, Platform)
                    and value.__module__ == module.__name__ and not name.startswith("_")):
                unit = {} if family_of(value) == "ecp5" else _SMALL
                found[name] = Board(name=name, module=info.name, platform=name, **unit)
    return found


def family_of(platform: type) -> str | None:
    """The family of a platform's FPGA, ``ecp5`` or ``ice40``, or None for any other."""
    kinds = {base.__name__ for base in platform.__mro__}
    found = next((family for kind, family in FAMILIES.items() if kind in kinds), None)
    if found == "ecp5" and not getattr(platform, "device", "").startswith("LFE5"):
        return None
    return found


def board(name: str) -> Board:
    """A board by its name: one of `BOARDS`, or the class of a platform.

    Raises
    ------
    ValueError
        If there is none.
    ToolError
        As `others` raises it.
    """
    check()
    if name in BOARDS:
        return BOARDS[name]
    if name not in others():
        raise ValueError(f"BOARD must be one of {', '.join(BOARDS)}, or a class of "
                         f"amaranth-boards that --list shows, not {name!r}")
    return others()[name]


def platform_class(board: Board) -> Any:
    """The class of a board's platform in ``amaranth_boards``."""
    module = importlib.import_module(f"amaranth_boards.{board.module}")
    return getattr(module, board.platform)


def platform(board: Board) -> Any:
    """A board's platform, with its UART.

    Raises
    ------
    ToolError
        If the board's FPGA is of a family that cannot be built for, or has no UART, or no clock
        of known frequency.
    """
    from amaranth.build import Attrs, ResourceError
    from amaranth_boards.resources import UARTResource
    kind = platform_class(board)
    if family_of(kind) is None:
        raise ToolError(f"{board.name} has a {getattr(kind, 'device', 'device')}: only boards with "
                        "ECP5 or iCE40 can be built, as their tools come from pip")
    made = kind()
    if board.pins:
        connector, number, rx, tx = board.pins
        made.add_resources([UARTResource(0, rx=rx, tx=tx, conn=(connector, int(number)),
                                         attrs=Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP"))])
    try:
        made.lookup("uart")
    except ResourceError:
        raise ToolError(f"{board.name} has no UART in amaranth-boards") from None
    try:
        known = made.default_clk_frequency
    except (AttributeError, ResourceError):
        known = None
    if not known:
        raise ToolError(f"{board.name} has no clock of known frequency in amaranth-boards")
    return made


def listing() -> str:
    """The boards, with device, UART, and what goes onto them."""
    named = {(b.module, b.platform) for b in BOARDS.values()}
    lines = ["Boards with a name, and the unit that they get:"]
    lines += [f"  {b.name:<12}{platform_class(b).device:<14}{b.unit} {' '.join(b.set)}"
              for b in map(board, BOARDS)]
    lines.append("Others of amaranth-boards with ECP5 or iCE40 and a UART:")
    for name, other in others().items():
        if (other.module, name) not in named and family_of(platform_class(other)):
            try:
                platform(other)
            except ToolError:
                continue
            lines.append(f"  {name:<34}{platform_class(other).device}")
    return "\n".join(lines)
