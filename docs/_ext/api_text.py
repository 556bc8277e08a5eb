# SPDX-License-Identifier: BSD-2-Clause
"""The reference of a package: what it gives out, and then what is left in each of its modules.

Docstrings are plain text with literals. ``2**(x - 127)``, ``|G|`` and ``name_`` mean themselves,
which reStructuredText would take for emphasis, a substitution and a reference; so they are escaped.
"""

import importlib
import pkgutil
import re

_LITERAL = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|`[^`]+`)")


def escape(line):
    """A line of a docstring with everything escaped that is not literal."""
    parts = _LITERAL.split(line)
    return "".join(part if n % 2 else re.sub(r"(\*|\||(?<=\w)_(?!\w))", r"\\\1", part)
                   for n, part in enumerate(parts))


def escape_all(lines):
    """Escapes a docstring's lines in place, but for indented blocks behind ``::``."""
    literal = False
    for n, line in enumerate(lines):
        indented = line.startswith(" ") or not line.strip()
        literal = literal and indented
        if not literal:
            lines[n] = escape(line)
        literal = literal or (line.rstrip().endswith("::") and not line.startswith(".. "))


def markdown(package):
    """The directives that describe a package and its modules, as Markdown."""
    module = importlib.import_module(package)
    given = getattr(module, "__all__", ())
    outer = importlib.import_module(package.rpartition(".")[0]) if "." in package else None
    # What the package around gives out is described there.
    above = set(given) & set(getattr(outer, "__all__", ()))
    # And what belongs to another package, there.
    above |= {name for name in given
              if not getattr(getattr(module, name), "__module__", package).startswith(package)}
    lines = _automodule(package, above)
    if outer is None:
        return "\n".join(lines)
    for info in pkgutil.iter_modules(module.__path__):
        if info.name.startswith("_"):
            continue
        name = f"{package}.{info.name}"
        inner = importlib.import_module(name)
        left = [key for key, value in vars(inner).items() if not key.startswith("_")
                and key not in given and getattr(value, "__module__", None) == name]
        if left:
            # A heading that is no section: sections would come before what is above them. A fence
            # of backticks would have no backticks behind it.
            lines += ["", f"~~~{{rubric}} `{name}`", ":heading-level: 2", "~~~", "",
                      *_automodule(name, {*given, *above})]
    return "\n".join(lines)


def _automodule(name, without):
    options = [f"   :exclude-members: {', '.join(sorted(without))}"] if without else []
    return ["```{eval-rst}", f".. automodule:: {name}", "   :members:", *options, "```"]
