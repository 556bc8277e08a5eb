# SPDX-License-Identifier: BSD-2-Clause
"""Which files of the project import which, read from their sources."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("benchmarks", "golden", "hw", "sim")


def _file(module):
    """File of a module or package of the project, or None."""
    path = ROOT.joinpath(*module.split("."))
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in found if file.is_file()), None)


@cache
def imports(path):
    """Modules of the project that a file imports, also inside functions.

    Returns
    -------
    frozenset of str
        Dotted names, with those of the packages on the way.
    """
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *filter(None, [node.module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(".".join(parts[: end + 1]) for parts in (name.split(".") for name in names)
                     for end in range(len(parts))
                     if parts[0] in PACKAGES and _file(".".join(parts[: end + 1])))


def reached(path):
    """Files of the project that a file imports, directly or not, and the file itself."""
    files, pending = set(), [path]
    while pending:
        if (file := pending.pop()) not in files:
            files.add(file)
            pending += [_file(module) for module in imports(file)]
    return files
