"""How much of its rate an optimizer takes at each step: what torch's own optimizers do, step by step."""

import math

import pytest
import torch

import cyclewise as cw
from cyclewise.range_test.pace import pace_of, steady


def moves(optimizer_class, num_steps, **options):
    """How far a parameter with a gradient of 1 moves at each step at a rate of 1."""
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = optimizer_class([weight], lr=1.0, **options)
    moved = []
    for _ in range(num_steps):
        weight.grad = torch.ones_like(weight)
        before = weight.item()
        optimizer.step()
        moved.append(before - weight.item())
    return moved, optimizer


@pytest.mark.parametrize("beta", [0.9, 0.99, 0.999])
def test_radam_takes_what_torch_takes(beta):
    moved, _ = moves(torch.optim.RAdam, 400, betas=(0.9, beta), eps=0.0)
    pace = pace_of(torch.optim.RAdam([torch.zeros(1, requires_grad=True)], betas=(0.9, beta)))
    for step in (10, 50, 400):
        assert pace(step) == pytest.approx(moved[step - 1], rel=1e-6)
    assert 0 < pace(1) == pace(2) < pace(8)


@pytest.mark.parametrize("beta", [0.5, 0.6])
def test_radam_that_is_never_rectified_is_steady(beta):
    pace = pace_of(torch.optim.RAdam([torch.zeros(1, requires_grad=True)], betas=(0.9, beta)))
    assert pace(1) == pace(10) == pace(1000)


def test_adagrad_takes_one_over_the_root_of_its_steps_and_goes_on_from_those_that_it_made():
    moved, optimizer = moves(torch.optim.Adagrad, 100)
    assert [pace_of(torch.optim.Adagrad(optimizer.param_groups[0]["params"]))(n) for n in (1, 100)] == pytest.approx(
        [moved[0], moved[99]]
    )
    pace = pace_of(optimizer)
    assert pace(44) == pytest.approx(1 / math.sqrt(144))


def test_adagrad_with_a_decay_of_its_own_or_squares_to_begin_with():
    moved, optimizer = moves(torch.optim.Adagrad, 400, lr_decay=0.01)
    fresh = torch.optim.Adagrad(optimizer.param_groups[0]["params"], lr_decay=0.01)
    assert [pace_of(fresh)(step) for step in (1, 40, 400)] == pytest.approx([moved[i] for i in (0, 39, 399)], rel=1e-6)
    begun = torch.optim.Adagrad([torch.zeros(1, requires_grad=True)], initial_accumulator_value=10.0)
    assert pace_of(begun)(1) == pace_of(begun)(100)


def test_it_is_asked_of_one_group():
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "betas": (0.9, beta)} for beta in (0.9, 0.999)]
    first, second = (pace_of(torch.optim.RAdam(groups), group)(20) for group in torch.optim.RAdam(groups).param_groups)
    assert second < first / 5


@pytest.mark.parametrize("state", [{"n": 0}, {"step": None}, {"step": torch.zeros(3)}])
def test_the_state_of_an_optimizer_of_ones_own_is_left_alone(state):
    class Own(torch.optim.SGD):
        def __init__(self, parameters):
            super().__init__(parameters, lr=0.1)
            weight = self.param_groups[0]["params"][0]
            self.state.update(state if "n" in state else {weight: state})

    assert pace_of(Own([torch.zeros(1, requires_grad=True)])) is steady


@pytest.mark.parametrize("alpha", [0.9, 0.99, 0.999])
def test_rmsprop_takes_what_torch_takes_and_goes_on_from_the_steps_that_it_made(alpha):
    moved, optimizer = moves(torch.optim.RMSprop, 400, alpha=alpha, eps=0.0)
    fresh = pace_of(torch.optim.RMSprop([torch.zeros(1, requires_grad=True)], alpha=alpha))
    assert [fresh(step) for step in (1, 40, 400)] == pytest.approx([moved[i] for i in (0, 39, 399)], rel=1e-6)
    assert pace_of(optimizer)(1) == pytest.approx(moved[399], rel=5e-3)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_rmsprop_without_an_average_is_steady(alpha):
    assert pace_of(torch.optim.RMSprop([torch.zeros(1, requires_grad=True)], alpha=alpha)) is steady


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_others_take_what_they_are_given(kind):
    assert pace_of(kind([torch.zeros(1, requires_grad=True)], lr=0.1)) is steady


def test_no_rate_is_above_the_highest_that_was_allowed():
    torch.manual_seed(0)
    inputs = torch.randn(640, 8)
    targets = (inputs @ torch.randn(8, 4)).argmax(1)
    batches = list(zip(inputs.split(16), targets.split(16), strict=True))
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.Adagrad(model.parameters())

    def find(**options):
        return cw.lr_find(model, optimizer, torch.nn.functional.cross_entropy, batches, total_steps=20_000, **options)

    free = find().max_lr
    assert find(end_lr=free / 2).max_lr == free / 2
