"""Values that make no policy are refused with a way out; numbers of any kind make the same one."""

import dataclasses

import numpy as np
import pytest
import torch

import cyclewise as cw
from cyclewise.policies import Extended, Rescaled

CASES = [
    (lambda: cw.OneCycle(max_lr=0, total_steps=5),
     "max_lr must be a finite number above 0, got 0; cyclewise.lr_find gives one"),
    (lambda: cw.OneCycle(max_lr=None, total_steps=5),
     "max_lr must be a finite number above 0, got None; cyclewise.lr_find gives one"),
    (lambda: cw.OneCycle(max_lr=0.1, total_steps=0),
     "total_steps must be a whole number of at least 1, got 0; "
     "it counts optimizer updates: epochs * len(train_loader)"),
    (lambda: cw.OneCycle(max_lr=0.1, total_steps=5, pct_start=30),
     "pct_start must be a fraction in [0, 1], got 30; for 30 % pass 0.3"),
    (lambda: cw.OneCycle(max_lr=0.1, total_steps=5, div_factor=0),
     "div_factor must be a finite number above 0, got 0; it divides the rate: 25 starts at max_lr / 25"),
    (lambda: cw.OneCycle(max_lr=0.1, total_steps=5, base_momentum=0.85),
     "base_momentum and max_momentum must be given together, got base_momentum=0.85 and max_momentum=None; "
     "pass both, or neither to leave the momentum alone"),
    (lambda: cw.OneCycle(max_lr=0.1, total_steps=5, base_momentum=0.85, max_momentum=1.0),
     "max_momentum must lie in [0, 1), got 1.0; 0.85 to 0.95 is usual"),
    (lambda: cw.OneCycle(max_lr=0.1, total_steps=5, anneal="cos"),
     "anneal must be one of 'cosine', 'linear', got 'cos'; pass one of these names"),
    (lambda: cw.Linear(start_lr=-1, end_lr=0, total_steps=5),
     "start_lr must be a finite number of at least 0, got -1; rates cannot be negative"),
    (lambda: cw.Cosine(max_lr=0.1, min_lr=0.2, total_steps=5), "min_lr must be at most max_lr=0.1, got 0.2; swap them"),
    (lambda: cw.Cyclical(base_lr=0.2, max_lr=0.1, step_size_up=5, total_steps=9),
     "max_lr must be at least base_lr=0.2, got 0.1; swap them"),
    (lambda: cw.Cyclical(base_lr=0.1, max_lr=0.2, step_size_up=0, total_steps=9),
     "step_size_up must be a whole number of at least 1, got 0; "
     "it counts optimizer updates: 2 to 10 epochs' worth is usual"),
    (lambda: cw.Cyclical(base_lr=0.1, max_lr=0.2, step_size_up=5, mode="saw", total_steps=9),
     "mode must be one of 'triangular', 'triangular2', 'exp_range', got 'saw'; pass one of these names"),
    (lambda: cw.Cyclical(base_lr=0.1, max_lr=0.2, step_size_up=5, gamma=1.1, total_steps=9),
     "gamma must be at most 1, got 1.1; a larger one makes the rate explode"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=0, num_cycles=1),
     "T_0 must be a whole number of at least 1, got 0; it counts the steps of the first cycle"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=5, T_mult=0.5, num_cycles=1),
     "T_mult must be at least 1, got 0.5; 2 doubles every cycle"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=5, num_cycles=0),
     "num_cycles must be a whole number of at least 1, got 0; it counts the restarts, plus one"),
    (lambda: cw.SGDR(max_lr=0.1, min_lr=0.06, T_0=5, num_cycles=2, peak_decay=0.5),
     "min_lr must be at most the last cycle's peak 0.05, got 0.06; lower it, or raise peak_decay"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=5, T_mult=10, num_cycles=100),
     "num_cycles must leave at most 2**53 steps in all, got 100 with T_0=5 and T_mult=10; ask for fewer cycles"),
    (lambda: cw.MultiStep(max_lr=0.1, milestones=[5, 3], total_steps=9),
     "milestones must rise, got [5, 3]; sort them and name each once"),
    (lambda: cw.MultiStep(max_lr=0.1, milestones=[0], total_steps=9),
     "milestones must be a whole number of at least 1, got 0; they count steps from 0, rising: [100, 150]"),
    (lambda: cw.MultiStep(max_lr=0.1, milestones=[3], gamma=0, total_steps=9),
     "gamma must be above 0, got 0; 0.1 is usual"),
    (lambda: cw.Polynomial(max_lr=0.1, power=0, total_steps=9),
     "power must be a finite number above 0, got 0; 1 is a straight line"),
    (lambda: cw.WarmupStableDecay(max_lr=0.1, warmup_steps=5, decay_steps=5, total_steps=10),
     "total_steps must be above warmup_steps + decay_steps = 10, got 10; shorten the warm-up or the decay"),
    (lambda: cw.Together(rate=0.1), "rate must be a policy, got float 0.1; make it a Constant"),
    (lambda: cw.Together(rate=cw.Constant(lr=0.1, total_steps=5), decays=cw.Constant(lr=0.1, total_steps=6)),
     "decays must have as many steps as rate, got 6 and 5; make it longer with extend(), or with Join"),
    (lambda: cw.Together(rate=cw.Constant(lr=0.1, total_steps=5), momenta=cw.Constant(lr=1.5, total_steps=5)),
     "momenta must stay below 1, got a policy that reaches 1.5; lower it"),
    (lambda: cw.Join([]), "policies must hold at least one policy, got none; pass for example [warmup, cosine]"),
    (lambda: cw.Join([0.1]), "policies must hold policies only, got float 0.1; make it a Constant"),
    (lambda: cw.Join(None),
     "policies must be a list of policies, got NoneType None; pass for example [warmup, cosine]"),
    (lambda: cw.Join(cw.Constant(lr=0.1, total_steps=3)),
     "policies must be a list of policies, got Constant Constant(lr=0.1, total_steps=3); "
     "pass for example [warmup, cosine]"),
    (lambda: Extended(original=0.1, total_steps=3, at_step=1),
     "original must be a policy, got float 0.1; make it a Constant"),
    (lambda: Rescaled(original=0.1, factor=0.5, at_step=1),
     "original must be a policy, got float 0.1; make it a Constant"),
    (lambda: cw.MultiStep(max_lr=0.1, milestones=3, total_steps=9),
     "milestones must be a list of steps, got int 3; they count steps from 0, rising: [100, 150]"),
    (lambda: cw.Join([cw.Constant(lr=0.1, total_steps=1),
                      cw.OneCycle(max_lr=1, total_steps=9, base_momentum=0.8, max_momentum=0.9)]),
     "policies must all move the momentum or none of them, got parts that do (True) and don't: [False, True]; "
     "give the others a constant one: what nobody writes depends on where training was resumed"),
    (lambda: cw.Constant(lr=0.1, total_steps=5).extend(total_steps=3, at_step=3),
     "total_steps must lie beyond at_step=3, got 3; it counts from step 0, not from the joint"),
    (lambda: cw.Constant(lr=0.1, total_steps=5).extend(total_steps=3, at_step=-1),
     "at_step must be a whole number of at least 0, got -1; pass the step that training has reached"),
    (lambda: cw.Cosine(max_lr=0.1, total_steps=5).lr(-1),
     "step must be a whole number of at least 0, got -1; steps count optimizer updates from 0"),
    (lambda: cw.Constant(lr=0.1, total_steps=5).lr(-1),
     "step must be a whole number of at least 0, got -1; steps count optimizer updates from 0"),
    (lambda: cw.Cosine(max_lr=0.1, total_steps=5).lr([0, 1.5]),
     "step must be a whole number of at least 0, got [0, 1.5]; steps count optimizer updates from 0"),
    (lambda: cw.policy_from_dict({}),
     "values must be a dict with the key 'policy', got {}; pass what to_dict() returned"),
    (lambda: cw.policy_from_dict(None),
     "values must be a dict with the key 'policy', got None; pass what to_dict() returned"),
    (lambda: cw.policy_from_dict(3),
     "values must be a dict with the key 'policy', got 3; pass what to_dict() returned"),
    (lambda: cw.policy_from_dict({"policy": ["a"], "version": 1}),
     "values must describe a registered policy, got ['a']; "
     "decorate your class with cyclewise.register_policy, and import it before loading"),
    (lambda: cw.policy_from_dict({"policy": "Cosine", "version": 1, 3: 4, "a": 5}),
     "values must have exactly the fields of Cosine, got ['3', 'a']; pass what to_dict() returned"),
    (lambda: cw.policy_from_dict({"policy": "Join", "version": 1, "policies": 3}),
     "policies must be a list of policies, got int 3; pass for example [warmup, cosine]"),
    (lambda: cw.policy_from_dict({"policy": "Cosine", "version": 9}),
     "values must have version 1, got 9; they were written by another release of cyclewise"),
    (lambda: cw.policy_from_dict({"policy": "Cosine", "version": 1, "T_max": 3}),
     "values must have exactly the fields of Cosine, got ['T_max']; pass what to_dict() returned"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CASES)
def test_impossible_values_are_refused_with_a_way_out(call, message):
    with pytest.raises(cw.PolicyError) as caught:
        call()
    assert str(caught.value) == message


def test_numbers_of_any_kind_make_equal_policies():
    plain = cw.OneCycle(max_lr=1.0, total_steps=100)
    assert cw.OneCycle(max_lr=1, total_steps=100.0) == plain
    assert cw.OneCycle(max_lr=np.float64(1), total_steps=np.int64(100)) == plain
    assert cw.OneCycle(max_lr=torch.tensor(1.0), total_steps=100) == plain
    assert dataclasses.replace(plain, max_lr=0.04).max_lr == 0.04
    assert dataclasses.replace(cw.Constant(lr=0.1, total_steps=5), total_steps=9).lr(3) == 0.1
