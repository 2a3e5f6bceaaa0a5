"""The experiment's page: charts as SVG that follow the reader's light or dark, tables, one file.

Charts are drawn by matplotlib in colours that nobody would choose; each then stands for a name
of the page's style sheet, so that one drawing serves both.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

Series = Mapping[str, Sequence[tuple[float, float]]]

# The drawn colour, the style sheet's name, and what it is in the light and in the dark.
COLOURS = {
    "#010101": ("ink", "#1c1e21", "#e6e8eb"),
    "#020202": ("grid", "#d5d9de", "#3a4048"),
    "#030303": ("first", "#0b62c4", "#6cb2ff"),
    "#040404": ("second", "#c23b22", "#ff8a70"),
    "#050505": ("third", "#2e7d32", "#7ed483"),
    "#060606": ("fourth", "#8a5a00", "#e0b050"),
}
INK, GRID, *LINES = COLOURS
DASHES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D")

_STYLE = {
    "svg.fonttype": "none",  # text stays text, and is read aloud
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "legend.frameon": False,
    "svg.hashsalt": "acs",  # the same drawing for the same numbers
}


def chart(
    series: Series,
    title: str,
    x_label: str,
    y_label: str,
    *,
    log_y: bool = True,
    log_x: bool = True,
) -> str:
    """Return an SVG of lines over a common axis; a power axis leaves out what is 0."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(series.items()):
            shown = [(x, y) for x, y in points if y > 0 or not log_y]
            axes.plot(
                [x for x, _ in shown],
                [y for _, y in shown],
                color=LINES[index % len(LINES)],
                linestyle=DASHES[index % len(DASHES)],
                marker=MARKS[index % len(MARKS)],
                label=name,
            )
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
            axis.set_minor_formatter(NullFormatter())
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend()
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]


def themed(svg: str) -> str:
    """Return the SVG in the colours of the page that it will stand in."""
    return re.sub("|".join(COLOURS), lambda found: f"var(--{COLOURS[found[0]][0]})", _unsized(svg))


def standing(svg: str) -> str:
    """Return the SVG as a file of its own, which follows the reader's theme itself."""
    light, dark = (_variables(place) for place in (1, 2))
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, rest = themed(svg).split(">", 1)
    return f"{head}>{style}{rest}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table; numbers stand to the right."""
    head = "".join([f"<th>{html.escape(column)}</th>" for column in columns])
    body = "".join(
        [
            "<tr>" + "".join([f"<td>{html.escape(shown(cell))}</td>" for cell in row]) + "</tr>"
            for row in rows
        ]
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def shown(cell: Any) -> str:
    """Return a cell for people."""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:,.3g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def page(title: str, parts: Sequence[tuple[str, str]]) -> str:
    """Return a page: headings, each with what stands below it as HTML."""
    light, dark = (_variables(place) for place in (1, 2))
    body = "".join([f"<h2>{html.escape(head)}</h2>{inner}" for head, inner in parts])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{html.escape(title)}</title>
<style>
:root{{color-scheme:light dark;--page:#fff;{light}}}
@media(prefers-color-scheme:dark){{:root{{--page:#16191d;{dark}}}}}
body{{font:16px/1.5 sans-serif;max-width:860px;margin:2rem auto;padding:0 1rem;
 color:var(--ink);background:var(--page)}}
svg{{max-width:100%;height:auto}} .wide{{overflow-x:auto}}
table{{border-collapse:collapse;font-size:14px;margin:.5rem 0 1rem}}
th,td{{padding:.2rem .7rem;border-bottom:1px solid var(--grid);text-align:right}}
th:first-child,td:first-child{{text-align:left}}
</style></head><body><h1>{html.escape(title)}</h1>{body}</body></html>
"""


def _variables(place: int) -> str:
    return "".join([f"--{colour[0]}:{colour[place]};" for colour in COLOURS.values()])


def _unsized(svg: str) -> str:
    """Take the size in points out of the first tag: the page says how wide it may be."""
    head, rest = svg.split(">", 1)
    return re.sub(r' (?:width|height)="[0-9.]+pt"', "", head) + ">" + rest
