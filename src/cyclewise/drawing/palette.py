"""How each line, band and mark looks, the same in SVG and in matplotlib.

One accent colour carries what a chart is about. The hues follow Okabe and Ito's colour-blind safe set (Color Universal
Design, 2008), darkened for text and lines on white and lightened on black to a contrast of at least 4.5. Colour never
speaks alone: roles differ in weight as well, and further lines of one role in their dashes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cyclewise.drawing.chart import Line, Role

LIGHT = {
    "background": "#ffffff",
    "surface": "#f6f7f9",
    "ink": "#1a1f26",
    "quiet": "#57606c",
    "rule": "#e3e6ea",
    "accent": "#0067a5",
    "second": "#b85000",
    "third": "#00755a",
    "fourth": "#a03a75",
    "fifth": "#756000",
    "sixth": "#4b5563",
    "muted": "#8b949f",
}
DARK = {
    "background": "#14181d",
    "surface": "#1c2128",
    "ink": "#e8ebef",
    "quiet": "#a3acb7",
    "rule": "#2d343d",
    "accent": "#6db8f2",
    "second": "#f0a04b",
    "third": "#4cc9a0",
    "fourth": "#e39cc4",
    "fifth": "#d8c15a",
    "sixth": "#b6bec9",
    "muted": "#78828e",
}
BANDS = ("accent", "second", "third", "fourth")

_HUES: dict[Role, tuple[str, ...]] = {
    "primary": ("accent", "third", "fourth", "fifth", "sixth"),
    "secondary": ("second", "fourth", "fifth", "sixth", "third"),
    "muted": ("muted",),
}
_WIDTHS: dict[Role, float] = {"primary": 2.4, "secondary": 1.6, "muted": 1.3}
_DASHED_WIDTHS: dict[Role, float] = {"primary": 1.6, "secondary": 1.25, "muted": 1.1}
_DOTS: dict[Role, float] = {"primary": 5.5, "secondary": 4.5, "muted": 3.5}
_ALONE: dict[Role, float] = {"primary": 7.0, "secondary": 6.0, "muted": 5.0}
_SOLID: tuple[tuple[float, ...], ...] = ((), (9, 3), (2, 3), (9, 3, 2, 3))
_DASHED: tuple[tuple[float, ...], ...] = ((5, 4), (12, 4), (1.5, 4), (12, 4, 1.5, 4))


@dataclass(frozen=True)
class Style:
    """How one line is drawn.

    Args:
        color: a name in :data:`LIGHT` and :data:`DARK`.
        width: of the line, or the diameter of its dots, in pixels.
        dashes: lengths of strokes and gaps in pixels; empty for a solid line.
        alone: diameter of the dot for a point that no line leads to, in pixels.
    """

    color: str
    width: float
    dashes: tuple[float, ...] = ()
    alone: float = 0.0


def styles(lines: Sequence[Line]) -> list[Style]:
    """Return a style for each line: its role gives hue and weight, lines that would look alike differ further.

    A dashed or dotted line of a role keeps the hue of the role's solid line, so that two curves of one run belong
    together.

    >>> [style.color for style in styles([Line("training", [0], [1], dashed=True), Line("validation", [0], [1])])]
    ['accent', 'accent']
    >>> [style.color for style in styles([Line("a", [0], [1]), Line("b", [0], [1])])]
    ['accent', 'third']
    """
    seen: Counter[tuple[Role, bool, bool]] = Counter()
    result = []
    for line in lines:
        kind = (line.role, line.dashed, line.points)
        rank = seen[kind]
        seen[kind] += 1
        hues = _HUES[line.role]
        dashes, widths = (_DASHED, _DASHED_WIDTHS) if line.dashed else (_SOLID, _WIDTHS)
        result.append(
            Style(
                color=hues[rank % len(hues)],
                width=(_DOTS if line.points else widths)[line.role],
                dashes=() if line.points else dashes[rank % len(dashes)],
                alone=_ALONE[line.role],
            )
        )
    return result


def mark_color(role: Role) -> str:
    """Return the colour of a mark.

    >>> mark_color("secondary")
    'second'
    """
    return "quiet" if role == "muted" else _HUES[role][0]


def css(name: str) -> str:
    """Return a colour as a CSS value: a variable, with the light colour where nobody sets it.

    >>> css("accent")
    'var(--cw-accent,#0067a5)'
    """
    return f"var(--cw-{name},{LIGHT[name]})"


def css_variables(colors: dict[str, str]) -> str:
    """Return declarations of the variables that :func:`css` reads.

    >>> css_variables({"accent": "#0067a5"})
    '--cw-accent:#0067a5;'
    """
    return "".join(f"--cw-{name}:{color};" for name, color in colors.items())
