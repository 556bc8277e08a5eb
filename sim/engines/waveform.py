# SPDX-License-Identifier: BSD-2-Clause
"""Waveforms of Amaranth's simulator, in a form that people read.

The simulator writes femtoseconds, calls every component "top", and gives a submodule's ports names
with a number in the scope above, too, such as ``value$51``. This file's writer changes the header
and the times on their way to the file.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from amaranth.lib import wiring
from amaranth.sim import Simulator
from vcd.gtkw import GTKWSave

from golden.output import replacing

_END = "$enddefinitions $end"
_NUMBERED = re.compile(r"\$\d+(?![\w$])")
_PER_STEP = 1000


def save_file(path: Path) -> Path:
    """The file beside a waveform in which GTKWave finds the signals to show."""
    return path.with_suffix(".gtkw")


def scope(component: wiring.Component) -> str:
    """Name of a component's scope: that of its class, as units are named."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_",
                   type(component).__name__)
    return words.lower()


@contextmanager
def written(simulator: Simulator, component: wiring.Component, path: Path) -> Iterator[None]:
    """Writes the waveform of what is simulated meanwhile, and the file of `save_file`.

    Both are whole or absent. When the simulation fails, the waveform ends there.

    Parameters
    ----------
    simulator : Simulator
    component : wiring.Component
        The one that it simulates. All times must be multiples of a picosecond.
    path : Path

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    name = scope(component)
    failed = None
    with replacing(path, save_file(path), sync=False) as files:
        wave, save = (TextIOWrapper(file, encoding="utf-8", newline="\n", write_through=True)
                      for file in files)
        readable = _Readable(wave, name)
        try:
            with simulator.write_vcd(readable):
                yield
        except OSError:
            raise
        except Exception as error:
            # Whoever looks for the reason of a failure needs the waveform up to there.
            failed = error
        _save(GTKWSave(save), path, name, readable.signals, component)
        for text in wave, save:
            text.detach()
    if failed:
        raise failed


class _Readable:
    """A text file as the VCD writer needs it.

    Parameters
    ----------
    file : text file
    name : str
        Of the scope of the component.

    Attributes
    ----------
    signals : list of str
        Names in the scope of the component, with their ranges of bits.
    """

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._name = name
        self._header: list[str] | None = []
        self.signals: list[str] = []

    def write(self, text: str) -> int:
        """Writes text, which ends between two lines unless it is of the header."""
        if self._header is not None:
            self._header.append(text)
            if _END not in text:
                return len(text)
            header, end, rest = "".join(self._header).partition(_END)
            self._header = None
            self._file.write(self._readable(header) + end + _shortened(rest))
        else:
            self._file.write(_shortened(text))
        return len(text)

    def seekable(self) -> bool:
        """The writer does not go back."""
        return False

    def flush(self) -> None:
        """Flushes the file."""
        self._file.flush()

    def _readable(self, header):
        lines = header.replace("$timescale 1 fs $end", "$timescale 1 ps $end").splitlines()
        depth, kept, scopes, variables = 0, [], _scopes(lines), _variables(lines)
        for line in lines:
            words = line.split()
            match words[:1]:
                case ["$scope"]:
                    depth += 1
                    name = self._name if depth == 2 and words[2] == "top" else next(scopes)
                    line = f"$scope {words[1]} {name} $end"
                case ["$upscope"]:
                    depth -= 1
                case ["$var"]:
                    if (name := next(variables)) is None:
                        continue
                    line = " ".join((*words[:4], name, "$end"))
                    if depth == 2:
                        bits = int(words[2])
                        self.signals.append(name + f"[{bits - 1}:0]" * (bits > 1))
            kept.append(line)
        return "\n".join(kept) + "\n" * header.endswith("\n")


def _variables(lines: list[str]) -> Iterator[str | None]:
    """Names of all signals; None for a submodule's port in the scope around it.

    Amaranth also lists such ports in the scope around, and gives numbers to all but the first
    signal of a name there, which may be the port of a submodule.
    """
    path: tuple[str, ...] = ()
    found = []
    places: dict[str, set[tuple[str, ...]]] = {}
    for words in map(str.split, lines):
        match words[:1]:
            case ["$scope"]:
                path = *path, words[2]
            case ["$upscope"]:
                path = path[:-1]
            case ["$var"]:
                found.append((path, words[3], words[4]))
                places.setdefault(words[3], set()).add(path)
    groups: dict[tuple[tuple[str, ...], str], list[tuple[bool, str]]] = {}
    for path, key, name in found:
        below = any(len(other) > len(path) and other[: len(path)] == path for other in places[key])
        groups.setdefault((path, _NUMBERED.sub("", name)), []).append((below, name))
    for path, _, name in found:
        plain = _NUMBERED.sub("", name)
        group = groups[path, plain]
        own = [other for below, other in group if not below] or [
            other for _, other in group if other == plain]
        if name not in own:
            yield None
        else:
            yield plain if plain not in own and name == own[0] else name


def _scopes(lines: list[str]) -> Iterator[str]:
    """Names of all scopes but "top", without numbers where no scope beside has that name.

    Amaranth numbers a submodule whose name is that of a signal, too.
    """
    names: dict[tuple[str, ...], dict[str, None]] = {}
    opened: list[tuple[str, ...]] = []
    path: tuple[str, ...] = ()
    for words in map(str.split, lines):
        if words[:1] == ["$scope"]:
            names.setdefault(path, {})[words[2]] = None
            path = *path, words[2]
            opened.append(path)
        elif words[:1] == ["$upscope"]:
            path = path[:-1]
    for *outer, own in opened:
        beside = names[tuple(outer)]
        plain = _NUMBERED.sub("", own)
        alike = [other for other in beside if _NUMBERED.sub("", other) == plain]
        if (len(outer), own) != (1, "top"):
            yield plain if alike == [own] else own


def _shortened(text: str) -> str:
    """Times in femtoseconds in picoseconds."""
    return re.sub(r"^#(\d+)$", lambda time: f"#{int(time[1]) // _PER_STEP}", text, flags=re.M)


def _save(save: Any, path: Path, name: str, signals: list[str],
          component: wiring.Component) -> None:
    """Shows clock, reset and the ports; the fields of a payload in a group that is closed."""
    save.dumpfile(str(path))
    save.treeopen(f"bench.{name}.")

    def add(port):
        own = [signal for signal in signals
               if re.fullmatch(rf"\\?{re.escape(port)}(\[\d+:0\]|[.\[].*)?", signal)]
        for signal in own[:1]:
            save.trace(f"bench.{name}.{signal}")
        if own[1:]:
            with save.group(f"{port} fields", closed=True):
                for signal in own[1:]:
                    save.trace(f"bench.{name}.{signal}")

    for port in ("clk", "rst"):
        add(port)
    for port, member in component.signature.members.items():
        if member.is_signature:
            with save.group(port):
                for path_of, _, _ in member.signature.flatten(getattr(component, port)):
                    add("__".join((port, *map(str, path_of))))
        else:
            add(port)
