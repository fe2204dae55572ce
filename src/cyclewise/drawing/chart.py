"""What a picture says, apart from how it is drawn: one description, drawn as a matplotlib figure or as SVG in HTML.

A record (a range test, a history) describes its pictures as :class:`Chart` values and its page in a report as a
:class:`Section`; :mod:`cyclewise.drawing.figure` and :mod:`cyclewise.drawing.svg` draw them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cyclewise.errors import ArgumentError

Role = Literal["primary", "secondary", "muted"]
Number = float | int


@dataclass(frozen=True)
class Line:
    """One curve, or the points of one where `points` is true.

    Args:
        name: what the legend and the hover text call it.
        x: horizontal positions, in the chart's x unit.
        y: vertical positions, as many as `x`; values that are not finite leave a gap.
        role: "primary" for what the chart is about (the accent colour), "secondary" for what it is compared with,
            "muted" for context such as raw data behind a smoothed curve.
        dashed: draw the line dashed.
        points: draw dots instead of a line.

    Raises:
        ArgumentError: `x` and `y` differ in length.
    """

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    role: Role = "primary"
    dashed: bool = False
    points: bool = False

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ArgumentError(
                f"x and y of line {self.name!r} must be equally long, got {len(self.x)} and {len(self.y)}; "
                "pass one x for each y"
            )


@dataclass(frozen=True)
class Band:
    """A vertical band over the x range [low, high], for example an interval."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x` with a label, for example the suggested rate."""

    name: str
    x: float
    role: Role = "primary"


@dataclass(frozen=True)
class Chart:
    """One set of axes.

    Args:
        title: a short sentence.
        x_label: axis title with its unit, for example ``"learning rate (log scale)"``.
        y_label: axis title with its unit.
        lines: the curves, drawn in order.
        bands: drawn behind the curves.
        marks: drawn above the curves.
        x_log: logarithmic x axis; positions must be above 0.
        y_log: logarithmic y axis; values at or below 0 leave a gap.
        y_limits: the y range to show; None takes the range of the finite values.
        caption: one or two sentences under the chart: what to see in it.
        empty: what is written in place of the curves where none has a point to draw: why.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    bands: Sequence[Band] = ()
    marks: Sequence[Mark] = ()
    x_log: bool = False
    y_log: bool = False
    y_limits: tuple[float, float] | None = None
    caption: str = ""
    empty: str = "no finite values to draw"


@dataclass(frozen=True)
class Table:
    """A small table; cells are text as they should be read, numbers already formatted."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One record's part of a report: the conclusion first, then pictures, tables and settings.

    Args:
        title: what this part is about.
        conclusion: one or two sentences: what was found, or why nothing was.
        charts: pictures, the most important one first.
        tables: tables.
        settings: name and value of everything needed to repeat it, as text.
    """

    title: str
    conclusion: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    settings: dict[str, str] = field(default_factory=dict)
