"""Charts as a matplotlib figure, with the colours, weights and ticks of the SVG.

The figure is made without pyplot: no global state, no display needed, nothing to close.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cyclewise.drawing import labels, palette
from cyclewise.drawing.axes import Floats, drawable
from cyclewise.drawing.chart import Chart
from cyclewise.drawing.curves import alone, curve, is_empty, x_axis, y_axis
from cyclewise.drawing.svg import band_colors
from cyclewise.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES_WIDE = 7.0
_INCHES_PER_CHART = 3.6
# A pixel of the SVG is 1/96 inch, matplotlib's point 1/72.
_POINTS_PER_PIXEL = 0.75
# Labels of marks are placed before the layout is known: about how wide the axes will be.
_AXES_POINTS_WIDE = 430.0
_LABEL_POINTS = 8.5
_LEGEND_POINTS = 8.5
_LABEL_ROW_POINTS = 12.0
_MOST_LABEL_ROWS = 6
# Longer texts are cut: they would squeeze the axes.
_TEXT_POINTS = 10.0
_LEGEND_POINTS_WIDE = 300.0
_AXES_POINTS_HIGH = _INCHES_PER_CHART * 72
# So many entries find a place beside the curves; more of them would cover some, and go below the axes and their title.
_MOST_INSIDE = 3
_LEGEND_ROW_POINTS = 12.5
_LEGEND_HANDLE_POINTS = 40.0
_BELOW_POINTS = 38.0


def draw(charts: Sequence[Chart]) -> "Figure":
    """Return `charts` as one matplotlib figure, one below the other.

    Args:
        charts: what to draw, at least one.

    Returns:
        A ``matplotlib.figure.Figure``: save it with ``savefig``; a notebook shows it as the last value of a cell.

    Raises:
        ArgumentError: there is nothing to draw.
        ArgumentTypeError: an item is not a Chart.

    >>> from cyclewise.drawing.chart import Line
    >>> figure = draw([Chart("Loss", "step (optimizer updates)", "loss", [Line("training", [0, 1], [2.0, 1.0])])])
    >>> figure.axes[0].get_xlabel()
    'step (optimizer updates)'
    """
    from matplotlib.figure import Figure

    charts = [charts] if isinstance(charts, Chart) else list(charts)
    for chart in charts:
        if not isinstance(chart, Chart):
            raise ArgumentTypeError(f"charts must hold charts, got a {type(chart).__name__}; pass a list of Chart")
    if not charts:
        raise ArgumentError("charts must hold at least one chart, got []; pass what is to be drawn")
    figure = Figure(figsize=(_INCHES_WIDE, _INCHES_PER_CHART * len(charts)), layout="constrained")
    figure.set_facecolor(palette.LIGHT["background"])
    below = sum(_draw_chart(figure.add_subplot(len(charts), 1, row), chart) for row, chart in enumerate(charts, 1))
    figure.set_figheight(_INCHES_PER_CHART * len(charts) + below / 72)
    return figure


def _draw_chart(axes: "Axes", chart: Chart) -> float:
    """Draw a chart and return by how many points it is higher than others, for a legend below it."""
    handles: list[Any] = []
    names: list[str] = []
    for index, (line, style) in enumerate(zip(chart.lines, palette.styles(chart.lines), strict=True)):
        x, y = curve(chart, index)
        width = style.width * _POINTS_PER_PIXEL
        color = palette.LIGHT[style.color]
        if line.points:
            handles += axes.plot(x, y, linestyle="none", marker="o", markersize=width, color=color, alpha=0.75, mew=0)
        else:
            # matplotlib scales dashes with the line's width.
            dashes = (0, tuple(part / style.width for part in style.dashes)) if style.dashes else "solid"
            handles += axes.plot(x, y, linestyle=dashes, linewidth=width, color=color)
            _draw_dots(axes, chart, *alone(x, y), size=style.alone * _POINTS_PER_PIXEL, color=color)
        names.append(_plain(line.name, _LEGEND_POINTS_WIDE))
    for band, color in zip(chart.bands, band_colors(chart), strict=True):
        if np.isfinite(drawable([band.low, band.high], log=chart.x_log)).all():
            handles.append(axes.axvspan(band.low, band.high, color=palette.LIGHT[color], alpha=0.13, linewidth=0))
            names.append(_plain(band.name, _LEGEND_POINTS_WIDE))
    if is_empty(chart):
        lines = labels.wrap(labels.clean(chart.empty), _AXES_POINTS_WIDE - 8.0, _TEXT_POINTS)
        reason = "\n".join(map(_plain, lines))
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color=palette.LIGHT["quiet"])
    rows = _draw_marks(axes, chart)
    _dress(axes, chart, title_pad=6.0 + rows * _LABEL_ROW_POINTS)
    if len(chart.lines) > 1 or len(handles) > len(chart.lines):
        return _draw_legend(axes, handles, names)
    return 0.0


def _draw_legend(axes: "Axes", handles: list[Any], names: list[str]) -> float:
    style: dict[str, Any] = {"frameon": False, "fontsize": "small", "labelcolor": palette.LIGHT["ink"]}
    if len(names) <= _MOST_INSIDE:
        axes.legend(handles, names, **style)
        return 0.0
    from matplotlib.transforms import ScaledTranslation

    down = ScaledTranslation(0.0, -_BELOW_POINTS / 72, axes.figure.dpi_scale_trans)
    widest = max(labels.width(name, _LEGEND_POINTS) for name in names) + _LEGEND_HANDLE_POINTS
    columns = 2 if 2 * widest <= _AXES_POINTS_WIDE else 1
    axes.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0.0, 0.0), bbox_transform=axes.transAxes + down,
        borderaxespad=0.0, ncols=columns, **style,
    )  # fmt: skip
    return -(-len(names) // columns) * _LEGEND_ROW_POINTS


def _draw_dots(axes: "Axes", chart: Chart, x: Floats, y: Floats, *, size: float, color: str) -> None:
    across, down = x_axis(chart).fraction(x), y_axis(chart).fraction(y)
    shown = (across >= 0) & (across <= 1) & (down >= 0) & (down <= 1)
    if shown.any():
        # Not clipped: a first step stands on the edge of the axes, where half its dot would be cut off.
        axes.plot(x[shown], y[shown], linestyle="none", marker="o", markersize=size, color=color, mew=0, clip_on=False)


def _draw_marks(axes: "Axes", chart: Chart) -> int:
    """Draw the marks with their labels above the plot, and return how many rows the labels take."""
    axis = x_axis(chart)
    marks = [mark for mark in chart.marks if np.isfinite(drawable(mark.x, log=chart.x_log))]
    positions = [_AXES_POINTS_WIDE * float(axis.fraction(mark.x)) for mark in marks]
    names = [labels.fit(labels.clean(mark.name), _AXES_POINTS_WIDE, _LABEL_POINTS) for mark in marks]
    placed = labels.place(
        positions,
        [labels.width(name, _LABEL_POINTS) for name in names],
        low=0.0,
        high=_AXES_POINTS_WIDE,
        most_rows=_MOST_LABEL_ROWS,
    )
    for mark, name, position, label in zip(marks, names, positions, placed, strict=True):
        color = palette.LIGHT[palette.mark_color(mark.role)]
        axes.axvline(mark.x, color=color, linewidth=1.2, linestyle="solid" if mark.role == "primary" else "dashed")
        if label.row is None:
            continue
        axes.annotate(
            _plain(name),
            (mark.x, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(label.middle - position, 3.0 + label.row * _LABEL_ROW_POINTS),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=color,
            fontsize=_LABEL_POINTS,
            fontweight="bold",
        )
    return max((label.row + 1 for label in placed if label.row is not None), default=0)


def _dress(axes: "Axes", chart: Chart, *, title_pad: float) -> None:
    x, y = x_axis(chart), y_axis(chart)
    if x.log:
        axes.set_xscale("log")
    if y.log:
        axes.set_yscale("log")
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    axes.set_xticks(x.ticks.positions, x.ticks.labels)
    axes.set_yticks(y.ticks.positions, y.ticks.labels)
    axes.minorticks_off()
    axes.set_xlabel(_plain(chart.x_label), color=palette.LIGHT["ink"])
    axes.set_ylabel(_plain(chart.y_label, _AXES_POINTS_HIGH), color=palette.LIGHT["ink"])
    axes.set_title(
        _in_two_lines(chart.title),
        loc="left",
        pad=title_pad,
        color=palette.LIGHT["ink"],
        fontsize="medium",
        fontweight="bold",
    )
    axes.grid(True, color=palette.LIGHT["rule"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.LIGHT["quiet"], length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.LIGHT["muted"])


def _plain(text: str, available: float = _AXES_POINTS_WIDE) -> str:
    # matplotlib reads dollars as mathematics and hides legend entries that begin with an underscore.
    text = labels.fit(labels.clean(text), available, _TEXT_POINTS).replace("$", r"\$")
    return "\u200b" + text if text.startswith("_") else text


def _in_two_lines(text: str) -> str:
    first, *rest = labels.wrap(labels.clean(text), _AXES_POINTS_WIDE, _TEXT_POINTS) or [""]
    return "\n".join(_plain(line) for line in (first, " ".join(rest)) if line)
