"""What the hover script (``templates/hover.js``) needs to know about a chart, as JSON that is safe inside HTML."""

import json
import math
from typing import Any

from cyclewise.drawing import labels, palette
from cyclewise.drawing.axes import Axis, Floats
from cyclewise.drawing.chart import Chart
from cyclewise.drawing.curves import curve, thin
from cyclewise.drawing.svg import PLOT_HEIGHT, WIDTH, arrange

_DIGITS = 6


def payload(chart: Chart) -> str:
    """Return the values behind `chart` and where they stand, as JSON for a ``<script type="application/json">``.

    Only finite numbers and null occur; the text is ASCII and holds no ``<``, ``>`` or ``&``, so nothing in it can end
    the script element.

    >>> from cyclewise.drawing.chart import Line
    >>> text = payload(Chart("t", "x", "y", [Line("</script>", [0, 1], [1.0, float("nan")])]))
    >>> "<" in text, json.loads(text)["lines"][0]["name"], json.loads(text)["lines"][0]["y"]
    (False, '</script>', [1.0, None])
    """
    layout = arrange(chart)
    shared_x: list[list[float | None]] = []
    lines = []
    for index, (line, style) in enumerate(zip(chart.lines, palette.styles(chart.lines), strict=True)):
        x, y = (_rounded(values) for values in thin(*curve(chart, index)))
        if x not in shared_x:
            shared_x.append(x)
        lines.append(
            {"name": labels.clean(line.name), "color": palette.css(style.color), "x": shared_x.index(x), "y": y}
        )
    data: dict[str, Any] = {
        "label": labels.clean(chart.x_label),
        "xAxis": _axis(layout.x),
        "yAxis": _axis(layout.y),
        "width": WIDTH,
        "plot": [round(value, 1) for value in (layout.left, layout.top, layout.width, PLOT_HEIGHT)],
        "x": shared_x,
        "lines": lines,
        "start": next((float(mark.x) for mark in chart.marks if math.isfinite(mark.x)), None),
    }
    return escape_json(json.dumps(data, allow_nan=False, separators=(",", ":")))


def escape_json(text: str) -> str:
    r"""Return ASCII JSON with the characters that mean something to HTML written as escapes.

    >>> escape_json('"</script>"')
    '"\\u003c/script\\u003e"'
    """
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _axis(axis: Axis) -> dict[str, float | bool]:
    return {"low": axis.low, "high": axis.high, "log": axis.log}


def _rounded(values: Floats) -> list[float | None]:
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()]
