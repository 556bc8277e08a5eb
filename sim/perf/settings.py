# SPDX-License-Identifier: BSD-2-Clause
"""Settings from TOML files, each with its range; what is wrong is told in one line."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Number:
    """A number and its range.

    Attributes
    ----------
    low, high : float
        Both allowed.
    whole : bool
        Whether it is an integer.
    """

    low: float
    high: float
    whole: bool = False

    def check(self, name: str, value: Any) -> Any:
        """The value; a ValueError names the field and the range if it is another."""
        kinds = (int,) if self.whole else (int, float)
        if type(value) not in kinds or not self.low <= value <= self.high:
            kind = "an integer" if self.whole else "a number"
            raise ValueError(f"{name} must be {kind} within {self.low:g} and {self.high:g}, "
                             f"not {value!r}")
        return value


@dataclass(frozen=True)
class Choice:
    """One of several values, such as words or true and false."""

    offered: tuple[Any, ...]

    def check(self, name: str, value: Any) -> Any:
        """The value; a ValueError names the field and what is offered if it is another."""
        if not any(type(value) is type(one) and value == one for one in self.offered):
            words = ", ".join(str(one).lower() if isinstance(one, bool) else str(one)
                              for one in self.offered)
            raise ValueError(f"{name} must be one of {words}, not {value!r}")
        return value


@dataclass(frozen=True)
class Text:
    """Any text that is not empty."""

    def check(self, name: str, value: Any) -> Any:
        """The value; a ValueError names the field if it is no text."""
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} must be a text, not {value!r}")
        return value


Ranges = Mapping[str, "Number | Choice | Text | Ranges"]


def packaged(name: str) -> dict[str, Any]:
    """A TOML file of this package's data, by its name without the ending."""
    return tomllib.loads(resources.files(__package__).joinpath("data", f"{name}.toml")
                         .read_text(encoding="utf-8"))


def read(path: Path, option: str) -> dict[str, Any]:
    """A TOML file.

    Parameters
    ----------
    path : Path
    option : str
        Named in errors.

    Raises
    ------
    ValueError
        If it is not TOML, with the line.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{option} must be a TOML file, not {path}: {error}") from None


def checked(given: Mapping[str, Any], ranges: Ranges, where: str = "") -> dict[str, Any]:
    """The same settings if every field is known and in its range.

    Parameters
    ----------
    given : mapping
        Tables are nested mappings.
    ranges : mapping
        Of the same shape.
    where : str
        Name of the table, with a point behind it.

    Raises
    ------
    ValueError
        In one line, with the field's name and its range.
    """
    for name, value in given.items():
        if name not in ranges:
            raise ValueError(f"{where}{name} must be one of {', '.join(ranges)}")
        known = ranges[name]
        if isinstance(known, Mapping):
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}{name} must be a table, not {value!r}")
            checked(value, known, f"{where}{name}.")
        else:
            known.check(where + name, value)
    return dict(given)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of ``over`` in place of the ones of ``base``, table by table."""
    both = {**base, **over}
    for name, value in base.items():
        if isinstance(value, Mapping) and isinstance(over.get(name), Mapping):
            both[name] = merged(value, over[name])
    return both
