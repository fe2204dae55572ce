"""Sections as HTML: for a notebook on their own (:func:`fragment`), for the report as parts of a page.

Templates are Jinja2's with autoescape on: every text of a user is escaped where it is printed. Style and script come
as files beside the templates and carry nothing of the user's.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from cyclewise.drawing import hover, labels, palette
from cyclewise.drawing.chart import Chart, Section, Table
from cyclewise.drawing.svg import band_colors, svg

if TYPE_CHECKING:
    from jinja2 import Environment

_NUMBER = re.compile(r"\s*[-+−±]?(\d[\d,  ]*\.?\d*|\.\d+)(e[-+]?\d+)?\s*(%|[–±-].*)?\s*", re.IGNORECASE)
_BLANK = {"", "–", "-", "—", "none"}


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend: a name and the little picture beside it."""

    name: str
    color: str
    width: float
    dashes: str = ""
    dot: bool = False
    band: bool = False


def fragment(section: Section) -> str:
    """Return `section` as HTML with its style and script, to be shown inside another page such as a notebook.

    Args:
        section: what to show.

    Returns:
        One ``<div>``; its style reaches nothing outside it, it asks for nothing from the network, and without
        JavaScript only the hover text is missing.

    >>> text = fragment(Section("Rates <1", "max_lr is 0.42."))
    >>> "Rates &lt;1" in text, "<script>" in text
    (True, True)
    """
    template = environment("cyclewise.drawing").get_template("fragment.html.j2")
    return template.render(style=style(), script=script(), section=section_html(section, level=3))


def section_html(section: Section, *, level: int, anchor: str | None = None) -> str:
    """Return `section` as a ``<section>`` element without style and script.

    Args:
        section: what to show.
        level: the level of its heading, 1 to 5; headings inside are one lower.
        anchor: the element's id.

    >>> section_html(Section("Rates", "max_lr is 0.42."), level=2, anchor="rates").splitlines()[0]
    '<section class="cw-section" id="rates">'
    """
    template = environment("cyclewise.drawing").get_template("section.html.j2")
    return template.render(section=section, level=level, anchor=anchor)


def style() -> str:
    """Return the style sheet of sections, with the palette for light and dark screens and for paper.

    >>> "--cw-accent:#0067a5" in style()
    True
    """
    rules = _asset("section.css")
    light, dark = palette.css_variables(palette.LIGHT), palette.css_variables(palette.DARK)
    return rules.replace("/* light */", light).replace("/* dark */", dark).strip()


def script() -> str:
    """Return the hover script.

    >>> "</" in script()
    False
    """
    return _asset("hover.js").strip()


@cache
def environment(package: str) -> "Environment":
    """Return the Jinja2 environment over `package`'s folder ``templates``, with autoescape on.

    >>> environment("cyclewise.drawing").from_string("{{ name }}").render(name="<b>")
    '&lt;b&gt;'
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Everything printed passes here: text loses what a page cannot hold, markup made by this package stays.
        finalize=lambda value: value if isinstance(value, Markup) else labels.clean(value),
    )
    made.filters["svg"] = lambda chart: Markup(svg(chart))
    made.filters["payload"] = lambda chart: Markup(hover.payload(chart))
    made.filters["legend"] = legend
    made.filters["numeric_columns"] = numeric_columns
    return made


def legend(chart: Chart) -> list[LegendEntry]:
    """Return the legend of `chart`, empty where its title says it all: one line and no band.

    >>> from cyclewise.drawing.chart import Band, Line
    >>> chart = Chart("t", "x", "y", [Line("loss", [0], [1])], bands=[Band("interval", 0, 1)])
    >>> [entry.name for entry in legend(chart)]
    ['loss', 'interval']
    """
    if len(chart.lines) < 2 and not chart.bands:
        return []
    entries = [
        LegendEntry(
            name=line.name,
            color=palette.css(look.color),
            width=look.width,
            dashes=" ".join(f"{part:g}" for part in look.dashes),
            dot=line.points,
        )
        for line, look in zip(chart.lines, palette.styles(chart.lines), strict=True)
    ]
    entries += [
        LegendEntry(name=band.name, color=palette.css(color), width=10, band=True)
        for band, color in zip(chart.bands, band_colors(chart), strict=True)
    ]
    return entries


def numeric_columns(table: Table) -> list[bool]:
    """Return for each column whether it holds numbers, which are set flush right.

    >>> numeric_columns(Table(["policy", "accuracy"], [["one-cycle", "0.981 ± 0.002"], ["constant", "–"]]))
    [False, True]
    """
    result = []
    for index in range(len(table.columns)):
        cells = [row[index].strip() for row in table.rows if index < len(row)]
        filled = [cell for cell in cells if cell.lower() not in _BLANK]
        result.append(bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled))
    return result


@cache
def _asset(name: str) -> str:
    return (resources.files("cyclewise.drawing") / "templates" / name).read_text(encoding="utf-8")
