"""How far up the last sweep goes, whatever the second took for the end of its valley."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cyclewise as cw
from cyclewise.range_test import sweep
from tests.range_test.tasks import make_task


def found(monkeypatch, *, momentum=0.9, num_samples=640, num_steps=100, floor=1e-4):
    """A range test whose second sweep saw its valley far too low."""
    loader = make_task(num_samples=num_samples)[2]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    monkeypatch.setattr(sweep, "_floor", lambda curve, *, is_cut: (floor, floor))
    return cw.lr_find(model, optimizer, F.cross_entropy, loader, num_steps=num_steps)


def planned_end(result, num_steps=100):
    """The rate that the last sweep would have ended at, had it not been lost before."""
    first, second, last = (curve.lr for curve in (result.curve, *result.close_ups))
    steps = num_steps - 1 - len(first) - len(second)  # one update told where to begin
    return last[0] * (last[1] / last[0]) ** (steps - 1)


def test_with_momentum_it_goes_on_to_near_where_the_loss_was_lost(monkeypatch):
    result = found(monkeypatch)
    assert planned_end(result) == pytest.approx(result.curve.lr[-1] * 10**-0.45)
    assert result.close_ups[-1].lr[0] == pytest.approx(1e-4 * 10**-0.9)
    assert result.max_lr > 1e-2


def test_of_few_samples_too(monkeypatch):
    result = found(monkeypatch, num_samples=320)
    assert planned_end(result) == pytest.approx(result.curve.lr[-1] * 10**-0.45)


@pytest.mark.parametrize("otherwise", [{"momentum": 0.0}, {"num_steps": 50}])
def test_without_momentum_or_in_few_steps_the_second_sweep_is_believed(otherwise, monkeypatch):
    result = found(monkeypatch, **otherwise)
    assert planned_end(result, otherwise.get("num_steps", 100)) == pytest.approx(1e-4 * 10**0.5)


def test_a_valley_that_was_seen_higher_up_is_believed(monkeypatch):
    result = found(monkeypatch, floor=3.0)
    assert max(curve.lr[-1] for curve in result.close_ups) > 3.0 * 10**-0.9
    assert result.close_ups[1].lr[0] == pytest.approx(3.0 * 10**-0.9)
