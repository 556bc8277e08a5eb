# SPDX-License-Identifier: BSD-2-Clause
"""Sphinx extension: the reference of a package, from its docstrings.

``{api} PACKAGE`` describes what the package gives out, under the package's name, and then what is
left in each of its modules.

Docstrings are plain text with literals. ``2**(x - 127)``, ``|G|`` and ``name_`` mean themselves,
which reStructuredText would take for emphasis, a substitution and a reference; so they are escaped.
A name in single backticks is a link wherever this site describes exactly one thing of that name.
"""

import importlib
import pkgutil
import re

from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

_LITERAL = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|`[^`]+`)")


def escape(line):
    """A line of a docstring with everything escaped that is not literal."""
    parts = _LITERAL.split(line)
    return "".join(part if n % 2 else re.sub(r"(\*|\||(?<=\w)_(?!\w))", r"\\\1", part)
                   for n, part in enumerate(parts))


def process(app, what, name, thing, options, lines):
    """Escapes a docstring, line by line, but for indented blocks behind ``::``."""
    literal = False
    for n, line in enumerate(lines):
        indented = line.startswith(" ") or not line.strip()
        literal = literal and indented
        if not literal:
            lines[n] = escape(line)
        literal = literal or (line.rstrip().endswith("::") and not line.startswith(".. "))


def resolve(app, env, node, contnode):
    """Finds a name without its module, if only one thing has it."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    objects = env.domains["py"].objects
    target = node["reftarget"]
    matches = [name for name in objects if name == target or name.endswith(f".{target}")]
    # Of a thing that two packages give out, the one with the shortest name.
    matches.sort(key=lambda name: (name.count("."), name))
    if not matches or (len(matches) > 1 and matches[0].count(".") == matches[1].count(".")):
        return None
    entry = objects[matches[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode,
                        matches[0])


def markdown(package):
    """The directives that describe a package and its modules, as Markdown."""
    module = importlib.import_module(package)
    given = getattr(module, "__all__", ())
    outer = importlib.import_module(package.rpartition(".")[0]) if "." in package else None
    # What the package around gives out is described there.
    above = set(given) & set(getattr(outer, "__all__", ()))
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
            lines += ["", f"## `{name}`", "", *_automodule(name, {*given, *above})]
    return "\n".join(lines)


def _automodule(name, without):
    options = [f"   :exclude-members: {', '.join(sorted(without))}"] if without else []
    return ["```{eval-rst}", f".. automodule:: {name}", "   :members:", *options, "```"]


class Api(SphinxDirective):
    required_arguments = 1

    def run(self):
        return self.parse_text_to_nodes(markdown(self.arguments[0]), allow_section_headings=True)


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("api", Api)
    # Before napoleon, whose own markup stays.
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
