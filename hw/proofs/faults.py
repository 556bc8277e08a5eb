# SPDX-License-Identifier: BSD-2-Clause
"""Faults that a proof must find."""

import importlib
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """A fault in the source of a component.

    Attributes
    ----------
    module : str
        Such as ``hw.lib.top1_select``.
    before : str
        Text that its source has exactly once.
    after : str
        What stands there in its place.
    """

    module: str
    before: str
    after: str

    def __str__(self) -> str:
        name = self.module.rpartition(".")[2]
        return f"{name}: {_short(self.before)} -> {_short(self.after)}"

    @contextmanager
    def present(self) -> Iterator[None]:
        """Puts the fault into the loaded module, and takes it out again.

        The code of its functions is exchanged, so that everyone who has them already gets the
        faulty ones. What a module computes when it is loaded stays as it is.

        Raises
        ------
        ValueError
            If the source has ``before`` not once, or no function changes.
        """
        module = importlib.import_module(self.module)
        path = Path(str(module.__file__))
        source = path.read_text(encoding="utf-8")
        if source.count(self.before) != 1:
            raise ValueError(f"{self.module} must have {self.before!r} once, "
                             f"not {source.count(self.before)} times")
        faulty = types.ModuleType(module.__name__)
        faulty.__file__, faulty.__package__ = module.__file__, module.__package__
        exec(compile(source.replace(self.before, self.after), str(path), "exec"), faulty.__dict__)
        changed = [(old, old.__code__, new) for old, new in _pairs(module, faulty)
                   if old.__code__ != new]
        if not changed:
            raise ValueError(f"{self.module}: no function has {self.before!r}")
        for function, _, new in changed:
            function.__code__ = new
        try:
            yield
        finally:
            for function, old, _ in changed:
                function.__code__ = old


def _short(text):
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pairs(module, faulty):
    """The functions of a module and of its classes, each with the code of its counterpart."""
    for name, value in vars(module).items():
        other = vars(faulty).get(name)
        if getattr(value, "__module__", None) != module.__name__ or other is None:
            continue
        if isinstance(value, types.FunctionType):
            yield value, other.__code__
        elif isinstance(value, type):
            yield from _methods(value, other)


def _methods(kind, other):
    for name, value in vars(kind).items():
        counterpart = vars(other).get(name)
        if isinstance(value, property | classmethod | staticmethod):
            value = getattr(value, "fget", None) or getattr(value, "__func__", None)
            counterpart = (getattr(counterpart, "fget", None)
                           or getattr(counterpart, "__func__", None))
        if isinstance(value, types.FunctionType) and counterpart is not None:
            yield value, counterpart.__code__
