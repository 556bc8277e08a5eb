# SPDX-License-Identifier: BSD-2-Clause
"""Comments of emitted Verilog, from the docstrings and the comments of the design's Python."""

import enum
import inspect
import linecache
import re
import textwrap

from amaranth.hdl import Shape
from amaranth.lib import data

from .expressions import WIDTH


def about(component, clocked):
    """Says what a module is for.

    Parameters
    ----------
    component : Component
    clocked : bool
        Whether the module has a clock.

    Returns
    -------
    list of str
        Lines without comment signs: the first paragraph of the docstring, the parameters, and the
        latency.
    """
    text = inspect.getdoc(type(component)) or ""
    lines = _wrapped(_plain(text.partition("\n\n")[0]), "")
    settings = [f"{name} = {value}" for name in _entries(text, "Parameters")
                if (value := _value(component, name)) is not None]
    if settings:
        lines += _wrapped(", ".join(settings), "Parameters: ")
    latency = getattr(component, "latency", None)
    if not clocked:
        lines.append("Combinational.")
    elif isinstance(latency, int):
        lines.append(f"Latency: {latency} cycle{'' if latency == 1 else 's'}.")
    return lines


def ports(component):
    """Says what each port carries.

    Parameters
    ----------
    component : Component

    Returns
    -------
    dict of str to list of str
        Lines without comment signs, by the name of the port that they stand above.
    """
    described = _entries(inspect.getdoc(type(component)) or "", "Members")
    found, seen = {}, set()
    for path, member, _ in component.signature.flatten(component):
        name = "__".join(map(str, path))
        lines = []
        if path[0] not in seen and described.get(str(path[0])):
            lines += _wrapped(_plain(described[str(path[0])]), f"{path[0]}: ")
        seen.add(path[0])
        if layout := shape(member.shape):
            lines += _wrapped(layout, f"{name} = " if lines or len(path) > 1 else "")
        found[name] = lines
    return found


def shape(of):
    """Says what the bits of a shape mean; nothing of a plain number.

    These are the fields of a layout with their places, the length of an array, or the values of an
    enumeration.
    """
    if isinstance(of, type) and issubclass(of, enum.Enum):
        return ", ".join(f"{member.value} {member.name}" for member in of)
    try:
        layout = data.Layout.cast(of)
    except TypeError:
        return ""
    if isinstance(layout, data.ArrayLayout):
        width = Shape.cast(layout.elem_shape).width
        inner = shape(layout.elem_shape)
        return f"{layout.length} x {width} bit{'' if width == 1 else 's'}" + (
            f" ({inner})" if inner else "")
    fields = []
    for key, field in layout:
        high = field.offset + field.width - 1
        place = f"[{high}]" if field.width == 1 else f"[{high}:{field.offset}]"
        inner = shape(field.shape) if field.width else ""
        if field.width:
            fields.append(f"{key} {place}" + (f" ({inner})" if inner else ""))
    return ", ".join(fields)


def section(place):
    """The comment that belongs to a line of Python.

    Parameters
    ----------
    place : str
        File and line, as Amaranth notes them.

    Returns
    -------
    key : tuple or None
        The same for all lines that have the same comment.
    lines : list of str
        Without comment signs.
    """
    file, _, rest = place.rpartition(":")
    number = int(re.match(r"\d+", rest)[0])
    while (text := linecache.getline(file, number - 1).strip()) and not text.startswith("#"):
        if re.match(r"(def|class|if|for|else|elif|with)\b", text):
            return None, []
        number -= 1
    last = number
    while linecache.getline(file, number - 1).strip().startswith("#"):
        number -= 1
    lines = [linecache.getline(file, i).strip()[1:].removeprefix(" ") for i in range(number, last)]
    if not lines:
        return None, []
    return (file, last), [line.rstrip().replace("`", "") for line in lines]


def _entries(text, heading):
    """Descriptions by name in a section of a docstring in numpydoc's form."""
    match = re.search(rf"^{heading}\n-+\n(.*?)(?=^\w[^\n]*\n---|\Z)", text, re.M | re.S)
    found = {}
    names = []
    for line in match[1].splitlines() if match else ():
        if entry := re.match(r"([\w, ]+?) : ", line):
            names = [name.strip() for name in entry[1].split(",")]
            found |= dict.fromkeys(names, "")
        elif line.startswith(" ") and names:
            found[names[0]] += line.strip() + " "
    return found


def _value(component, name):
    """Value of a parameter as a text, if it is a plain one."""
    value = getattr(component, f"has_{name}", getattr(component, name, None))
    value = getattr(value, "name", value)
    return value if isinstance(value, (int, str, bool)) else None


def _plain(text):
    """A paragraph of a docstring without marks."""
    return " ".join(text.replace("`", "").split())


def _wrapped(text, head):
    """Lines of a comment that begins with a head."""
    # A field stays on the line of its place.
    joined = re.sub(r" (?=\[\d)", "\0", head + text)
    lines = textwrap.wrap(joined, WIDTH - 5, subsequent_indent="  " if head else "",
                          break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]
