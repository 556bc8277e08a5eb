# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""What a board tells the host about itself: stream 0 of the link."""

import dataclasses
import json
from typing import Any

from amaranth.lib import wiring

from ..accelerator.config import Config
from ..bus.uart_link import UartLink
from ..registry import UNITS, build
from ..tools.errors import ToolError
from ..verilog.emit import versions

END = b"\n"
"""Ends the identity; no JSON of one line contains it."""


def settings(parameters: dict[str, Any]) -> list[str]:
    """Settings that give a unit these parameters, as `hw.registry.parameters` takes them."""
    found = []
    for name, value in parameters.items():
        if isinstance(value, Config):
            # As TOML and command lines write them.
            plain = {None: "none", True: "true", False: "false"}
            found += [f"{name}.{field}={given if type(given) is int else plain.get(given, given)}"
                      for field, given in dataclasses.asdict(value).items()]
        else:
            found.append(f"{name}={value}")
    return found


def encode(name: str, words: list[str], *, buffer: int) -> bytes:
    """The identity of a unit with these settings, behind buffers of so many bytes."""
    text = json.dumps({"unit": name, "set": words, "buffer": buffer,
                       "version": versions()["m2xfp-rtl"]}, separators=(",", ":"))
    return text.encode() + END


def decode(identity: bytes) -> dict[str, Any]:
    """What `encode` was given, and the version of the project, from the identity's bytes.

    Raises
    ------
    ToolError
        If that is no identity of a unit which this version offers.
    """
    try:
        found = json.loads(identity)
        words = [str(word) for word in found["set"]]
        build(found["unit"], words)
        return {"unit": found["unit"], "set": words, "buffer": int(found["buffer"]),
                "version": str(found["version"])}
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ToolError(f"the board is none that this version can drive: it says "
                        f"{bytes(identity)[:200]!r} ({error})") from None


def link(name: str, parameters: dict[str, Any], *, divisor: int, buffer: int,
         timeout: int) -> UartLink:
    """A unit behind a serial line, which tells the host what it is.

    Parameters
    ----------
    name : str
        In `UNITS`.
    parameters : dict of str to object
        From `hw.registry.parameters`.
    divisor, buffer, timeout : int
        As `UartLink` takes them.

    Raises
    ------
    ValueError
        If a port of the unit is no stream.
    """
    unit: wiring.Component = UNITS[name].component(**parameters)
    try:
        return UartLink(unit, identity=encode(name, settings(parameters), buffer=buffer),
                        divisor=divisor, buffer=buffer, timeout=timeout)
    except ValueError as error:
        raise ValueError(f"{name} cannot go behind a serial line: {error}") from None
