"""A headless Chromium that sees what a page says and asks for.

``page_for(path, **context)`` opens a file and returns a `Visit`; leaving the test checks that nothing went wrong.
"""

import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest

# What Chromium would otherwise do on its own: draw on a GPU, call home, update itself.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Visit:
    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def foreign_requests(self):
        return [url for url in self.requests if url.partition("#")[0] != self.url and url != "data:,"]


def unavailable(reason):
    if os.environ.get("CYCLEWISE_REQUIRE_BROWSER") == "1":
        pytest.fail(f"CYCLEWISE_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        unavailable("there is no chromium on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def page_for(browser):
    """Open a file in a fresh context; at the end of the test, no complaint and no foreign request may have come."""
    contexts, visits = [], []

    def open_page(path, **context):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        contexts.append(context)
        page = context.new_page()
        visit = Visit(page, path.resolve().as_uri())
        visits.append(visit)
        page.on("console", lambda message: visit.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: visit.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (visit.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: visit.requests.append(request.url))
        page.goto(visit.url)
        return visit

    yield open_page
    for context in contexts:
        context.close()
    for visit in visits:
        assert visit.complaints == []
        assert visit.foreign_requests == []
