import numpy as np
import pytest

from cyclewise.drawing import Band, Chart, Line, Mark, Section, Table
from cyclewise.report import write_html

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
NASTY = '</script><script>alert(1)</script>"><img src=x onerror=alert(1)>'
CHART = "figure .cw-plot > svg"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    rates = np.geomspace(1e-5, 1, 101)
    steps = np.arange(3000)
    find = Section(
        "Learning rate range test",
        "max_lr 0.42, between 0.25 and 0.60.",
        charts=[
            Chart(
                "Loss against the learning rate",
                "learning rate (log scale)",
                "training loss",
                [
                    Line("each step", rates, 2 - rates, role="muted", points=True),
                    Line("smoothed", rates, np.where(rates > 0.9, np.nan, 2 - rates)),
                ],
                bands=[Band("interval", 0.25, 0.6)],
                marks=[Mark("max_lr 0.42", 0.42), Mark("base_lr 0.04", 0.04, role="secondary")],
                x_log=True,
            )
        ],
        tables=[Table([f"a long column {index}" for index in range(12)], [["0.123456"] * 12], caption="Readings")],
        settings={"optimizer": "SGD(" + "x" * 300 + ")", "seed": "0"},
    )
    fit = Section(
        NASTY,
        NASTY,
        charts=[
            Chart("Learning rate", "step (optimizer updates)", "rate", [Line("one-cycle", steps, steps / 3000)]),
            Chart(NASTY, NASTY, NASTY, [Line(NASTY, [0, 1, 2], [0, 1, 2]), Line("b", [0, 2], [3, 4], dashed=True)]),
        ],
        settings={NASTY: NASTY},
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_html([find, fit], path, title=f"Digits {NASTY}", command="cyclewise demo")


def test_charts_and_their_axis_titles_are_there(report, page_for):
    page = page_for(report).page
    assert page.locator(CHART).count() == 3
    for title in ("learning rate (log scale)", "training loss", "step (optimizer updates)"):
        assert page.get_by_text(title, exact=True).first.is_visible()
    box = page.locator(CHART).first.bounding_box()
    assert box["width"] > 400
    assert box["height"] > 200


def test_texts_of_a_chart_do_not_overlap(report, page_for):
    for context in ({}, PHONE):
        page = page_for(report, **context).page
        boxes = (
            page.locator(CHART)
            .first.locator("text")
            .evaluate_all(
                "texts => texts.map(t => t.getBoundingClientRect()).map(b => [b.left, b.right, b.top, b.bottom])"
            )
        )
        assert len(boxes) > 10
        for index, (left, right, top, bottom) in enumerate(boxes):
            # Boxes of lines of text include their leading: a pixel or two may be shared.
            for a, b, c, d in boxes[:index]:
                assert right <= a or left >= b or bottom <= c + 3 or top >= d - 3


def test_the_pointer_shows_values(report, page_for):
    page = page_for(report).page
    chart, tip = page.locator(CHART).first, page.locator(".cw-tip").first
    chart.scroll_into_view_if_needed()
    assert tip.is_hidden()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert tip.is_visible()
    shown = tip.inner_text()
    assert "learning rate (log scale)" in shown
    assert "each step" in shown
    assert "smoothed" in shown
    assert "1.99" in shown
    page.mouse.move(0, 0)
    assert tip.is_hidden()


def test_a_gap_has_no_value(report, page_for):
    page = page_for(report).page
    chart = page.locator(CHART).first
    chart.focus()
    chart.press("End")
    shown = page.locator(".cw-tip").first.inner_text().split()
    assert "step" in shown
    assert "smoothed" not in shown


def test_the_keyboard_moves_from_value_to_value(report, page_for):
    page = page_for(report).page
    chart, tip = page.locator(CHART).first, page.locator(".cw-tip").first
    for _ in range(12):
        page.keyboard.press("Tab")
        if chart.evaluate("chart => chart === document.activeElement"):
            break
    # It begins at the first mark.
    assert "0.3981" in tip.inner_text()
    page.keyboard.press("ArrowLeft")
    assert "0.3548" in tip.inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "0.4467" in tip.inner_text()
    page.keyboard.press("Home")
    assert "1e-5" in tip.inner_text()
    page.keyboard.press("ArrowLeft")
    assert "1e-5" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_pointer_finds_the_sparse_line_among_the_dense_one(tmp_path, page_for):
    lines = [Line("training", range(1000), range(1000)), Line("validation", [300, 700], [3, 7])]
    path = write_html(Section("t", "c", [Chart("t", "step", "loss", lines)]), tmp_path / "report.html")
    page = page_for(path).page
    box = page.locator(CHART).bounding_box()
    seen = set()
    for offset in range(0, int(box["width"]), 4):
        page.mouse.move(box["x"] + offset, box["y"] + box["height"] / 2)
        seen |= {tuple(page.locator(".cw-tip").inner_text().split("\n"))}
    assert ("step", "300", "training", "300", "validation", "3") in seen
    assert ("step", "700", "training", "700", "validation", "7") in seen
    assert len(seen) > 50


def test_a_tap_shows_values(report, page_for):
    page = page_for(report, **PHONE).page
    chart = page.locator(CHART).first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator(".cw-tip").first
    assert "smoothed" in tip.inner_text()
    place = tip.bounding_box()
    # Below the chart, so that it hides nothing of it, and inside the screen.
    assert place["y"] >= box["y"] + box["height"] - 1
    assert place["x"] >= box["x"] - 1
    assert place["x"] + place["width"] <= box["x"] + box["width"] + 1


def test_a_phone_shows_it_without_scrolling_sideways(report, page_for):
    page = page_for(report, **PHONE).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # The wide table scrolls by itself.
    assert page.locator(".cw-scroll").first.evaluate("box => box.scrollWidth > box.clientWidth")
    assert page.locator(CHART).first.locator(".cw-x-title").bounding_box()["height"] > 11


def test_dark_screens_get_a_dark_page_and_paper_a_light_one(report, page_for):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = page_for(report, color_scheme="light").page, page_for(report, color_scheme="dark").page
    assert background(light) == "rgb(255, 255, 255)"
    assert background(dark) == "rgb(20, 24, 29)"
    stroke = "getComputedStyle(document.querySelectorAll('.cw-line')[1]).stroke"
    assert light.evaluate(stroke) != dark.evaluate(stroke)
    dark.emulate_media(media="print")
    assert background(dark) == "rgb(255, 255, 255)"


def test_names_are_shown_and_not_executed(report, page_for):
    page = page_for(report).page
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == f"Digits {NASTY}"
    chart = page.locator(CHART).nth(2)
    chart.focus()
    chart.press("Home")
    assert NASTY in page.locator(".cw-tip").nth(2).inner_text()
    assert page.locator("img").count() == 0


def test_a_table_is_copied(report, page_for):
    page = page_for(report).page
    button = page.locator(".cw-copy").first
    button.click()
    assert button.inner_text() in ("Copied", "Selected: press Ctrl+C")


def test_it_prints(report, page_for):
    assert page_for(report).page.pdf(format="A4").startswith(b"%PDF")


def test_it_reads_without_javascript(report, page_for):
    visit = page_for(report, java_script_enabled=False)
    assert visit.page.locator(CHART).count() == 3
    assert visit.page.locator(CHART).first.locator("title").first.text_content() == "Loss against the learning rate"
    assert visit.page.get_by_text("How this was made").is_visible()
