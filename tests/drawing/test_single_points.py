"""What no line leads to is drawn all the same: a curve of one point, a point between gaps, and why there is none."""

import io
import math
from xml.etree import ElementTree

import numpy as np
import pytest

from cyclewise.drawing import Chart, Line
from cyclewise.drawing.figure import draw
from cyclewise.drawing.labels import wrap
from cyclewise.drawing.svg import LARGE_FONT_SIZE, WIDTH, describe, svg
from cyclewise.range_test.curve import Curve
from cyclewise.range_test.refusal import Refusal, StopReason
from cyclewise.range_test.result import RangeTest
from cyclewise.training.history import Epoch, History

NAMESPACE = "{http://www.w3.org/2000/svg}"
ROLES = ("primary", "secondary", "muted")
NAN = math.nan


def chart_of(x, y, **settings):
    return Chart("t", "x", "y", [Line("a", x, y, **settings)])


def svg_dots(chart):
    """Return place, width and cap of the dots that are drawn for single points."""
    paths = [e for e in ElementTree.fromstring(svg(chart)).iter(f"{NAMESPACE}path") if e.get("class") == "cw-dot"]
    assert all(path.get("stroke-linecap") == "round" and path.get("stroke-dasharray") is None for path in paths)
    return [(path.get("d").count("h0"), float(path.get("stroke-width"))) for path in paths]


def figure_dots(chart):
    """Return x, y and size of the markers that are drawn for single points."""
    lines = [line for line in draw([chart]).axes[0].lines if line.get_marker() == "o"]
    return [(line.get_xdata().tolist(), line.get_ydata().tolist(), line.get_markersize()) for line in lines]


@pytest.mark.parametrize("dashed", [False, True])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("y", "at"),
    [
        ([5.0], [0]),
        ([NAN, 5.0, NAN], [1]),
        ([1.0, NAN, 2.0, 3.0, NAN, math.inf, 4.0], [0, 6]),
        ([1.0, 2.0], []),
        ([], []),
    ],
)
def test_a_point_without_neighbours_is_a_dot_that_can_be_seen(y, at, role, dashed):
    chart = chart_of(range(len(y)), y, role=role, dashed=dashed)
    if not at:
        assert svg_dots(chart) == figure_dots(chart) == []
        return
    ((num_dots, diameter),) = svg_dots(chart)
    ((x, heights, size),) = figure_dots(chart)
    assert num_dots == len(at)
    assert (x, heights) == (at, [y[i] for i in at])
    assert diameter >= 5.0
    assert size == pytest.approx(0.75 * diameter)


def test_dots_of_a_log_axis_and_of_points_are_as_they_were():
    chart = Chart("t", "x", "y", [Line("a", [1, 2, 3], [1.0, 0.0, 2.0])], y_log=True)
    assert svg_dots(chart)[0][0] == 2
    assert svg_dots(chart_of([1], [1.0], points=True)) == []
    assert len(figure_dots(chart_of([1], [1.0], points=True))) == 1


def test_a_dot_beyond_the_limits_is_not_drawn_over_the_title():
    chart = Chart("t", "x", "y", [Line("a", [0, 1, 2], [9.0, NAN, 1.0])], y_limits=(0.0, 2.0))
    assert figure_dots(chart)[0][:2] == ([2], [1.0])


def test_many_single_points_are_thinned():
    y = np.where(np.arange(20_000) % 2, NAN, np.sin(np.arange(20_000) / 500))
    assert 100 < svg_dots(chart_of(range(20_000), y))[0][0] <= 801


def history(num_steps):
    epochs = (Epoch(num_steps, 0.7, 0.6, {"accuracy": 0.8}),)
    return History(lr=[0.1] * num_steps, momentum=[0.9] * num_steps, loss=[0.7] * num_steps, epochs=epochs)


@pytest.mark.parametrize("num_steps", [1, 5])
def test_one_epoch_of_one_step_or_several_shows_every_curve(num_steps):
    found = history(num_steps)
    charts = found.charts()
    # Loss: three curves, of which that of the steps is a line where there are several; rate, momentum, accuracy.
    expected = [3, 1, 1, 1] if num_steps == 1 else [2, 0, 0, 1]
    assert [len(svg_dots(chart)) for chart in charts] == expected
    assert [sum(line.get_marker() == "o" for line in axes.lines) for axes in found.plot().axes] == expected


# -- nothing to draw --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", list(Refusal))
def test_a_refused_range_test_without_a_curve_says_why_in_its_picture(refusal):
    test = RangeTest(curve=Curve([], []), stop_reason=StopReason.NOT_STARTED, refusal=refusal)
    reason = f"no learning rate: {refusal.value}"
    (axes,) = test.plot().axes
    assert [text.get_text().replace("\n", " ") for text in axes.texts] == [reason]
    (chart,) = test.section().charts
    root = ElementTree.fromstring(svg(chart))
    assert reason in " ".join(element.text for element in root.iter(f"{NAMESPACE}text"))
    assert f"{reason}." in describe(chart)


def test_a_range_test_with_a_curve_says_nothing_in_it():
    rates = np.geomspace(1e-4, 1, 5)
    test = RangeTest(curve=Curve(rates, rates + 1), stop_reason=StopReason.COMPLETED, refusal=Refusal.TOO_FEW_STEPS)
    assert not test.plot().axes[0].texts
    assert "no learning rate" not in svg(test.section().charts[0])


@pytest.mark.parametrize("y", [[], [NAN, math.inf]])
def test_other_charts_without_points_say_so_in_both_kinds_of_picture(y):
    chart = chart_of(range(len(y)), y)
    assert [text.get_text() for text in draw([chart]).axes[0].texts] == ["no finite values to draw"]
    assert describe(chart) == "y against x. a: no finite values. no finite values to draw."


def test_a_long_reason_is_wrapped_and_cut_to_the_plot():
    reason = "$a reason_ <that> & goes on " * 6 + "x" * 200
    lines = wrap(reason, WIDTH, LARGE_FONT_SIZE)
    assert len(lines) > 2
    assert " ".join(lines).startswith(reason[:100])
    chart = Chart("t", "x", "y", [], empty=reason)
    assert len(ElementTree.fromstring(svg(chart)).findall(f"{NAMESPACE}text")) >= len(lines)
    draw([chart]).savefig(io.BytesIO())
