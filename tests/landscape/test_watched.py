"""The record of a watch."""

import math

import pytest

import cyclewise as cw
from tests.landscape.watching import batches, network, sgd, train


def made(sharpness, limit=(10.0, 10.0, 10.0)):
    return cw.Watched(step=[9, 19, 29], lr=[0.2] * 3, gradient_norm=[1.0] * 3, sharpness=sharpness,
                      sharpness_limit=limit, num_steps=30)  # fmt: skip


@pytest.mark.parametrize(
    ("sharpness", "steps"),
    [
        ([2.0, 9.5, 11.0], (19, 29)),
        ([2.0, 11.0, 2.0], (19, 19)),
        ([9.5, math.nan, 9.0], (9, 29)),
        ([1.0, 8.9, 1.0], None),
    ],
)
def test_the_edge_of_stability_is_where_the_sharpness_reaches_its_limit(sharpness, steps):
    record = made(sharpness)
    assert record.edge_steps == steps
    assert ("edge of stability" in str(record)) == (steps is not None)


def test_the_record_is_drawn_under_the_rate(tmp_path):
    model, watch = network(), cw.Watch(every=1, noise_every=2, sharpness_every=2)
    train(model, sgd(model), batches(8), watch=watch)
    record = watch.record
    assert [chart.title for chart in record.charts()] == [
        "Learning rate", "Sharpness against the limit of the optimizer", "Gradient norm", "Update over weights",
        "Gradient noise scale",
    ][: len(record.charts())]  # fmt: skip
    limit, along, sharpness = record.charts()[1].lines
    assert limit.dashed
    assert len(limit.x) == 8
    assert along.x == sharpness.x == [1, 3, 5, 7]
    assert len(record.plot().axes) == len(record.charts())
    page = cw.write_html(record, tmp_path / "report.html").read_text()
    assert "Sharpness against the limit of the optimizer" in page
    assert record == cw.Watched.from_dict(record.to_dict())
    joined = record.followed_by(record)
    assert joined.step.tolist() == [*range(8), *range(8, 16)]
    with pytest.raises(cw.ArgumentError, match=r"^plot\(\) needs a measurement, got none in 0 steps; train on, or"):
        cw.Watched().plot()
    with pytest.raises(cw.ArgumentError, match=r"^lr must have one number per step, got 1 for 2 steps; leave it out"):
        cw.Watched(step=[0, 1], lr=[0.1])
    with pytest.raises(
        cw.ArgumentError, match=r"^values must describe a Watched of version 2, got record=None, versio"
    ):
        cw.Watched.from_dict({})
