"""A chart as SVG: written by hand, so that a page needs no library, no font and no network to show it.

The drawing scales with its container. Colours are CSS variables with the light palette as their default; the style
sheet of the page sets them for the dark mode. Every text passes through :func:`_text`, every number through
:func:`_px`, so that nothing but finite numbers and escaped text reaches the markup.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cyclewise.drawing import labels, palette
from cyclewise.drawing.axes import FEWEST_TICKS, Axis, Floats, Ticks, drawable, number
from cyclewise.drawing.chart import Chart
from cyclewise.drawing.curves import alone, curve, is_empty, thin, x_axis, y_axis

WIDTH = 520.0
PLOT_HEIGHT = 236.0
FONT_SIZE = 12.0
# On a phone the drawing shrinks and the style sheet raises the font size to this, so room is reserved for it.
LARGE_FONT_SIZE = 15.5
_TITLE_HEIGHT = 32.0
_ROW_HEIGHT = 19.0
_MOST_LABEL_ROWS = 6
_BOTTOM = 52.0
_RIGHT = 16.0
_TICK_GAP = 8.0
# Curves may overshoot the plot by half their width without being cut.
_BLEED = 4.0
# Values beyond y_limits are drawn up to so many plot heights away: outside the picture, at a finite place.
_FAR = 20.0


@dataclass(frozen=True)
class Layout:
    """Where things stand in a chart's drawing, in its own units.

    Args:
        x: the horizontal axis.
        y: the vertical axis.
        left: left edge of the plot.
        top: upper edge of the plot.
        width: width of the plot.
        height: height of the whole drawing.
        marks: the place of each mark's label; None for a mark that cannot be drawn.
    """

    x: Axis
    y: Axis
    left: float
    top: float
    width: float
    height: float
    marks: tuple[labels.Placed | None, ...]

    def across(self, values: object) -> Floats:
        """Return horizontal positions of `values`."""
        return self.left + self.width * np.clip(self.x.fraction(values), -_FAR, _FAR)  # type: ignore[arg-type]

    def down(self, values: object) -> Floats:
        """Return vertical positions of `values`, counted downwards."""
        return self.top + PLOT_HEIGHT * (1 - np.clip(self.y.fraction(values), -_FAR, _FAR))  # type: ignore[arg-type]


def svg(chart: Chart) -> str:
    """Return `chart` as one ``<svg>`` element, without its legend, which is HTML (:mod:`cyclewise.drawing.html`).

    Args:
        chart: what to draw; numbers that are not finite, or not above 0 on a logarithmic axis, leave a gap. A point
            between two gaps is a dot.

    Returns:
        Markup with a view box and no fixed size, readable on its own and inside a page.

    >>> from cyclewise.drawing.chart import Line
    >>> text = svg(Chart("Loss", "step (optimizer updates)", "loss", [Line("training", [0, 1, 2], [2.0, 1.0, 0.5])]))
    >>> text.startswith("<svg ") and text.endswith("</svg>")
    True
    """
    layout = arrange(chart)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_px(WIDTH)} {_px(layout.height)}" '
        f'width="100%" font-size="{_px(FONT_SIZE)}" font-family="system-ui,sans-serif" '
        f'style="font-variant-numeric:tabular-nums">',
        f"<title>{_text(chart.title)}</title><desc>{_text(describe(chart))}</desc>",
        _grid(layout),
        _axis_titles(chart, layout),
        _inside(_bands(chart, layout) + _curves(chart, layout), layout),
        _marks(chart, layout),
    ]
    if is_empty(chart):
        parts.append(_reason(chart, layout))
    return "".join(parts) + "</svg>"


def describe(chart: Chart) -> str:
    """Return what a chart shows in a sentence or two, for those who do not see it.

    >>> from cyclewise.drawing.chart import Line, Mark
    >>> describe(Chart("t", "rate", "loss", [Line("smoothed", [1, 2], [3, 4])], marks=[Mark("max_lr 1.5", 1.5)]))
    'loss against rate. smoothed: from 3 at 1 to 4 at 2, lowest 3, highest 4. Marked: max_lr 1.5 at 1.5.'
    """
    sentences = [f"{chart.y_label} against {chart.x_label}."]
    for index, line in enumerate(chart.lines):
        x, y = (values[np.isfinite(values)] for values in curve(chart, index))
        if not len(x):
            sentences.append(f"{line.name}: no finite values.")
            continue
        sentences.append(
            f"{line.name}: from {number(y[0])} at {number(x[0])} to {number(y[-1])} at {number(x[-1])}, "
            f"lowest {number(y.min())}, highest {number(y.max())}."
        )
    if is_empty(chart):
        sentences.append(f"{chart.empty}.")
    sentences += [f"{band.name}: {number(band.low)} to {number(band.high)}." for band in chart.bands]
    if chart.marks:
        sentences.append("Marked: " + ", ".join(f"{mark.name} at {number(mark.x)}" for mark in chart.marks) + ".")
    return " ".join(sentences)


def arrange(chart: Chart) -> Layout:
    """Return where everything of `chart` stands, such that no two labels overlap and none is cut."""
    y = y_axis(chart)
    left = 14.0 + max(labels.width(text, LARGE_FONT_SIZE) for text in y.ticks.labels)
    width = WIDTH - left - _RIGHT
    x = _fitting_x_axis(chart, left)
    texts = [_mark_text(mark.name) for mark in chart.marks]
    shown = [bool(np.isfinite(drawable(mark.x, log=chart.x_log))) for mark in chart.marks]
    placed = iter(
        labels.place(
            [float(left + width * x.fraction(mark.x)) for mark, ok in zip(chart.marks, shown, strict=True) if ok],
            [labels.width(text, LARGE_FONT_SIZE) for text, ok in zip(texts, shown, strict=True) if ok],
            low=2.0,
            high=WIDTH - 2.0,
            most_rows=_MOST_LABEL_ROWS,
        )
    )
    marks = tuple(next(placed) if ok else None for ok in shown)
    rows = max((mark.row + 1 for mark in marks if mark and mark.row is not None), default=0)
    top = _TITLE_HEIGHT + rows * _ROW_HEIGHT - (6 if rows else 0)
    return Layout(x, y, left, top, width, top + PLOT_HEIGHT + _BOTTOM, marks)


def _fitting_x_axis(chart: Chart, left: float) -> Axis:
    for most in (7, 6, FEWEST_TICKS):
        axis = x_axis(chart, most=most)
        if _fits(axis, axis.ticks, left):
            return axis
    for stride in (2, 3, len(axis.ticks.labels) - 1):
        ticks = Ticks(axis.ticks.positions[::stride], axis.ticks.labels[::stride])
        if _fits(axis, ticks, left):
            break
    return Axis(axis.low, axis.high, axis.log, ticks)


def _fits(axis: Axis, ticks: Ticks, left: float) -> bool:
    places = left + (WIDTH - left - _RIGHT) * axis.fraction(ticks.positions)
    middles = np.asarray([_within(x, label) for x, label in zip(places.tolist(), ticks.labels, strict=True)])
    halves = np.asarray([labels.width(text, LARGE_FONT_SIZE) for text in ticks.labels]) / 2
    return bool(np.all(middles[1:] - halves[1:] - middles[:-1] - halves[:-1] >= _TICK_GAP))


def _grid(layout: Layout) -> str:
    right, bottom = layout.left + layout.width, layout.top + PLOT_HEIGHT
    lines = "".join(f"M{_px(layout.left)} {_px(y)}H{_px(right)}" for y in layout.down(layout.y.ticks.positions))
    lines += "".join(f"M{_px(x)} {_px(layout.top)}V{_px(bottom)}" for x in layout.across(layout.x.ticks.positions))
    y_texts = "".join(
        f'<text x="{_px(layout.left - 8)}" y="{_px(y + 4)}">{_text(label)}</text>'
        for y, label in zip(layout.down(layout.y.ticks.positions), layout.y.ticks.labels, strict=True)
    )
    x_texts = "".join(
        f'<text x="{_px(_within(x, label))}" y="{_px(bottom + 19)}">{_text(label)}</text>'
        for x, label in zip(layout.across(layout.x.ticks.positions), layout.x.ticks.labels, strict=True)
    )
    return (
        f'<path d="{lines}" fill="none" stroke="{palette.css("rule")}"/>'
        f'<path d="M{_px(layout.left)} {_px(bottom)}H{_px(right)}" stroke="{palette.css("muted")}"/>'
        f'<g fill="{palette.css("quiet")}" text-anchor="end">{y_texts}</g>'
        f'<g fill="{palette.css("quiet")}" text-anchor="middle">{x_texts}</g>'
    )


def _axis_titles(chart: Chart, layout: Layout) -> str:
    y_title = labels.fit(labels.clean(chart.y_label), WIDTH - 4, LARGE_FONT_SIZE)
    x_title = labels.fit(labels.clean(chart.x_label), WIDTH - 4, LARGE_FONT_SIZE)
    # Centred under the plot, but never past the edges of the drawing.
    middle = _within(layout.left + layout.width / 2, x_title)
    return (
        f'<g fill="{palette.css("ink")}"><text class="cw-y-title" x="2" y="14">{_text(y_title)}</text>'
        f'<text class="cw-x-title" x="{_px(middle)}" y="{_px(layout.height - 9)}" text-anchor="middle">'
        f"{_text(x_title)}</text></g>"
    )


def _inside(content: str, layout: Layout) -> str:
    # A nested <svg> clips what it holds: no clipPath, hence no id that could clash with another chart on the page.
    x, y, w, h = (
        _px(value)
        for value in (
            layout.left - _BLEED,
            layout.top - _BLEED,
            layout.width + 2 * _BLEED,
            PLOT_HEIGHT + 2 * _BLEED,
        )
    )
    return f'<svg x="{x}" y="{y}" width="{w}" height="{h}" viewBox="{x} {y} {w} {h}">{content}</svg>'


def _bands(chart: Chart, layout: Layout) -> str:
    parts = []
    for band, color in zip(chart.bands, band_colors(chart), strict=True):
        low, high = sorted(layout.across([band.low, band.high]).tolist())
        if not np.isfinite(low + high):
            continue
        parts.append(
            f'<rect class="cw-band" x="{_px(low)}" y="{_px(layout.top)}" width="{_px(max(high - low, 1.0))}" '
            f'height="{_px(PLOT_HEIGHT)}" fill="{palette.css(color)}" fill-opacity=".13"/>'
        )
    return "".join(parts)


def _curves(chart: Chart, layout: Layout) -> str:
    parts = []
    for index, (line, style) in enumerate(zip(chart.lines, palette.styles(chart.lines), strict=True)):
        whole = curve(chart, index)
        x, y = thin(*whole)
        across, down = layout.across(x), layout.down(y)
        path = _dots(across, down) if line.points else _polyline(across, down)
        dashes = f' stroke-dasharray="{_numbers(style.dashes)}"' if style.dashes else ""
        faint = ' stroke-opacity=".75"' if line.points else ""
        parts.append(
            f'<path class="cw-line" d="{path}" fill="none" stroke="{palette.css(style.color)}" '
            f'stroke-width="{_px(style.width)}" stroke-linejoin="round" '
            f'stroke-linecap="{"butt" if dashes else "round"}"{dashes}{faint}/>'
        )
        x, y = thin(*alone(*whole))
        if len(x) and not line.points:
            parts.append(
                f'<path class="cw-dot" d="{_dots(layout.across(x), layout.down(y))}" fill="none" '
                f'stroke="{palette.css(style.color)}" stroke-width="{_px(style.alone)}" stroke-linecap="round"/>'
            )
    return "".join(parts)


def _reason(chart: Chart, layout: Layout) -> str:
    lines = labels.wrap(labels.clean(chart.empty), layout.width - 8, LARGE_FONT_SIZE)
    middle = layout.top + PLOT_HEIGHT / 2 - (len(lines) - 1) * _ROW_HEIGHT / 2
    return "".join(
        f'<text x="{_px(layout.left + layout.width / 2)}" y="{_px(middle + row * _ROW_HEIGHT)}" text-anchor="middle" '
        f'fill="{palette.css("quiet")}">{_text(line)}</text>'
        for row, line in enumerate(lines)
    )


def _polyline(across: Floats, down: Floats) -> str:
    path: list[str] = []
    length = 0
    for x, y in zip(across.tolist(), down.tolist(), strict=True):
        if x != x:
            # A point that thinning has left alone would draw nothing; a stroke of no length draws the round cap.
            if length == 1:
                path.append("h0")
            length = 0
            continue
        path.append(f"{'L' if length else 'M'}{_px(x)} {_px(y)}")
        length += 1
    return "".join(path) + ("h0" if length == 1 else "")


def _dots(across: Floats, down: Floats) -> str:
    points = zip(across.tolist(), down.tolist(), strict=True)
    return "".join(f"M{_px(x)} {_px(y)}h0" for x, y in points if x == x)


def _marks(chart: Chart, layout: Layout) -> str:
    lines, texts = [], []
    bottom = layout.top + PLOT_HEIGHT
    for mark, placed in zip(chart.marks, layout.marks, strict=True):
        if placed is None:
            continue
        color = palette.css(palette.mark_color(mark.role))
        x = _px(float(layout.across(mark.x)))
        start = layout.top if placed.row is None else layout.top - placed.row * _ROW_HEIGHT - 4
        dashes = "" if mark.role == "primary" else ' stroke-dasharray="5 4"'
        title = f"<title>{_text(mark.name)}</title>"
        lines.append(
            f'<path class="cw-mark" d="M{x} {_px(start)}V{_px(bottom)}" stroke="{color}" stroke-width="1.6"{dashes}>'
            f"{title}</path>"
        )
        if placed.row is not None:
            # The halo keeps the line of a mark whose label stands higher from crossing this one.
            texts.append(
                f'<text class="cw-mark-label" x="{_px(placed.middle)}" '
                f'y="{_px(layout.top - placed.row * _ROW_HEIGHT - 9)}" text-anchor="middle" font-weight="600" '
                f'fill="{color}" stroke="{palette.css("background")}" stroke-width="4" stroke-linejoin="round" '
                f'paint-order="stroke">{_text(_mark_text(mark.name))}{title}</text>'
            )
    return "".join(lines + texts)


def band_colors(chart: Chart) -> list[str]:
    """Return the colour's name of each band of `chart`."""
    return [palette.BANDS[index % len(palette.BANDS)] for index in range(len(chart.bands))]


def _mark_text(name: str) -> str:
    return labels.fit(labels.clean(name), WIDTH - 8, LARGE_FONT_SIZE)


def _within(middle: float, text: str) -> float:
    half = labels.width(text, LARGE_FONT_SIZE) / 2
    return max(half, min(middle, WIDTH - half))


def _numbers(values: Sequence[float]) -> str:
    return " ".join(_px(value) for value in values)


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    return html.escape(labels.clean(text))
