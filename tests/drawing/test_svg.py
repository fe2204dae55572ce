import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclewise.drawing import Band, Chart, Line, Mark
from cyclewise.drawing.curves import thin
from cyclewise.drawing.hover import payload
from cyclewise.drawing.labels import fit, place, width
from cyclewise.drawing.palette import DARK, LIGHT, styles
from cyclewise.drawing.svg import LARGE_FONT_SIZE, WIDTH, arrange, svg
from cyclewise.errors import ArgumentError

NAMESPACE = "{http://www.w3.org/2000/svg}"
NASTY = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b <!-- c", "\x00\ud800\u2028"]
floats = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)


def chart_of(y, x=None, **settings):
    return Chart("Title", "x (steps)", "y (nats)", [Line("a", range(len(y)) if x is None else x, y)], **settings)


def parsed(chart):
    return ElementTree.fromstring(svg(chart))


def texts(chart):
    return [element.text for element in parsed(chart).iter(f"{NAMESPACE}text")]


def paths(chart):
    return [e.get("d") for e in parsed(chart).iter(f"{NAMESPACE}path") if e.get("class") == "cw-line"]


def test_a_drawing_scales_and_says_what_it_shows():
    root = parsed(chart_of([2.0, 1.0], marks=[Mark("here", 0.5)], bands=[Band("interval", 0.2, 0.7)]))
    assert root.get("width") == "100%"
    assert root.get("viewBox").startswith("0 0 520 ")
    assert root.get("role") == "img"
    assert root.find(f"{NAMESPACE}title").text == "Title"
    assert root.find(f"{NAMESPACE}desc").text == (
        "y (nats) against x (steps). a: from 2 at 0 to 1 at 1, lowest 1, highest 2. "
        "interval: 0.2 to 0.7. Marked: here at 0.5."
    )


def test_axis_titles_and_ticks_are_drawn():
    found = texts(chart_of([2.0, 1.0], x=[1e-5, 1.0], x_log=True))
    assert {"x (steps)", "y (nats)", "1e-5", "1e-4", "0.001", "0.01", "0.1", "1"} <= set(found)


def test_values_that_are_not_finite_leave_a_gap():
    (path,) = paths(chart_of([1.0, 2.0, math.nan, 3.0, 4.0, math.inf, 5.0]))
    assert path.count("M") == 3
    assert path.endswith("h0")


def test_values_below_zero_leave_a_gap_on_a_log_axis():
    (path,) = paths(chart_of([1.0, -2.0, 0.0, 3.0, 4.0], y_log=True))
    assert path.count("M") == 2


def test_a_chart_without_finite_values_says_so():
    assert "no finite values to draw" in texts(chart_of([math.nan, math.inf]))
    assert "no finite values to draw" in texts(Chart("t", "x", "y", []))


@given(st.lists(st.tuples(floats, floats), max_size=8), floats, floats, st.booleans(), st.booleans())
def test_only_finite_numbers_reach_the_markup(points, low, high, x_log, y_log):
    chart = Chart(
        "t",
        "x",
        "y",
        [Line("a", [x for x, _ in points], [y for _, y in points]), Line("b", [low, high], [low, high], points=True)],
        bands=[Band("band", low, high)],
        marks=[Mark("mark", low), Mark("other", high, role="secondary")],
        x_log=x_log,
        y_log=y_log,
        y_limits=(low, high),
    )
    drawn = parsed(chart)
    attributes = " ".join(value for element in drawn.iter() for value in element.attrib.values())
    assert not re.search(r"\b(nan|inf|infinity)\b", attributes, re.IGNORECASE)
    json.loads(payload(chart), parse_constant=lambda name: pytest.fail(f"{name} in the hover data"))


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text_and_nothing_else(name):
    chart = Chart(name, name, name, [Line(name, [0, 1], [0, 1])], [Band(name, 0, 1)], [Mark(name, 0.5)])
    drawn = svg(chart)
    assert {element.tag.removeprefix(NAMESPACE) for element in ElementTree.fromstring(drawn).iter()} == {
        *("svg", "title", "desc", "path", "g", "text", "rect")
    }
    assert "<script" not in drawn
    assert "<img" not in drawn
    assert drawn.encode()
    data = payload(chart)
    assert data.isascii()
    assert not set("<>&") & set(data)
    json.loads(data)


