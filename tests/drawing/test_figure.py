import io
import math
import re
import subprocess
import sys

import pytest
from matplotlib.colors import to_hex

from cyclewise.drawing import Band, Chart, Line, Mark
from cyclewise.drawing.figure import draw
from cyclewise.drawing.palette import LIGHT
from cyclewise.errors import ArgumentError, ArgumentTypeError

CHART = Chart(
    "Loss",
    "learning rate (log scale)",
    "loss",
    [Line("raw", [1e-4, 1e-2, 1], [2, math.nan, 3], role="muted", points=True), Line("_x $y", [1e-4, 1], [2, 1])],
    bands=[Band("interval", 0.1, 0.5)],
    marks=[Mark("max_lr 0.3", 0.3), Mark("nowhere", math.nan)],
    x_log=True,
    y_limits=(0, 4),
)


def test_a_figure_has_one_column_of_axes():
    figure = draw([CHART, CHART])
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert axes.get_xlabel() == "learning rate (log scale)"
        assert axes.get_ylabel() == "loss"
        assert axes.get_xscale() == "log"
        assert axes.get_ylim() == (0, 4)
        assert [text.get_text() for text in axes.texts] == ["max_lr 0.3"]


def test_roles_have_the_colours_of_the_svg():
    dots, line = draw([CHART]).axes[0].lines[:2]
    assert to_hex(dots.get_color()) == LIGHT["muted"]
    assert to_hex(line.get_color()) == LIGHT["accent"]


def test_every_line_and_band_is_in_the_legend():
    legend = draw([CHART]).axes[0].get_legend()
    assert [text.get_text().lstrip("\u200b") for text in legend.get_texts()] == ["raw", r"_x \$y", "interval"]


@pytest.mark.parametrize("name", ["seed", "a policy with a long name, its interval"])
def test_a_long_legend_covers_no_curve(name):
    lines = [Line(f"{name} {i}", [0, 1], [i, i]) for i in range(9)]
    figure = draw([Chart("Many", "step", "loss", lines), CHART])
    figure.draw_without_rendering()
    many, few = figure.axes
    assert [text.get_text() for text in many.get_legend().get_texts()] == [line.name for line in lines]
    legend, label = many.get_legend().get_window_extent(), many.xaxis.label.get_window_extent()
    assert few.get_window_extent().y1 < legend.y0 < legend.y1 < label.y0
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    alone = draw([CHART])
    alone.draw_without_rendering()
    assert few.get_window_extent().height == pytest.approx(alone.axes[0].get_window_extent().height, rel=0.05)


def test_it_is_saved_without_a_display_and_without_warnings():
    file = io.BytesIO()
    draw([CHART, Chart("$", "^_{", r"\frac{", [Line("a$b$", [], [])])]).savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [1]), ([1, 2], [math.inf, math.nan]), ([-1, 0], [5e-324, 1e308])])
@pytest.mark.parametrize("log", [False, True])
def test_degenerate_curves_are_drawn(x, y, log):
    draw([Chart("t", "x", "y", [Line("a", x, y)], x_log=log, y_log=log)]).savefig(io.BytesIO())


def test_long_names_leave_room_for_the_axes():
    name = "a long name " * 100
    figure = draw([Chart(name, name, name, [Line(name, [0, 1], [0, 1])] * 3, [Band(name, 0, 1)], [Mark(name, 0.5)])])
    figure.savefig(io.BytesIO())
    assert figure.axes[0].get_position().width > 0.8


def test_nothing_to_draw_is_an_error():
    message = "charts must hold at least one chart, got []; pass what is to be drawn"
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        draw([])


def test_an_item_of_another_kind_is_an_error():
    with pytest.raises(ArgumentTypeError, match=r"^charts must hold charts, got a str; pass a list of Chart$"):
        draw(["loss"])


def test_importing_brings_neither_matplotlib_nor_jinja():
    program = (
        "import sys, cyclewise.drawing.figure, cyclewise.drawing.html, cyclewise.report; "
        "print(sorted({'matplotlib', 'jinja2', 'torch'} & set(sys.modules)))"
    )
    # torch is cyclewise's to import elsewhere; a picture needs none of the three.
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
