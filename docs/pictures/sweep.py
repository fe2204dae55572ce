"""The range test: one slow rise of the rate, exponential and linear, and where `lr_find` puts the peak."""

from dataclasses import replace
from functools import cache

import cyclewise as cw
from cyclewise.drawing import Chart, Line, Mark
from docs.pictures.digits import make_learner, seeded


@cache
def found() -> cw.RangeTest:
    """Return the range test of the digits' network."""
    with seeded(0):
        return make_learner(0).lr_find()


def charts() -> list[Chart]:
    """Describe the picture."""
    chart = found().section().charts[0]
    minimum = found().reading("minimum")
    marks = [*chart.marks, Mark(f"lowest {minimum:.2g}", minimum, role="muted")]
    steps = list(range(100))
    rises = [
        Line("exponentially", steps, cw.Exponential(start_lr=0.001, end_lr=1.0, total_steps=100).lr(steps).tolist()),
        Line("linearly", steps, cw.Linear(start_lr=0.001, end_lr=1.0, total_steps=100).lr(steps).tolist(),
             role="secondary"),
    ]  # fmt: skip
    return [replace(chart, marks=marks), Chart("Two ways to raise the rate", "step", "learning rate", rises)]


def caption() -> str:
    """Say what the picture shows."""
    result = found()
    first = result.curve.lr
    return (
        f"In {result.num_steps} steps: {len(first)} from {first[0]:.1g} to {first[-1]:.2g}, then two sweeps where the "
        f"loss was lowest, each from the initial weights. The last one is lowest at {result.reading('minimum'):.2g}; "
        f"`max_lr` is {result.max_lr or 0.0:.2g}, left of it."
    )
