"""From the start of training to the present: distances and angles on known functions, and what is refused."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cyclewise.errors import ArgumentError, ArgumentTypeError
from cyclewise.landscape.journey import look_back
from cyclewise.landscape.objective import Objective

BATCH = torch.eye(2), torch.zeros(2, 1)


def at(*weights):
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


def test_distance_angles_and_losses_of_a_bowl():
    # The loss is (a^2 + b^2) / 2, its gradient (a, b): from any start the first step points to the minimum.
    journey = look_back(Objective(at(0.0, 0.0), F.mse_loss, [BATCH]), at(3.0, 4.0), num_points=3)
    assert (journey.displacement, journey.relative_displacement, journey.start_gradient) == (5.0, 1.0, 5.0)
    assert journey.angle == pytest.approx(0.0, abs=1e-3)
    assert journey.angle_at_end is None
    assert journey.losses == pytest.approx((12.5, 3.125, 0.0))
    assert (journey.height, journey.length, journey.detour) == (0.0, None, None)
    past = look_back(Objective(at(0.0, -4.0), F.mse_loss, [BATCH]), at(3.0, 0.0))
    assert past.angle == pytest.approx(math.degrees(math.acos(3 / 5)))
    assert past.angle_at_end == pytest.approx(180 - math.degrees(math.acos(4 / 5)))


def test_a_start_is_a_model_or_a_state_dict():
    objective = Objective(at(1.0, 2.0), F.mse_loss, [BATCH, BATCH])
    by_model = look_back(objective, at(3.0, 0.0))
    assert by_model == look_back(objective, at(3.0, 0.0).state_dict(), gradient=objective.gradient())
    assert by_model.height_std_error == 0.0


def test_path_length_against_displacement():
    objective = Objective(at(0.0, 0.0), F.mse_loss, [BATCH])
    journey = look_back(objective, at(3.0, 4.0), path=[torch.tensor([3.0, 0.0]), torch.zeros(2)])
    assert journey.length == pytest.approx(7.0)
    assert journey.detour == pytest.approx(1.4)


def test_no_way_at_all():
    journey = look_back(Objective(at(1.0, 2.0), F.mse_loss, [BATCH]), at(1.0, 2.0))
    assert (journey.displacement, journey.angle, journey.angle_at_end, journey.detour) == (0.0, None, None, None)


def test_a_hill_between_start_and_present():
    class Ring(nn.Module):
        def __init__(self, place):
            super().__init__()
            self.place = nn.Parameter(torch.tensor(place))

        def forward(self, scale):
            return scale * (self.place.square().sum() - 1.0) ** 2

    def loss_fn(outputs, targets):
        return outputs.mean()

    journey = look_back(
        Objective(Ring([1.0, 0.0]), loss_fn, [(torch.ones(2, 1), torch.zeros(2, 1))]), Ring([-0.9, 0.0])
    )
    assert journey.height > 0.9
    assert journey.hump == pytest.approx(1.0 - 0.19**2, abs=0.02)
    assert journey.std_error is None
    assert journey.angle == pytest.approx(180.0)


def test_frozen_parameters_do_not_count():
    start, now = nn.Linear(2, 2), nn.Linear(2, 2)
    now.bias.requires_grad_(False)
    objective = Objective(now, F.mse_loss, [(torch.randn(4, 2), torch.randn(4, 2))])
    expected = float((now.weight - start.weight).detach().norm())
    assert look_back(objective, start).displacement == pytest.approx(expected)


def test_in_double_precision():
    objective = Objective(at(0.5, 0.0), F.mse_loss, [BATCH], dtype=torch.float64)
    assert look_back(objective, at(3.0, 4.0)).losses[-1] == pytest.approx(0.125)


def test_batch_norm_dropout_cost_and_no_trace():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))
    start = copy.deepcopy(model)
    batches = [(torch.randn(32, 4), torch.randn(32, 1)) for _ in range(3)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in batches * 10:
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    before = copy.deepcopy(model.state_dict())
    started = copy.deepcopy(start.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    objective = Objective(model, F.mse_loss, batches)
    gradient = objective.gradient()
    spent = objective.cost
    journey = look_back(objective, start, gradient=gradient, num_points=6)
    assert objective.cost - spent == pytest.approx(6 * 2 / 3 + 1)
    assert journey.losses[0] > journey.losses[-1]
    assert journey.angle < 90
    assert journey == look_back(objective, start, gradient=gradient, num_points=6)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, started[name]) for name, value in start.state_dict().items())
    assert all(torch.equal(p.grad, old) for p, old in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(objective.gradient(), gradient)


@pytest.mark.parametrize(
    ("start", "arguments", "error", "message"),
    [
        (
            nn.Linear(3, 1, bias=False),
            {},
            ArgumentError,
            "start must have the shapes of model, got weight of shape (1, 3) instead of (1, 2); "
            "give both the same architecture",
        ),
        (
            {},
            {},
            ArgumentError,
            "start must have the parameters of model, got weight only in model; give both the same architecture",
        ),
        (
            7,
            {},
            ArgumentTypeError,
            "start must be a model or a state dict, got int 7; "
            "copy it before training: copy.deepcopy(model.state_dict())",
        ),
        (
            at(1.0, 2.0),
            {"num_points": 1},
            ArgumentError,
            "num_points must be a whole number of at least 3, got 1; pass for example 9",
        ),
    ],
)
def test_refusals(start, arguments, error, message):
    objective = Objective(at(0.0, 0.0), F.mse_loss, [BATCH])
    with pytest.raises(error) as caught:
        look_back(objective, start, **arguments)
    assert str(caught.value) == message
