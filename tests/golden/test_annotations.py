# SPDX-License-Identifier: BSD-2-Clause
"""Every public function, method and class of the golden model is annotated."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import golden

PACKAGES = ("golden.checkpoint", "golden.codec", "golden.formats", "golden.models", "golden.units")


def modules():
    yield importlib.import_module("golden.command")
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield package
        for found in pkgutil.iter_modules(package.__path__):
            yield importlib.import_module(f"{name}.{found.name}")


def functions(module):
    """Public functions that a module defines, and methods of its public classes, by name."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield f"{module.__name__}.{name}", value
        elif inspect.isclass(value):
            # A dataclass's fields are annotated, or they would be none; its __init__ is theirs.
            made = dataclasses.is_dataclass(value)
            for member, method in vars(value).items():
                if member.startswith("_") and (member != "__init__" or made):
                    continue
                method = method.fget if isinstance(method, property) else method
                method = getattr(method, "__func__", method)
                if inspect.isfunction(method):
                    yield f"{module.__name__}.{name}.{member}", method


def missing(function):
    """Parameters of a function that have no annotation, and "return"."""
    signature = inspect.signature(inspect.unwrap(function))
    names = [name for name, parameter in signature.parameters.items()
             if parameter.annotation is inspect.Parameter.empty and name not in ("self", "cls")]
    if signature.return_annotation is inspect.Signature.empty:
        names.append("return")
    return names


FUNCTIONS = {name: function for module in modules() for name, function in functions(module)}


def test_all_are_seen():
    assert len(FUNCTIONS) > 150
    assert {"golden.command.run", "golden.codec.quantized.Quantized.pack",
            "golden.codec.quantized.Quantized.unpack", "golden.models.pretrained.smollm2",
            "golden.formats.format.Format.bits_per_element", "golden.models.accuracy.main",
            "golden.checkpoint.safetensors.Reader.__init__"} <= set(FUNCTIONS)


def test_public_functions_are_annotated():
    found = {name: names for name, function in FUNCTIONS.items() if (names := missing(function))}
    assert found == {}


@pytest.mark.parametrize("name", golden.__all__)
def test_exports_are_annotated(name):
    value = getattr(golden, name)
    function = value.unpack if inspect.isclass(value) else value
    assert missing(function) == []


def test_missing_annotations_are_found():
    def function(self, a: int, b, *c, d=1) -> int:
        return a

    def nothing(a: int):
        return a

    assert missing(function) == ["b", "c", "d"]
    assert missing(nothing) == ["return"]
