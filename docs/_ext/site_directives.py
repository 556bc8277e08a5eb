# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Sphinx extension: what the pages show of the units, the commands and the packages.

Directives for Markdown pages::

    {unit-summary} NAME        what it does, latency and rate, where its code is
    {unit-parameters} NAME     parameters with defaults and offered values
    {unit-ports} NAME          ports with the fields of their payloads
    {unit-blocks} NAME         block diagram; the content is that of `unit_blocks`
    {unit-timing} NAME         timing diagram, recorded while the unit is simulated
    {unit-verification} NAME   reference, stimuli, tests and proofs
    {unit-figures} NAME        area and timing, from docs/figures.json
    {unit-table} KIND          units, figures, registers or configurations: of all
    {sign-off} KIND            stages, holes and the rest of `sign_off.KINDS`
    {command} MODULE [NAME]    a command, and its subcommands
    {api} PACKAGE              a package and its modules

In docstrings a name in single backticks is a link wherever this site describes exactly one thing of
that name.

A unit of the registry without a page ends the build.
"""

import inspect
import re
from pathlib import Path

import api_text
import command_text
import sign_off
import unit_blocks
import unit_tables
import unit_waves
from amaranth.lib import wiring
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from hw import registry

SMALLEST = 0.62
"""Part of its own width to which a picture shrinks; on narrower pages it scrolls."""


class _Table(SphinxDirective):
    """Markdown that a function of `unit_tables` makes."""

    required_arguments = 1
    make = None

    def run(self):
        return self.parse_text_to_nodes(self.markdown(self.arguments[0]))

    def markdown(self, name):
        if name not in unit_tables.OFFERED:
            raise self.error(f"Unit must be one of {', '.join(unit_tables.OFFERED)}, not {name!r}")
        return type(self).make(name)


class Parameters(_Table):
    make = staticmethod(unit_tables.parameters)


class Ports(_Table):
    make = staticmethod(unit_tables.ports)


class Figures(_Table):
    make = staticmethod(unit_tables.figures)


class Verification(_Table):
    make = staticmethod(unit_tables.verification)


class Summary(_Table):
    @staticmethod
    def make(name):
        unit = unit_tables.OFFERED[name]
        path = Path(inspect.getsourcefile(unit.component)).relative_to(unit_tables.ROOT)
        package = ".".join(path.parts[:2])
        return "\n".join([
            f"**{unit.summary}.**", "", unit_tables.latency(name), "",
            f"Code: `{path}`, {{py:class}}`{package}.{unit.component.__name__}`. Verilog: "
            f"`python -m hw.generate {name}`."])


class Whole(_Table):
    """A table that is of no single unit."""

    kinds = {"units": unit_tables.units, "figures": unit_tables.all_figures,
             "registers": unit_tables.registers, "configurations": unit_tables.configurations}

    def markdown(self, name):
        if name not in self.kinds:
            raise self.error(f"Table must be one of {', '.join(self.kinds)}, not {name!r}")
        return self.kinds[name]()


class SignOff(_Table):
    """A table or list of `sign_off`."""

    def markdown(self, name):
        if name not in sign_off.KINDS:
            raise self.error(f"Kind must be one of {', '.join(sign_off.KINDS)}, not {name!r}")
        return sign_off.KINDS[name]()


class _Picture(SphinxDirective):
    """An SVG that scrolls where it is wider than the page."""

    required_arguments = 1

    def picture(self, svg, kind, caption):
        # It shrinks with the page, but stays legible.
        width = float(re.search(r'\bwidth="([\d.]+)', svg)[1])
        svg = svg.replace("<svg ", f'<svg style="min-width: {SMALLEST * width:.0f}px" ', 1)
        figure = nodes.container(classes=["picture", kind])
        figure += nodes.raw("", svg, format="html")
        figure += nodes.raw("", caption, format="latex text man")
        return figure


class Blocks(_Picture):
    has_content = True
    option_spec = {"set": directives.unchanged}

    def run(self):
        name = self.arguments[0]
        settings = self.options.get("set", "").split()
        try:
            diagram = unit_blocks.parse("\n".join(self.content))
            default, small = (registry.build(name, chosen, units=unit_tables.OFFERED)
                              for chosen in ((), settings))
            unit_blocks.check(diagram, default, small)
        except ValueError as error:
            raise self.error(str(error)) from None
        return [self.picture(unit_blocks.svg(diagram, f"Block diagram of {name}"), "diagram",
                             f"Block diagram of {name}")]


def _pauses(text):
    """``i: 3, o: 4 5`` as a set of cycles for each port."""
    pairs = (part.split(":") for part in text.split(",") if part.strip())
    return {port.strip(): {int(cycle) for cycle in cycles.split()} for port, cycles in pairs}


class Timing(_Picture):
    option_spec = {"set": directives.unchanged, "transfers": directives.positive_int,
                   "seed": directives.nonnegative_int, "pauses": _pauses}

    def run(self):
        name = self.arguments[0]
        settings = self.options.get("set", "").split()
        wave = unit_waves.wavejson(
            name, settings, transfers=self.options.get("transfers", 4),
            seed=self.options.get("seed", 1), pauses=self.options.get("pauses"))
        return [self.picture(unit_waves.svg(wave), "waves", f"Timing diagram of {name}")]


class Command(SphinxDirective):
    required_arguments = 1
    optional_arguments = 1

    def run(self):
        text = command_text.markdown(command_text.parser(*self.arguments))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Api(SphinxDirective):
    required_arguments = 1

    def run(self):
        text = api_text.markdown(self.arguments[0])
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _resolve(app, env, node, contnode):
    """Finds a name without its module, if only one thing has it."""
    if node.get("refdomain") != "py" or node.get("reftype") not in ("obj", "class", "exc"):
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


TOP_LEVEL = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
"""Pages whose text is a file of the tree's top level."""


