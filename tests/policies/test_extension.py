"""A policy made longer while it runs: the old one before the joint, and the same end."""

import re

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import cyclewise as cw
from cyclewise.policies import Extended
from tests.policies.strategies import joins, one_cycles, simple


@given(st.one_of(simple, joins, one_cycles()), st.data())
def test_extension_is_the_old_policy_before_and_ends_where_it_ended(policy, data):
    at_step = data.draw(st.integers(0, policy.total_steps - 1))
    total_steps = data.draw(st.integers(at_step + 2, at_step + 600))
    longer = policy.extend(total_steps=total_steps, at_step=at_step)
    assert longer.lr(range(at_step + 1)).tolist() == policy.lr(range(at_step + 1)).tolist()
    assert longer.lr(total_steps - 1) == policy.lr(policy.total_steps - 1)
    assert longer.total_steps == total_steps
    old = policy.lr(range(policy.total_steps))
    assert longer.lr(range(total_steps)).max() <= old.max()
    assert longer.lr(range(total_steps)).min() >= old.min()


def test_extending_to_the_same_length_changes_nothing():
    policy = cw.OneCycle(max_lr=0.3, total_steps=50)
    assert policy.extend(total_steps=50, at_step=20).lr(range(60)).tolist() == policy.lr(range(60)).tolist()


def test_extension_beyond_the_end_holds_and_can_be_extended_again():
    policy = cw.Linear(start_lr=1.0, end_lr=0.5, total_steps=3)
    longer = policy.extend(total_steps=10, at_step=5)
    assert longer.lr(range(10)).tolist() == [1.0, 0.75, *[0.5] * 8]
    twice = policy.extend(total_steps=5, at_step=0).extend(total_steps=9, at_step=0)
    assert twice.lr([0, 4, 8]).tolist() == [1.0, 0.75, 0.5]


def test_extension_keeps_the_ends_of_cycles_sharp():
    policy = cw.Join([cw.Linear(start_lr=1.0, end_lr=0.0, total_steps=5)] * 2)
    longer = policy.extend(total_steps=19, at_step=0)
    jumps = np.flatnonzero(np.diff(longer.lr(range(19))) > 0.5)
    assert len(jumps) == 1
    assert longer.cycle_ends == [jumps[0] + 1, 19]


@given(st.one_of(simple, joins), st.data())
def test_squeezed_cycles_end_one_after_the_other(policy, data):
    at_step = data.draw(st.integers(0, policy.total_steps + 3))
    squeezed = policy.extend(total_steps=at_step + data.draw(st.integers(1, 9)), at_step=at_step)
    for ends in (squeezed.cycle_ends, squeezed.extend(total_steps=at_step + 2, at_step=at_step).cycle_ends):
        assert ends == sorted(set(ends))
        assert 0 < ends[0]


def test_cycles_that_were_squeezed_into_one_step_count_as_one():
    policy = cw.SGDR(max_lr=0.1, T_0=4, num_cycles=4).extend(total_steps=6, at_step=4)
    assert policy.cycle_ends == [4, 5, 6]
    seen = []
    scheduler = cw.PolicyLR(
        torch.optim.SGD([torch.zeros(1)], lr=1.0),
        policy,
        on_cycle_end=lambda its, cycle: seen.append((its.last_epoch, cycle)),
    )
    for _ in range(6):
        scheduler.step()
    assert seen == [(4, 1), (5, 2), (6, 3)]
    assert cw.Snapshots(policy.cycle_ends).cycle_ends == [4, 5, 6]
    assert cw.Join([policy, policy]).cycle_ends == [4, 5, 6, 10, 11, 12]


def test_extended_is_a_policy_of_its_own():
    policy = cw.Cosine(max_lr=1.0, total_steps=10).extend(total_steps=20, at_step=5)
    assert isinstance(policy, Extended)
    assert re.match(r"Extended\(original=Cosine\(", repr(policy))
