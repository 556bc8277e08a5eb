# SPDX-License-Identifier: BSD-2-Clause
"""Finds public functions without annotations, read from their sources."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Public functions of a module, and public methods and ``__init__`` of its public classes.

    Lambdas with a public name are among them, and so is what stands in an ``if`` or a ``try``.

    Returns
    -------
    iterator of (str, ast.FunctionDef, ast.AsyncFunctionDef or ast.Lambda)
        The names of methods are those of their classes, a dot and their own.
    """
    for name, node in _public(ast.parse(path.read_text(encoding="utf-8")).body):
        if not isinstance(node, ast.ClassDef):
            yield name, node
            continue
        for member, method in _public(node.body, "__init__"):
            if not isinstance(method, ast.ClassDef):
                yield f"{name}.{member}", method


def missing(path: Path) -> dict[str, list[str]]:
    """Public functions of a module that lack annotations.

    Returns
    -------
    dict of str to list of str
        By function, the parameters without an annotation, and "return" if the result has none.
    """
    found = ((name, _missing(function, "." in name)) for name, function in functions(path))
    return {name: names for name, names in found if names}


def _public(body: Iterable[ast.stmt], *besides: str,
            ) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Names and nodes of the public functions, lambdas and classes among statements."""
    for node in body:
        found: list[tuple[str, Function | ast.ClassDef]] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found = [(node.name, node)]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Lambda):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = [(target.id, node.value) for target in targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.If | ast.Try):
            blocks = [node.body, node.orelse, *(handler.body for handler in
                                                getattr(node, "handlers", ()))]
            for block in blocks:
                yield from _public(block, *besides)
        yield from ((name, value) for name, value in found
                    if not name.startswith("_") or name in besides)


def _missing(function: Function, method: bool) -> list[str]:
    given = function.args
    more, rest = ([given.vararg] if given.vararg else []), ([given.kwarg] if given.kwarg else [])
    parameters = [*given.posonlyargs, *given.args, *more, *given.kwonlyargs, *rest]
    static = any(isinstance(decorator, ast.Name) and decorator.id == "staticmethod"
                 for decorator in getattr(function, "decorator_list", ()))
    names = [parameter.arg for parameter in parameters[method and not static:]
             if parameter.annotation is None]
    return names if getattr(function, "returns", None) is not None else [*names, "return"]
