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
from cyclewise.range_test.exchanged import comparing, deviations_of
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
    expected = pytest.approx((fmean(others) - true, variance(others)), rel=1e-5)
    assert [(one.gap, one.variance) for one in compared] == [expected]
    assert step.loss_fn is F.mse_loss


@pytest.mark.parametrize(("size", "num_exchanges"), [(2, 1), (3, 2), (5, 4), (50, 4)])
def test_a_small_batch_has_fewer_exchanges(size, num_exchanges):
    calls = []
    step = step_of(lambda outputs, targets: calls.append(len(targets)) or F.mse_loss(outputs, targets))
    with comparing(step) as compared:
        step([batch_of(size)])
    assert len(calls) == 1 + num_exchanges
    assert math.isnan(compared[0].variance) == (num_exchanges < 4)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [8, 33, 512])
def test_outputs_that_are_all_the_same_have_no_link_but_rounding(dtype, size):
    """Sums in another order differ in their last bit, and four of them may all differ by the same."""
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        outputs = torch.randn(1, 10, generator=generator).to(dtype).expand(size, 10).clone().requires_grad_()
        step = Step(nn.Identity(), torch.optim.SGD([outputs], lr=0.0), F.cross_entropy)
        with comparing(step) as compared:
            step.loss_fn(outputs, torch.randint(10, (size,), generator=generator))
        assert abs(deviations_of(compared[0].gap, compared[0].variance)) < 1.0


@pytest.mark.parametrize("scale", [1e100, 1e160, 1e300, math.inf])
def test_losses_that_overflow_are_not_compared(scale):
    step = step_of(lambda outputs, targets: (outputs - targets).abs().mean().double() * scale)
    with comparing(step) as compared:
        step.loss_fn(*(torch.randn(8, 1) for _ in range(2)))
    link = deviations_of(compared[0].gap, compared[0].variance)
    assert math.isfinite(link) if scale == 1e100 else math.isnan(link)


class Centred(nn.Module):
    """A loss that keeps a running mean of the targets, counts its calls, and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(1))
        self.register_buffer("num_calls", torch.tensor(0))

    def forward(self, outputs, targets):
        self.num_calls += 1
        self.centre = 0.9 * self.centre + 0.1 * targets[0]
        return ((outputs - targets + self.centre) * torch.rand(1)).square().mean()


def test_exchanged_targets_leave_no_trace_in_a_loss_with_state():
    inputs, targets = batch_of(9)
    seen = []
    for compares in (False, True):
        torch.manual_seed(0)
        step = step_of(Centred())
        loss_fn = step.loss_fn
        with comparing(step if compares else None):
            losses = [float(step([(inputs, targets)])) for _ in range(3)]
        seen.append((losses, int(loss_fn.num_calls), float(loss_fn.centre), torch.rand(1).item()))
    assert seen[0] == seen[1]


def test_of_several_losses_in_a_block_the_first_is_compared():
    calls = []
    step = step_of(lambda outputs, targets: calls.append(1) or F.mse_loss(outputs, targets))
    with comparing(step) as compared:
        for _ in range(3):
            step([batch_of(8)])
    assert (len(compared), len(calls)) == (1, 3 + 4)


def test_targets_of_another_shape_are_refused_while_comparing():
    step = step_of()
    with comparing(step), pytest.raises(cw.ArgumentError, match="targets must have the shape of the outputs"):
        step([(torch.randn(8, 3), torch.randn(8))])
