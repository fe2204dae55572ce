"""From a chart's numbers to what is drawn: axes around them, and curves thinned without losing an extreme."""

import numpy as np

from cyclewise.drawing.axes import DEFAULT_TICKS, Axis, Floats, drawable, fit_axis
from cyclewise.drawing.chart import Chart

# About two points per pixel of a chart: more cannot be seen, only paid for.
MOST_POINTS = 800
_Y_MARGIN = 0.04


def curve(chart: Chart, index: int) -> tuple[Floats, Floats]:
    """Return x and y of one line as float64, NaN in both wherever the point cannot be drawn.

    >>> from cyclewise.drawing.chart import Line
    >>> chart = Chart("t", "x", "y", [Line("a", [1, 2, 3], [1.0, float("inf"), 2.0])])
    >>> curve(chart, 0)[1].tolist()
    [1.0, nan, 2.0]
    """
    line = chart.lines[index]
    x = drawable(list(line.x), log=chart.x_log)
    y = drawable(list(line.y), log=chart.y_log)
    shown = np.isfinite(x) & np.isfinite(y)
    return np.where(shown, x, np.nan), np.where(shown, y, np.nan)


def is_empty(chart: Chart) -> bool:
    """Return whether no line has a point that can be drawn."""
    return not any(np.isfinite(curve(chart, index)[0]).any() for index in range(len(chart.lines)))


def alone(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the points that have no neighbour to draw a line to, and so need a dot of their own.

    >>> nan = float("nan")
    >>> alone(np.arange(6.0), np.array([1.0, 2.0, nan, 3.0, nan, nan]))[0].tolist()
    [3.0]
    """
    shown = np.isfinite(y)
    has_neighbour = np.append(False, shown[:-1]) | np.append(shown[1:], False) if len(y) else shown
    return x[shown & ~has_neighbour], y[shown & ~has_neighbour]


def x_axis(chart: Chart, *, most: int = DEFAULT_TICKS) -> Axis:
    """Return the axis over all curves, bands and marks, with at most `most` ticks."""
    parts = [curve(chart, index)[0] for index in range(len(chart.lines))]
    parts += [np.asarray([band.low, band.high], dtype=np.float64) for band in chart.bands]
    parts.append(np.asarray([mark.x for mark in chart.marks], dtype=np.float64))
    return fit_axis(np.concatenate(parts), log=chart.x_log, most=most)


def y_axis(chart: Chart) -> Axis:
    """Return the axis over all curves, or over the chart's own limits."""
    parts = [curve(chart, index)[1] for index in range(len(chart.lines))]
    values = np.concatenate(parts) if parts else np.empty(0)
    return fit_axis(values, log=chart.y_log, margin=_Y_MARGIN, limits=chart.y_limits)


def thin(x: Floats, y: Floats, most: int = MOST_POINTS) -> tuple[Floats, Floats]:
    """Return a curve of about `most` points that looks the same: lowest and highest of each run, ends and gaps stay.

    >>> x = np.arange(10_000.0)
    >>> y = np.where(x == 7777, 5.0, 0.0)
    >>> few, values = thin(x, y)
    >>> len(few) <= 800, values.max()
    (True, np.float64(5.0))
    """
    if len(x) <= most:
        return x, y
    keep = {0, len(x) - 1}
    for run in np.array_split(np.arange(len(x)), most // 2 - 1):
        finite = np.isfinite(y[run])
        if finite.any():
            keep.update((int(run[np.nanargmin(y[run])]), int(run[np.nanargmax(y[run])])))
        if not finite.all():
            keep.add(int(run[np.argmin(finite)]))
    kept = np.asarray(sorted(keep))
    return x[kept], y[kept]
