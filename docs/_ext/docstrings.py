# SPDX-License-Identifier: BSD-2-Clause
"""Docstrings are plain text with literals: what else reStructuredText would read is escaped.

``2**(x - 127)``, ``|G|`` and ``name_`` mean themselves in a docstring of this project, which
reStructuredText takes for emphasis, a substitution and a reference.
"""

import re

_LITERAL = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|`[^`]+`)")


def escape(line):
    """A line of a docstring with everything escaped that is not literal."""
    parts = _LITERAL.split(line)
    return "".join(part if n % 2 else re.sub(r"(\*|\||(?<=\w)_(?!\w))", r"\\\1", part)
                   for n, part in enumerate(parts))


def _process(app, what, name, thing, options, lines):
    literal = False
    for n, line in enumerate(lines):
        indented = line.startswith(" ") or not line.strip()
        literal = literal and indented
        if not literal:
            lines[n] = escape(line)
        literal = literal or (line.rstrip().endswith("::") and not line.startswith(".. "))


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    # Before napoleon, whose own markup stays.
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