def _top_level(app, docname, source):
    """Reads a page from the top level; its links go to pages, or else are code."""
    if docname not in TOP_LEVEL:
        return
    path = unit_tables.ROOT / TOP_LEVEL[docname]
    app.env.note_dependency(str(path))
    pages = {name: f"{page}.md" for page, name in TOP_LEVEL.items()} | {"README.md": "index.md"}

    def link(match):
        text, target = match.groups()
        if re.match(r"\w+:|#", target):
            return match[0]
        if target in pages or target.startswith("docs/") and ".md" in target:
            return f"[{text}]({pages.get(target, target.removeprefix('docs/'))})"
        return text if text.startswith("`") else f"`{target}`"

    source[0] = re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", link, path.read_text(encoding="utf-8"))


def _signature(app, what, name, thing, options, signature, returns):
    """The parameters of a component, which its metaclass hides."""
    if what != "class" or not issubclass(thing, wiring.Component):
        return None
    if thing.__init__ is wiring.Component.__init__:
        return "()", returns
    _, *parameters = inspect.signature(thing.__init__).parameters.values()
    return str(inspect.Signature(parameters)), returns


def _dashes(app, doctree):
    """Dashes between a parameter and what is said of it."""
    for content in doctree.findall(addnodes.desc_content):
        for text in list(content.findall(nodes.Text)):
            if text.startswith((" -- ", ") -- ")):
                text.parent.replace(text, nodes.Text(text.replace(" -- ", " \N{EN DASH} ", 1)))


def _escape(app, what, name, thing, options, lines):
    api_text.escape_all(lines)


def _every_unit_has_a_page(app):
    pages = {path.stem for path in (Path(app.srcdir) / "units").glob("*.md")} - {"index"}
    if pages != set(unit_tables.OFFERED):
        raise ExtensionError(
            f"docs/units must have a page for each of {', '.join(unit_tables.OFFERED)}, "
            f"not {', '.join(sorted(pages)) or 'none'}")


def setup(app):
    for name, directive in (("summary", Summary), ("parameters", Parameters), ("ports", Ports),
                            ("figures", Figures), ("verification", Verification),
                            ("table", Whole), ("blocks", Blocks), ("timing", Timing)):
        app.add_directive(f"unit-{name}", directive)
    app.add_directive("sign-off", SignOff)
    app.add_directive("command", Command)
    app.add_directive("api", Api)
    app.setup_extension("sphinx.ext.autodoc")
    # Before napoleon, whose own markup stays.
    app.connect("autodoc-process-docstring", _escape, priority=400)
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-read", _dashes)
    app.connect("missing-reference", _resolve)
    app.connect("source-read", _top_level)
    app.connect("builder-inited", _every_unit_has_a_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
