"""RMSprop makes its momentum buffers only where there is a momentum; a policy that brings one in makes them."""

import copy

import pytest
import torch

import cyclewise as cw
from tests.training.small_learner import make_learner

CYCLE = cw.OneCycle(max_lr=0.1, total_steps=6, base_momentum=0.5, max_momentum=0.75)


def make(momentum=0.0, **options):
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in [(3,), (2, 2), (1,)]]
    groups = [{"params": weights[:2]}, {"params": weights[2:]}]
    return torch.optim.RMSprop(groups, lr=0.125, momentum=momentum, **options)


def update(optimizer, number):
    generator = torch.Generator().manual_seed(number)
    for parameter in parameters(optimizer):
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def parameters(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def with_buffers(**options):
    """Return one that has had buffers from the start, and no momentum."""
    optimizer = make(momentum=0.5, **options)
    for parameter in parameters(optimizer):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group in optimizer.param_groups:
        group["momentum"] = 0.0
    return optimizer


def zeros_to_high():
    momenta = cw.Join([cw.Constant(lr=0.0, total_steps=3), cw.Linear(start_lr=0.25, end_lr=0.75, total_steps=3)])
    return cw.Together(rate=cw.Constant(lr=0.1, total_steps=6), momenta=momenta)


@pytest.mark.parametrize("options", [{}, {"centered": True}, {"foreach": False}, {"foreach": True}])
@pytest.mark.parametrize("policy", [CYCLE, [CYCLE, CYCLE], zeros_to_high()], ids=["all", "each", "from zero"])
def test_momentum_comes_in_late_as_if_the_buffers_had_always_been_there(policy, options):
    ours, theirs = make(**options), with_buffers(**options)
    for step in range(3):
        update(ours, step)
        update(theirs, step)
    scheduler = cw.PolicyLR(ours, policy)
    one = policy[0] if isinstance(policy, list) else policy
    for step in range(6):
        for group in theirs.param_groups:
            group["lr"], group["momentum"] = one.lr(step), one.momentum(step)
        update(ours, 10 + step)
        update(theirs, 10 + step)
        scheduler.step()
        assert all(map(torch.equal, parameters(ours), parameters(theirs)))


def test_it_works_where_states_are_loaded_and_where_momentum_is_an_extra():
    stepped = make()
    update(stepped, 0)
    saved = copy.deepcopy(stepped.state_dict())
    optimizer = make()
    scheduler = cw.PolicyLR(optimizer, CYCLE)
    optimizer.load_state_dict(saved)
    scheduler.step()
    update(optimizer, 1)
    cw.set_hyperparameters(stepped, CYCLE, step=3)
    update(stepped, 1)
    optimizer.load_state_dict(saved)
    extra = {"momentum": cw.Constant(lr=0.5, total_steps=5)}
    cw.PolicyLR(optimizer, cw.Constant(lr=0.1, total_steps=5), extra=extra)
    update(optimizer, 1)


def test_buffers_that_are_there_are_kept_and_none_is_made_where_torch_makes_its_own():
    optimizer = make(momentum=0.5)
    update(optimizer, 0)
    buffers = [optimizer.state[parameter]["momentum_buffer"] for parameter in parameters(optimizer)]
    before = [buffer.clone() for buffer in buffers]
    cw.PolicyLR(optimizer, CYCLE)
    for parameter, buffer in zip(parameters(optimizer), buffers, strict=True):
        assert optimizer.state[parameter]["momentum_buffer"] is buffer
    assert all(map(torch.equal, buffers, before))
    untouched = make()
    cw.PolicyLR(untouched, CYCLE)
    assert not untouched.state
    plain = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    update(plain, 0)
    cw.PolicyLR(plain, CYCLE)
    assert not any(plain.state.values())


def test_a_learner_goes_on_with_one_cycle_after_a_fit_without_momentum():
    learn = make_learner(optimizer=lambda groups: torch.optim.RMSprop(groups, lr=1e-3))
    learn.fit(cw.Constant(lr=1e-3, total_steps=3))
    history = learn.fit_one_cycle(1, max_lr=1e-3)
    assert history.num_steps == 5
