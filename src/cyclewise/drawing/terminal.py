"""A chart's first curve as text: an area of block characters, for the terminal."""

import numpy as np

from cyclewise.drawing.axes import fit_axis
from cyclewise.drawing.chart import Chart

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PARTS = len(_BLOCKS) - 1
# Of a terminal of next to no width, lines are broken rather than left out.
_NARROWEST = 8


def text(chart: Chart, *, width: int = 72, height: int = 10) -> str:
    """Return the chart as lines of text, `height` rows of at most `width` characters and two rows of labels.

    Example:
        >>> from cyclewise.drawing import Chart, Line
        >>> print(text(Chart("Rate", "step", "rate", [Line("rate", range(9), range(9))]), width=24, height=4))
        Rate
        8 │                ▂▃▅▆█
        4 │           ▂▃▅▆██████
        2 │      ▂▃▅▆███████████
        0 │▁▂▃▅▆████████████████
          0        step        8
    """
    line = chart.lines[0]
    x, y = np.asarray(line.x, dtype=np.float64), np.asarray(line.y, dtype=np.float64)
    axis = fit_axis(y, log=chart.y_log, margin=0.0)
    labels = _tick_labels(axis.fraction(axis.ticks.positions), axis.ticks.labels, height)
    gutter = max(map(len, labels))
    num_columns = max(_NARROWEST, width - gutter - 2)
    columns = np.interp(np.linspace(x[0], x[-1], num_columns), x, y)
    levels = np.round(np.clip(axis.fraction(columns), 0.0, 1.0) * height * _PARTS).astype(int)
    # The lowest value still shows, so that a curve at the floor is not taken for a gap.
    levels = np.maximum(levels, 1)
    rows = [
        f"{labels[row]:>{gutter}} │"
        + "".join(_BLOCKS[min(max(level - row * _PARTS, 0), _PARTS)] for level in levels.tolist()).rstrip()
        for row in reversed(range(height))
    ]
    ends = (f"{x[0]:g}", f"{x[-1]:g}")
    footer = ends[0] + chart.x_label.center(num_columns + 1 - len(ends[0]) - len(ends[1])) + ends[1]
    return "\n".join([chart.title, *rows, " " * (gutter + 1) + footer])


def _tick_labels(
    fractions: "np.ndarray[tuple[int], np.dtype[np.float64]]", names: tuple[str, ...], height: int
) -> list[str]:
    labels = [""] * height
    for fraction, name in zip(fractions.tolist(), names, strict=True):
        labels[min(int(fraction * height), height - 1)] = name
    return labels
