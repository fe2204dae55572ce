"""Rates that the user sets, gradients that are very small, and models or losses that take derivatives themselves."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import cyclewise as cw

INPUTS = torch.randn(640, 10, generator=torch.Generator().manual_seed(0))
CLASSES = (INPUTS @ torch.randn(10, 4, generator=torch.Generator().manual_seed(1))).argmax(1)


def loader(targets=CLASSES):
    return DataLoader(TensorDataset(INPUTS, targets), batch_size=32, shuffle=True)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 4))


def find(net, loss_fn=F.cross_entropy, data=None, *, momentum=0.9, **options):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=momentum)
    return cw.lr_find(net, optimizer, loss_fn, data or loader(), progress=False, **options)


@pytest.mark.parametrize("limits", [{"start_lr": 3.0}, {"start_lr": 10.0, "end_lr": 100.0}, {"start_lr": 100.0}])
def test_a_sweep_that_starts_too_high_says_so(limits):
    result = find(model(), **limits)
    assert (result.refusal, result.max_lr, result.interval) == (cw.Refusal.STARTS_TOO_HIGH, None, None)
    assert result.refusal.remedy == "start lower: divide start_lr by 1000, or leave it out to have it found"
    assert cw.RangeTest.from_dict(result.to_dict()) == result
    assert "is too high already" in result.section().conclusion


@pytest.mark.parametrize("limits", [{}, {"start_lr": 1e-4}, {"start_lr": 1e-3, "end_lr": 10.0}])
def test_one_that_starts_low_enough_does_not(limits):
    result = find(model(), **limits)
    assert 0.02 < result.max_lr < 2.0


@pytest.mark.parametrize("limits", [{"start_lr": 1e-3}, {"start_lr": 1e-4, "end_lr": 1.0}])
def test_shuffled_targets_are_not_taken_for_it(limits):
    shuffled = CLASSES[torch.randperm(640, generator=torch.Generator().manual_seed(2))]
    assert find(model(), data=loader(shuffled), **limits).refusal is not cw.Refusal.STARTS_TOO_HIGH


@pytest.mark.parametrize("name", ["start_lr", "end_lr"])
def test_rates_that_no_parameter_could_hold_are_refused(name):
    with pytest.raises(cw.ArgumentError) as caught:
        find(model(), **{name: 1e300})
    assert str(caught.value) == f"{name} must be at most 1e+30, got 1e+300; leave it out to have it found"


@pytest.mark.parametrize("factor", [1e-8, 1e-12])
def test_a_very_small_loss_has_a_very_large_rate(factor):
    usual = find(model(), momentum=0.0)
    small = find(model(), lambda outputs, targets: factor * F.cross_entropy(outputs, targets), momentum=0.0)
    assert small.max_lr * factor == pytest.approx(usual.max_lr, rel=0.5)
    assert small.num_steps <= 100


def test_no_gradient_at_all_is_still_told_from_a_small_one():
    result = find(model(), lambda outputs, targets: (outputs * 0.0).sum())
    # One batch alone may have nothing to learn from.
    assert (result.refusal, result.num_steps) == (cw.Refusal.ZERO_GRADIENT, 3)


def test_a_step_that_moves_nothing_spends_no_more_than_it_may():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    steps = []
    result = cw.lr_find(
        net, optimizer, train_step=lambda batch: steps.append(1) or 1.0, train_loader=loader(), num_steps=10
    )
    assert result.refusal is cw.Refusal.ZERO_GRADIENT
    assert len(steps) == result.num_steps <= 10


class Force(nn.Module):
    """The derivative of an energy by the inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.energy = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, inputs):
        inputs = inputs.detach().requires_grad_()
        return torch.autograd.grad(self.energy(inputs).sum(), inputs, create_graph=True)[0]


def test_a_model_that_takes_a_derivative_is_scored_where_no_graph_is_kept():
    forces, data = Force(), loader(INPUTS.sin())
    result = find(forces, F.mse_loss, data)
    assert result.refusal is None
    assert result.link is not None
    batches = [(INPUTS[:64], INPUTS[:64].sin())]
    assert cw.diagnose(forces, F.mse_loss, batches, budget=12).loss > 0.0
    learn = cw.Learner(forces, cw.Data(data, data), loss_fn=F.mse_loss, progress=False)
    assert learn.evaluate()["loss"] > 0.0
    predicted = learn.predict(INPUTS[:3])
    assert (predicted.shape, predicted.requires_grad) == ((3, 10), False)


def test_a_loss_that_takes_a_derivative_has_no_link_but_a_rate():
    net = Force()

    def penalised(outputs, targets):
        (slope,) = torch.autograd.grad(outputs.sum(), net.energy[0].weight, create_graph=True)
        return F.mse_loss(outputs, targets) + 1e-3 * slope.square().mean()

    result = find(net, penalised, loader(INPUTS.sin()))
    assert (result.refusal, result.link) == (None, None)
    assert result.improvement > 0.0