def test_labels_of_marks_do_not_overlap_and_are_not_cut():
    names = ["max_lr 0.42", "base_lr 0.04", "steepest 0.41", "valley 0.40", "minimum 0.99"]
    marks = [Mark(name, x) for name, x in zip(names, [0.42, 0.04, 0.41, 0.40, 0.99], strict=True)]
    layout = arrange(chart_of([1.0, 2.0], marks=marks))
    boxes = []
    for mark, placed in zip(marks, layout.marks, strict=True):
        half = width(mark.name, LARGE_FONT_SIZE) / 2
        boxes.append((placed.row, placed.middle - half, placed.middle + half))
    assert all(0 <= low and high <= WIDTH for _, low, high in boxes)
    for index, (row, low, high) in enumerate(boxes):
        assert all(row != other or high <= start or low >= end for other, start, end in boxes[:index])


def test_a_mark_without_a_finite_place_is_left_out():
    chart = chart_of([1.0, 2.0], marks=[Mark("nowhere", math.nan), Mark("here", 0.5)])
    assert "here" in texts(chart)
    assert "nowhere" not in texts(chart)


@given(st.floats(1, 1e12), st.floats(1e-6, 1))
def test_tick_labels_never_overlap(start, spread):
    drawn = parsed(chart_of([0.0, 1.0], x=[start, start * (1 + spread)]))
    (group,) = (g for g in drawn.iter(f"{NAMESPACE}g") if g.get("text-anchor") == "middle")
    middles = [float(text.get("x")) for text in group]
    halves = [width(text.text, LARGE_FONT_SIZE) / 2 for text in group]
    ends = [middle + half for middle, half in zip(middles, halves, strict=True)]
    starts = [middle - half for middle, half in zip(middles, halves, strict=True)]
    assert len(middles) >= 2
    assert all(end < start for end, start in zip(ends[:-1], starts[1:], strict=True))


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(1, 200)), max_size=12))
def test_placed_labels_stay_apart(labels):
    placed = place([p for p, _ in labels], [w for _, w in labels], low=0, high=500, most_rows=4)
    boxes = [(p.row, p.middle - w / 2, p.middle + w / 2) for p, (_, w) in zip(placed, labels, strict=True)]
    for index, (row, low, high) in enumerate(boxes):
        assert low >= -1e-9
        assert high <= 500 + 1e-9
        assert row is None or all(row != r or high <= a or low >= b for r, a, b in boxes[:index])


def test_a_line_needs_one_x_for_each_y():
    message = "x and y of line 'a' must be equally long, got 2 and 1; pass one x for each y"
    with pytest.raises(ArgumentError, match=f"^{message}$"):
        Line("a", [0, 1], [0])


def test_long_text_is_cut_with_an_ellipsis():
    assert fit("x" * 500, 100, 10) == "x" * 15 + "…"
    assert fit("short", 100, 10) == "short"


def test_a_long_curve_is_thinned_and_keeps_its_extremes_ends_and_gaps():
    x = np.arange(50_000.0)
    y = np.sin(x / 300)
    y[12_345], y[33_333], y[40_000] = 9.0, -9.0, np.nan
    few_x, few_y = thin(x, y)
    assert len(few_x) <= 801
    assert np.nanmax(few_y) == 9.0
    assert np.nanmin(few_y) == -9.0
    assert (few_x[0], few_x[-1]) == (0.0, 49_999.0)
    assert np.isnan(few_y).any()
    assert np.all(np.diff(few_x) > 0)
    assert len(svg(chart_of(y, x=x))) < 20_000


def test_lines_that_would_look_alike_differ_in_more_than_colour():
    lines = [Line(str(index), [0], [0], role="secondary") for index in range(4)]
    looks = styles(lines)
    assert len({style.color for style in looks}) == 4
    assert len({style.dashes for style in looks}) == 4
    primary, secondary = styles([Line("a", [0], [0]), Line("b", [0], [0], role="secondary")])
    assert primary.width > secondary.width


def luminance(color):
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_have_contrast(colors):
    ground = luminance(colors["background"])
    for name in ("ink", "quiet", "accent", "second", "third", "fourth", "fifth", "sixth"):
        dark, light = sorted((ground, luminance(colors[name])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name
    assert set(LIGHT) == set(DARK)
