"""One report of everything: a range test, a history, a diagnosis, a search and a comparison of one small problem."""

import pytest
import torch
from torch import nn

import cyclewise as cw

pytestmark = pytest.mark.browser

SIZES = {
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}


def make_learner(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(400, 6, generator=generator)
    data = cw.Data.from_arrays(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long(), batch_size=32, seed=seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    return cw.Learner(model, data, metrics={"accuracy": cw.accuracy}, progress=False)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    learn = make_learner(0)
    test = learn.lr_find()
    found = learn.search_start(budget=12, num_steps=5, max_lr=0.1, redraw=lambda seed: make_learner(seed).model)
    learn.fit_one_cycle(2, max_lr=0.1)
    policies = {"constant": cw.Constant(lr=0.1, total_steps=20), "one-cycle": cw.OneCycle(max_lr=0.3, total_steps=20)}
    comparison = cw.compare(
        policies, make_learner, seeds=range(3), metric="accuracy", baseline="constant", engine="local", progress=False
    )
    records = [test, learn.history, learn.diagnose(num_batches=2), found, comparison]
    path = cw.write_html(records, tmp_path_factory.mktemp("whole") / "report.html")
    return path, [record.section() for record in records]


@pytest.mark.parametrize("size", SIZES)
def test_everything_is_on_one_page_that_fits(report, page_for, size):
    path, sections = report
    assert path.stat().st_size < 3_000_000
    page = page_for(path, **SIZES[size]).page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for section in sections:
        assert page.get_by_role("heading", name=section.title, exact=True).first.is_visible()
    charts = sum(len(section.charts) for section in sections)
    assert page.locator("figure .cw-plot > svg").count() == charts > 10
    assert page.get_by_role("button", name="Copy table").count() == sum(len(s.tables) for s in sections) > 3
