# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Block diagrams: a few lines of text to SVG.

A diagram has columns from left to right, divided by lines of ``---``. A line of a column is a box::

    NAME: KIND TEXT | SECOND LINE | THIRD LINE

KIND is ``in`` or ``out`` (a port, whose text begins with its name), ``box`` (logic), ``reg`` (a
register or queue), ``mem`` (a memory), and a submodule has its name behind the kind:
``reg:register``. Lines ``A -> B : LABEL`` are arrows, the label may be absent. One that goes left
is drawn beneath all boxes.

`check` compares ports and submodules with the component, so that a diagram does not outlive what it
shows.
"""

import fnmatch
import html
import re
from dataclasses import dataclass, field

from amaranth.hdl import Fragment

CHARACTER = 6.6
"""Width of a character, a little more than most have, in the SVG's units."""

LINE = 17
PADDING = 10
GAP = 58
ROW_GAP = 22


@dataclass(kw_only=True)
class Box:
    """A box, or with ``kind`` "" the place where an arrow crosses a column."""

    name: str
    kind: str
    lines: list = field(default_factory=list)
    submodule: str = ""
    x: float = 0
    y: float = 0

    @property
    def width(self):
        return max(map(len, self.lines), default=0) * CHARACTER + 2 * PADDING if self.kind else 0

    @property
    def height(self):
        return len(self.lines) * LINE + 2 * PADDING - 4 if self.kind else 6

    @property
    def middle(self):
        return self.y + self.height / 2


@dataclass(kw_only=True)
class Diagram:
    """Columns of boxes, and arrows between names with their labels."""

    columns: list
    arrows: list


def parse(text):
    """A diagram from its text; ValueError names the line that is wrong."""
    columns, arrows, known = [[]], [], set()
    for line in text.strip().splitlines():
        line = line.strip()
        if not line:
            continue
        if line == "---":
            columns.append([])
        elif arrow := re.fullmatch(r"(\w+) -> (\w+)(?: : (.+))?", line):
            for name in arrow.groups()[:2]:
                if name not in known:
                    raise ValueError(f"Arrow must be between boxes, not {line!r}")
            arrows.append(arrow.groups(""))
        elif box := re.fullmatch(r"(\w+): (in|out|box|reg|mem)(?::([\w*]+))? (.+)", line):
            name, kind, submodule, said = box.groups("")
            known.add(name)
            columns[-1].append(Box(name=name, kind=kind, submodule=submodule,
                                   lines=[part.strip() for part in said.split("|")]))
        else:
            raise ValueError(f"Line of a diagram must be a box, an arrow or ---, not {line!r}")
    return Diagram(columns=columns, arrows=arrows)


def check(diagram, component, elaborated):
    """Raises ValueError unless ports and submodules are those of a unit.

    Parameters
    ----------
    diagram : Diagram
    component : wiring.Component
        Its ports are to be those of the diagram.
    elaborated : wiring.Component
        Its submodules are to include those of the diagram: the same unit, or a smaller one.
    """
    boxes = [box for column in diagram.columns for box in column]
    drawn = {word for box in boxes if box.kind in ("in", "out")
             for word in re.split(r",\s*", box.lines[0])}
    ports = set(component.signature.members)
    if drawn != ports:
        raise ValueError(f"Ports of the diagram must be {', '.join(sorted(ports))}, "
                         f"not {', '.join(sorted(drawn))}")
    names = [name or "" for _, name, _ in Fragment.get(elaborated, None).subfragments]
    for box in boxes:
        if box.submodule and not fnmatch.filter(names, box.submodule):
            raise ValueError(f"Submodule of box {box.name} must be one of {', '.join(names)}, "
                             f"not {box.submodule!r}")


