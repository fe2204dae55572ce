"""What exchanging targets within a batch says of a model, while it is trained and without another forward."""

import math
from statistics import fmean, variance

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw
from cyclewise.range_test import find
from cyclewise.range_test.exchanged import comparing
from cyclewise.stepping import Step


def step_of(loss_fn=F.mse_loss):
    model = nn.Linear(3, 1)
    return Step(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn)


def batch_of(size):
    inputs = torch.randn(size, 3)
    return inputs, inputs.sum(1, keepdim=True)


def test_the_gap_is_that_of_four_rotations_before_the_update():
    step, (inputs, targets) = step_of(), batch_of(9)
    with torch.no_grad():
        outputs = step.model(inputs)
        true, *others = (float(F.mse_loss(outputs, targets.roll(shift, 0))) for shift in (0, 1, 3, 5, 7))
    with comparing(step) as compared:
        loss = step([(inputs, targets)])
    assert float(loss) == true
    assert [(one.gap, one.variance) for one in compared] == [pytest.approx((fmean(others) - true, variance(others)))]
    assert step.loss_fn is F.mse_loss


@pytest.mark.parametrize(("size", "num_exchanges"), [(2, 1), (3, 2), (5, 4), (50, 4)])
def test_a_small_batch_has_fewer_exchanges(size, num_exchanges):
    calls = []
    step = step_of(lambda outputs, targets: calls.append(len(targets)) or F.mse_loss(outputs, targets))
    with comparing(step) as compared:
        step([batch_of(size)])
    assert len(calls) == 1 + num_exchanges
    assert math.isnan(compared[0].variance) == (num_exchanges == 1)


def test_single_samples_and_targets_that_are_no_tensor_are_not_compared():
    step = step_of(lambda outputs, targets: outputs.square().mean())
    with comparing(step) as compared:
        step([batch_of(1)])
        step([(torch.randn(4, 3), ["a", "b", "c", "d"])])
    assert compared == []
    with comparing(None) as compared:
        step([batch_of(8)])
    assert compared == []


def test_every_step_of_the_last_sweep_has_a_link_or_says_that_none_is_known(monkeypatch):
    seen = []
    conclude = find._conclude
    monkeypatch.setattr(find, "_conclude", lambda sweeps, *rest: seen.append(sweeps) or conclude(sweeps, *rest))
    inputs = torch.randn(320, 3)
    for targets in (inputs.sum(1, keepdim=True), torch.randn(320, 1)):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = DataLoader(TensorDataset(inputs, targets), 16)
        cw.lr_find(model, optimizer, F.mse_loss, loader)
        # The loader is shorter than the sweep: batches seen before have a link too, but no gap that counts as held out.
        assert len(seen[-1].links) == len(seen[-1].curves[-1].lr) > len(seen[-1].gaps)
    related, unrelated = (fmean(sweeps.links[:20]) for sweeps in seen)
    assert related > 1.0 > abs(unrelated)

    def with_a_derivative(outputs, targets):
        (slope,) = torch.autograd.grad(outputs.sum(), model.weight, create_graph=True)
        return F.mse_loss(outputs, targets) + 0.0 * slope.sum()

    cw.lr_find(model, optimizer, with_a_derivative, loader)
    assert len(seen[-1].links) == len(seen[-1].curves[-1].lr)
    assert all(map(math.isnan, seen[-1].links))
