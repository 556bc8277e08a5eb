# SPDX-License-Identifier: BSD-2-Clause
"""Finds public functions without annotations, read from their sources."""

import ast
from collections.abc import Iterator
from pathlib import Path


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Public functions of a module, and public methods and ``__init__`` of its public classes.

    Returns
    -------
    iterator of (str, ast.FunctionDef)
        The names of methods are those of their classes, a dot and their own.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _public(node.name):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and _public(node.name):
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and (
                        _public(method.name) or method.name == "__init__"):
                    yield f"{node.name}.{method.name}", method


def missing(path: Path) -> list[str]:
    """Public functions of a module that lack an annotation of a parameter or of the result."""
    return [name for name, function in functions(path) if not _annotated(name, function)]


def _public(name):
    return not name.startswith("_")


def _annotated(name, function):
    given = function.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs,
                  *filter(None, (given.vararg, given.kwarg))]
    static = any(isinstance(decorator, ast.Name) and decorator.id == "staticmethod"
                 for decorator in function.decorator_list)
    if "." in name and not static:
        parameters = parameters[1:]
    return function.returns is not None and all(p.annotation is not None for p in parameters)
