"""The Taylor table exactly on quadratics; cliffs found where they are planted, and not in healthy networks."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cyclewise.errors import ArgumentError
from cyclewise.landscape.cliffs import descend, jumps, rates_around
from cyclewise.landscape.objective import Objective


class Function(nn.Module):
    """A function of the parameters alone, from `start`."""

    def __init__(self, function, start):
        super().__init__()
        self.place = nn.Parameter(torch.as_tensor(start))
        self.function = function

    def forward(self, scale):
        return scale * self.function(self.place)


def objective_of(function, start):
    batch = torch.ones(1, 1, dtype=torch.as_tensor(start).dtype), torch.zeros(1, 1)
    return Objective(Function(function, start), lambda outputs, targets: outputs.mean(), [batch])


def down_the_gradient(objective):
    gradient = objective.gradient()
    product = objective.product(gradient)
    length = float(torch.cat([p.detach().flatten() for p in objective.parameters]).norm())
    rates = rates_around(float(gradient.norm()), float(gradient @ product), length)
    return descend(objective, -gradient, rates, gradient=gradient, product=-product)


@pytest.mark.parametrize("eigenvalues", [[1.0, 10.0, 100.0], [5.0, -3.0, 0.5], [1e-3, 1e3]], ids=str)
def test_a_quadratic_is_predicted_exactly_and_has_no_cliff(eigenvalues):
    generator = torch.Generator().manual_seed(0)
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    hessian = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    start = torch.randn(size, generator=generator, dtype=torch.float64)
    line = down_the_gradient(objective_of(lambda place: 0.5 * place @ hessian @ place, start))
    gradient = hessian @ start
    squared, along = float(gradient @ gradient), float(gradient @ hessian @ gradient)
    for rate, predicted, actual in zip(line.factors, line.predicted, line.actual, strict=True):
        assert predicted == pytest.approx(-rate * squared + rate**2 / 2 * along, rel=1e-9)
        assert actual == pytest.approx(predicted, rel=1e-6, abs=1e-9 * squared)
    assert line.gradient_norms == pytest.approx(line.predicted_norms, rel=1e-6)
    assert line.cliff == pytest.approx(1.0)
    assert line.rise == pytest.approx(0.0, abs=1e-6)


def test_a_rate_far_too_high_on_a_quadratic_is_no_cliff():
    objective = objective_of(lambda place: 50.0 * place.square().sum(), torch.ones(3))
    line = descend(objective, -objective.gradient(), [0.02, 1.0, 100.0])
    assert line.actual[-1] > 1e9
    assert line.cliff == pytest.approx(1.0, rel=1e-3)


def test_any_move_is_measured_not_the_gradient_alone():
    objective = objective_of(lambda place: (place**3).sum(), torch.tensor([1.0, 2.0], dtype=torch.float64))
    move = torch.tensor([1.0, -1.0], dtype=torch.float64)
    line = descend(objective, move, [0.5, 0.1])  # (1 + f)^3 + (2 - f)^3, rising factors
    assert line.factors == (0.1, 0.5)
    assert line.predicted == pytest.approx([-9 * f + 9 * f**2 for f in (0.1, 0.5)])
    assert line.actual == pytest.approx([(1 + f) ** 3 + (2 - f) ** 3 - 9 for f in (0.1, 0.5)])
    assert line.predicted_norms == pytest.approx([math.hypot(3 + 6 * f, 12 - 12 * f) for f in (0.1, 0.5)])
    assert line.gradient_norms == pytest.approx([math.hypot(3 * (1 + f) ** 2, 3 * (2 - f) ** 2) for f in (0.1, 0.5)])


def wall(steepness):
    """A gentle slope that ends at a wall, at 1."""
    return lambda place: (-place + 3 * F.softplus(steepness * (place - 1))).sum()


@pytest.mark.parametrize("steepness", [10.0, 50.0, 200.0])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_wall_ahead_is_a_cliff(steepness, start):
    objective = objective_of(wall(steepness), torch.tensor([start]))
    line = descend(objective, -objective.gradient(), [0.125, 0.25, 0.5, 1.0, 2.0])
    assert line.cliff > 10.0
    assert line.gradient_norms[-1] == pytest.approx(3 * steepness - 1, rel=0.01)
    assert start + line.cliff_factor > 1.0
    assert line.rise > 1.0


def test_repeated_multiplication_makes_a_cliff():
    line = down_the_gradient(objective_of(lambda place: (place.prod() - 1.0) ** 2, torch.full((20,), 0.9)))
    assert line.cliff > 10.0


def test_overflow_is_a_cliff_without_end():
    objective = objective_of(lambda place: torch.exp(torch.exp(5 * place)).sum() - 1000 * place.sum(), torch.zeros(1))
    line = descend(objective, -objective.gradient(), [1e-4, 1.0])
    assert not math.isfinite(line.actual[-1])
    assert (line.cliff, line.cliff_factor, line.rise) == (math.inf, 1.0, math.inf)


def trained(model, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(512, 8, 4, generator=generator)
    targets = (inputs[:, 0, 0] + inputs[:, 3, 1] > 0).long() + (inputs[:, 5, 2] > 0).long()
    for _ in range(steps):
        rows = torch.randint(512, (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()
    return Objective(model, F.cross_entropy, [(inputs[:256], targets[:256])])


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(4, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, inputs):
        return self.head(self.layer(inputs)[0][:, -1])


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


def normalised():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(32, 32),
        nn.BatchNorm1d(32),
        nn.Tanh(),
        nn.Linear(32, 32),
        nn.LayerNorm(32),
        nn.Linear(32, 3),
    )


@pytest.mark.parametrize("steps", [0, 30, 100])
@pytest.mark.parametrize("make", [plain, normalised, Recurrent])
def test_healthy_networks_have_no_cliff(make, steps):
    for seed in range(2):
        torch.manual_seed(seed)
        model = make()
        line = down_the_gradient(trained(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), steps))
        assert line.cliff < 5.0
        near = line.actual[0], line.predicted[0]
        assert near[0] == pytest.approx(near[1], rel=0.2, abs=line.resolution)


def test_rates_follow_the_curvature_where_there_is_one():
    assert rates_around(3.0, 18.0, 5.0, [1.0]) == (0.5,)
    for curvature in (0.0, -18.0, math.inf, math.nan):
        assert rates_around(2.0, curvature, 5.0, [1.0]) == (0.25,)  # a step of length 0.5
    assert all(rate > 0 for rate in rates_around(1e200, 1e300, 1.0))
    assert rates_around(0.0, 0.0, 0.0, [1.0]) == (1.0,)


def test_cost_bits_and_no_trace():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 3), nn.BatchNorm1d(3))
    before = copy.deepcopy(model.state_dict())
    objective = trained(model, torch.optim.SGD(model.parameters(), lr=0.0), 0)
    gradient = objective.gradient()
    product, loss = objective.product(gradient), objective.loss()
    spent = objective.cost
    first = descend(objective, gradient, [0.1, 0.2, 0.4], gradient=gradient, product=product, loss=loss)
    assert objective.cost - spent == pytest.approx(3 * 4 / 3)
    assert descend(objective, gradient, [0.1, 0.2, 0.4]) == first
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("factors", [[], [0.1, 0.0], [-1.0]], ids=str)
def test_factors_that_are_no_steps(factors):
    objective = objective_of(lambda place: place.square().sum(), torch.ones(1))
    with pytest.raises(ArgumentError) as caught:
        descend(objective, objective.gradient(), factors)
    assert str(caught.value) == f"factors must be numbers above 0, got {factors!r}; pass shares of the move"


def noisy_history(seed, num_steps=300, spread=0.15):
    generator = np.random.default_rng(seed)
    return (2.0 * np.exp(-np.arange(num_steps) / 80.0) + 0.3) * np.exp(spread * generator.standard_normal(num_steps))


def test_jumps_of_a_history():
    losses = noisy_history(0)
    losses[120:135] *= 30.0
    (jump,) = jumps(losses.tolist())
    assert jump.step == 120
    assert jump.after / jump.before > 10
    losses[200:] = math.nan
    assert [(found.step, found.after) for found in jumps(losses.tolist())][1:] == [(200, math.inf)]


def test_healthy_histories_have_no_jumps():
    for seed in range(100):
        losses = noisy_history(seed)
        losses[150] *= 50.0  # one bad batch is forgiven
        assert jumps(losses.tolist()) == ()
    assert jumps([0.0] * 50) == jumps([1.0] * 50) == jumps([]) == ()


def test_negative_losses_jump_too():
    losses = (-100.0 - noisy_history(1)).tolist()
    assert jumps(losses) == ()
    assert [jump.step for jump in jumps([*losses, 50.0, 60.0, 70.0])] == [300]


def test_too_short_a_past():
    with pytest.raises(ArgumentError) as caught:
        jumps([1.0], num_before=2)
    assert str(caught.value) == "num_before must be a whole number of at least 5, got 2; pass for example 20"
