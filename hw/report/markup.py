# SPDX-License-Identifier: BSD-2-Clause
"""What the report pages are made of: HTML that needs no network, no script and no other file."""

import base64
import io
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#332288", "#88ccee", "#117733", "#ddcc77", "#cc6677", "#44aa99", "#882255", "#999933",
          "#aa4499")
"""Colours that colour-blind readers can tell apart, other than the formats'. Further parts are
grey."""


class Html(str):
    """Text that is HTML already and is not escaped."""


def document(title: str, about: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A page.

    Parameters
    ----------
    title, about : str
        Its heading, and the paragraph below.
    sections : sequence of (str, str, str)
        Anchor, heading and HTML of each.

    Returns
    -------
    str
        HTML.
    """
    links = " ".join(f'<a href="#{key}">{escape(head)}</a>' for key, head, _ in sections)
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", "</head>", "<body>",
        f"<h1>{escape(title)}</h1>", text(about), f"<nav>{links}</nav>",
        *(f'<section id="{key}">\n<h2>{escape(head)}</h2>\n{html}\n</section>'
          for key, head, html in sections),
        "</body>", "</html>", ""])


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{escape(words)}</p>\n"


def pre(words: str) -> str:
    """Text as it is written, line by line."""
    return f"<pre>{escape(words)}</pre>\n"


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], *, left: Collection[int]) -> str:
    """A table.

    Parameters
    ----------
    head : sequence
        Of the columns; without any text there is none.
    rows : iterable of sequence
        Cells are escaped but where they are `Html`.
    left : collection of int
        Columns that are aligned to the left, as text is.
    """
    def row(tag: str, cells: Sequence[Any]) -> str:
        return "<tr>" + "".join(
            f"<{tag}{'' if i in left else ' class=n'}>"
            f"{cell if isinstance(cell, Html) else escape(str(cell))}</{tag}>"
            for i, cell in enumerate(cells)) + "</tr>\n"

    body = "".join(row("td", cells) for cells in rows)
    top = f"<thead>{row('th', head)}</thead>" if any(head) else ""
    return f"<div class=wide><table>{top}<tbody>\n{body}</tbody></table></div>\n"


def line(html: str) -> Html:
    """HTML of a cell in one line."""
    return Html(f"<span class=line>{html}</span>")


def swatch(color: str) -> Html:
    """A square of a colour."""
    return Html(f'<span class=swatch style="background:{color}"></span>')


def stack(shares: Iterable[tuple[str, float, str]]) -> str:
    """A horizontal bar, divided into parts with name, share and colour."""
    parts, left = [], 0.0
    for name, share, color in shares:
        parts.append(f'<rect x="{100 * left:.3f}%" width="{100 * share:.3f}%" height="100%" '
                     f'fill="{color}" stroke="white"><title>{escape(name)} {share:.1%}</title>'
                     "</rect>")
        left += share
    return ('<svg class=stack role="img" aria-label="Shares, as in the table below">'
            f'{"".join(parts)}</svg>\n')


def images(drawn: "Iterable[Figure]", words: str, *, whole: bool = False) -> str:
    """Drawings side by side, embedded into the page as PNG files; a narrow page has fewer a row.

    Parameters
    ----------
    drawn : iterable of matplotlib.figure.Figure
    words : str
        What they show, for those who do not see them.
    whole : bool
        Whether each is as wide as the page.
    """
    return ("<div class=images>" + "".join(_image(figure, words, whole) for figure in drawn)
            + "</div>\n")


def _image(figure: "Figure", words: str, whole: bool) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    data = base64.b64encode(file.getvalue()).decode()
    kind = " class=whole" if whole else ""
    return f'<img{kind} alt="{escape(words)}" src="data:image/png;base64,{data}">\n'


_STYLE = """
body { margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; background: #fff;
       font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.6em; } h2 { font-size: 1.3em; margin-top: 2em; border-bottom: 1px solid #ccc; }
h3 { font-size: 1.05em; margin-top: 1.5em; } p { max-width: 60em; }
nav a { margin-right: 1em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .6em 0; }
th, td { padding: .2em .7em; text-align: left; vertical-align: bottom;
         border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 2px solid #888; } .n { text-align: right;
     font-variant-numeric: tabular-nums; }
.images { display: flex; flex-wrap: wrap; gap: 1em; }
img { width: 32em; max-width: 100%; height: auto; align-self: start; }
img.whole { width: 100%; }
.stack { width: 100%; height: 2.2em; }
span.line { white-space: nowrap; }
.swatch { display: inline-block; width: .9em; height: .9em; }
pre { background: #f5f5f5; padding: .7em; overflow-x: auto; }
details { margin: .3em 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
"""