def svg(diagram, title):
    """The diagram as SVG, in the colours of the page around it."""
    columns = [list(column) for column in diagram.columns]
    place = {box.name: n for n, column in enumerate(columns) for box in column}
    boxes = {box.name: box for column in columns for box in column}
    _stack(columns)

    # Long arrows get a place of their own in each column that they cross.
    paths = []
    for number, (start, end, label) in enumerate(diagram.arrows):
        path = [start]
        for column in range(place[start] + 1, place[end]):
            way = Box(name=f"{number}.{column}", kind="")
            aim = (boxes[start].middle + boxes[end].middle) / 2
            index = sum(other.middle < aim for other in columns[column])
            columns[column].insert(index, way)
            boxes[way.name] = way
            path.append(way.name)
            _stack(columns)
        paths.append(([*path, end], label))

    x = 4
    for column in columns:
        width = max(box.width for box in column)
        for box in column:
            box.x = x + (width - box.width) / 2
        x += width + GAP
    width = x - GAP + 4
    bottom = max(box.y + box.height for box in boxes.values())

    # Arrows that share a side of a box part from each other, in the order of their other ends.
    leaving, arriving = {}, {}
    for path, _ in paths:
        if place[path[-1]] > place[path[0]]:
            for a, b in zip(path, path[1:], strict=False):
                leaving.setdefault(a, []).append(b)
                arriving.setdefault(b, []).append(a)

    def end_of(name, other, sides):
        box, others = boxes[name], sorted(sides[name], key=lambda n: boxes[n].middle)
        if not box.kind:
            return box.middle
        return box.y + box.height * (others.index(other) + 1) / (len(others) + 1)

    drawn, labels, feedback = [], [], 0
    for path, label in paths:
        if place[path[-1]] <= place[path[0]]:
            feedback += 1
            a, b = boxes[path[0]], boxes[path[-1]]
            low = bottom + 18 * feedback
            ax, bx = a.x + a.width / 2 + 8, b.x + b.width / 2 - 8 * (a is not b)
            drawn.append(f'<path class="wire" marker-end="url(#arrow)" d="M{ax:.0f} '
                         f'{a.y + a.height:.0f} V{low:.0f} H{bx:.0f} V{b.y + b.height + 3:.0f}"/>')
            labels.append(_label((ax + bx) / 2, low - 4, label))
            continue
        for n, (first, second) in enumerate(zip(path, path[1:], strict=False)):
            a, b = boxes[first], boxes[second]
            ay, by = end_of(first, second, leaving), end_of(second, first, arriving)
            ax, bx = a.x + a.width, b.x - 3 * bool(b.kind)
            bend = max((bx - ax) / 2, 20)
            tip = ' marker-end="url(#arrow)"' if b.kind else ""
            drawn.append(f'<path class="wire"{tip} d="M{ax:.0f} {ay:.0f} C{ax + bend:.0f} {ay:.0f} '
                         f'{bx - bend:.0f} {by:.0f} {bx:.0f} {by:.0f}"/>')
            if n == 0:
                labels.append(_label((ax + bx) / 2, (ay + by) / 2 - 4, label))
    height = bottom + 18 * feedback + 8
    shapes = [_shape(box) for column in columns for box in column if box.kind]
    return (f'<svg class="blocks" role="img" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{html.escape(title)}</title>"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto"><path class="tip" d="M0 0 L8 4 L0 8 z"/></marker>'
            f"</defs>{''.join(drawn)}{''.join(shapes)}{''.join(labels)}</svg>")


def _stack(columns):
    """Places the boxes of each column beneath each other, all columns about one line."""
    heights = [sum(box.height for box in column) + ROW_GAP * (len(column) - 1)
               for column in columns]
    tallest = max(heights)
    for column, height in zip(columns, heights, strict=True):
        y = 6 + (tallest - height) / 2
        for box in column:
            box.y = y
            y += box.height + ROW_GAP


def _shape(box):
    """A box with its text; a register has a clock's notch, a memory a double frame."""
    x, y, w, h = box.x, box.y, box.width, box.height
    radius = h / 2 if box.kind in ("in", "out") else 3
    parts = [f'<rect class="{box.kind}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
             f'rx="{min(radius, 14):.1f}"/>']
    if box.kind == "reg":
        parts.append(f'<path class="notch" d="M{x:.1f} {y + h - 12:.1f} l7 4 l-7 4"/>')
    if box.kind == "mem":
        parts.append(f'<rect class="notch" x="{x + 3:.1f}" y="{y + 3:.1f}" width="{w - 6:.1f}" '
                     f'height="{h - 6:.1f}"/>')
    first = y + PADDING + 10
    parts += [f'<text class="{"name" if n == 0 else "more"}" x="{x + w / 2:.1f}" '
              f'y="{first + n * LINE:.1f}">{html.escape(line)}</text>'
              for n, line in enumerate(box.lines)]
    return "".join(parts)


def _label(x, y, text):
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>' if text else ""
