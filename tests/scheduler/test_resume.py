"""Resuming at every step, for every policy, in every order of loading."""

import copy
import dataclasses
import json

import pytest
import torch

import cyclewise as cw

N = 300
POLICIES = [
    cw.Constant(lr=0.1, total_steps=N),
    cw.Linear(start_lr=0.0, end_lr=0.1, total_steps=N),
    cw.Cosine(max_lr=0.1, total_steps=N),
    cw.Exponential(start_lr=0.1, end_lr=1e-4, total_steps=N),
    cw.Polynomial(max_lr=0.1, power=2.0, total_steps=N),
    cw.MultiStep(max_lr=0.1, milestones=[100, 200], total_steps=N),
    cw.InverseSqrt(max_lr=0.1, warmup_steps=30, total_steps=N),
    cw.WarmupStableDecay(max_lr=0.1, warmup_steps=30, decay_steps=60, total_steps=N),
    cw.FlatCosine(max_lr=0.1, total_steps=N),
    cw.OneCycle(max_lr=0.1, total_steps=N, base_momentum=0.85, max_momentum=0.95),
    cw.ThreePhaseOneCycle(max_lr=0.1, total_steps=N, base_momentum=0.85, max_momentum=0.95),
    cw.Cyclical(base_lr=0.01, max_lr=0.1, step_size_up=17, mode="exp_range", gamma=0.999, total_steps=N),
    cw.SGDR(max_lr=0.1, T_0=20, T_mult=2, num_cycles=4, peak_decay=0.7),
    cw.Join([cw.Linear(start_lr=0.0, end_lr=0.1, total_steps=50), cw.Cosine(max_lr=0.1, total_steps=N - 50)]),
    cw.OneCycle(max_lr=0.1, total_steps=200).extend(total_steps=N, at_step=120),
    cw.Together(
        rate=cw.Cosine(max_lr=0.1, total_steps=N),
        momenta=cw.Linear(start_lr=0.9, end_lr=0.5, total_steps=N),
        decays=cw.Linear(start_lr=0.0, end_lr=0.1, total_steps=N),
    ),
]


def make():
    return torch.optim.SGD([torch.zeros(1)], lr=0.7, momentum=0.5, weight_decay=0.01)


def values(optimizer):
    group = optimizer.param_groups[0]
    return group["lr"], group["momentum"], group["weight_decay"]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_every_step_goes_on_as_if_nothing_had_happened(policy):
    optimizer = make()
    scheduler = cw.PolicyLR(optimizer, policy)
    saved, uninterrupted = [], []
    for _ in range(policy.total_steps):
        saved.append((copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()))
        uninterrupted.append(values(optimizer))
        scheduler.step()
    for step, (state, schedule) in enumerate(saved):
        for order in ("optimizer first", "scheduler first", "made after loading"):
            again = make()
            if order == "made after loading":
                again.load_state_dict(copy.deepcopy(state))
            resumed = cw.PolicyLR(again, policy)
            if order != "scheduler first":
                again.load_state_dict(copy.deepcopy(state))
            resumed.load_state_dict(schedule)
            if order == "scheduler first":
                again.load_state_dict(copy.deepcopy(state))
            assert values(again) == uninterrupted[step]
            resumed.step()
            assert values(again) == uninterrupted[min(step + 1, policy.total_steps - 1)]


@dataclasses.dataclass(frozen=True)
class Table(cw.Policy):
    """Holds a tuple, which JSON makes a list of."""

    total_steps: int
    rates: tuple[tuple[int, float], ...]

    def value(self, step):
        return max(pair for pair in self.rates if pair[0] <= step)[1]

    def to_dict(self):
        return {"kind": "Table", "total_steps": self.total_steps, "rates": self.rates}


def test_a_policy_with_tuples_is_resumed_from_json():
    def scheduler(last):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        policy = Table(total_steps=10, rates=((0, 0.1), (4, last)))
        return cw.PolicyLR(optimizer, policy, extra={"weight_decay": policy})

    first, later = scheduler(0.2), scheduler(0.2)
    for _ in range(5):
        first.step()
    state = json.loads(json.dumps(first.state_dict()))
    later.load_state_dict(state)
    assert (later.last_epoch, later.get_last_lr()) == (5, [0.2])
    with pytest.raises(cw.PolicyError, match="state_dict must belong to the policy"):
        scheduler(0.3).load_state_dict(state)
