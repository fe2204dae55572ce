"""The report of the main job, in a real browser."""

import pytest
from typer.testing import CliRunner

from cyclewise.cli import app

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "report.html"
    result = CliRunner().invoke(app, ["demo", "--seeds", "2", "--html", str(path)])
    assert result.exit_code == 0, result.stderr
    return path


def test_the_demo_report_opens_without_complaint_and_shows_its_charts(report, page_for):
    page = page_for(report).page
    for title in ("Loss against learning rate", "Accuracy on validation data", "Learning rate", "Momentum"):
        assert page.get_by_role("heading", name=title, exact=True).first.is_visible()
    assert page.locator("svg[role=img]").count() == 6
    assert page.get_by_text("max_lr").first.is_visible()
    assert page.get_by_role("table").first.is_visible()
    assert "cyclewise demo" in page.content() or "Python" in page.content()


def test_the_demo_report_fits_a_phone(report, page_for):
    page = page_for(report, viewport={"width": 390, "height": 844}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
