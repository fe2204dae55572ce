"""A policy is total: it has a value at every step of at least 0, however large and of whatever kind of number."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cyclewise as cw
from tests.policies.strategies import policies

CYCLE = cw.OneCycle(max_lr=1, total_steps=10)
END = CYCLE.lr(9)

FAR = [
    [2**63], [2**63 - 1], [10**20], [10**400], [float("inf")], [1e300], [1e19], [2**53 + 1],
    np.array([2**64 - 1], dtype=np.uint64), np.array([2**63], dtype=np.uint64), np.array([np.inf], dtype=np.float16),
    np.array([10], dtype=np.uint8), np.array([127], dtype=np.int8), np.array([10**30], dtype=object),
    torch.tensor([2**62]), torch.tensor([math.inf]), range(10**30, 10**30 + 1),
]  # fmt: skip


@pytest.mark.parametrize("steps", FAR)
def test_beyond_the_end_the_last_value_is_held(steps):
    assert CYCLE.lr(steps).tolist() == [END]
    assert cw.Constant(lr=0.5, total_steps=3).lr(steps).tolist() == [0.5]


@pytest.mark.parametrize("step", [2**63, 10**20, 10**400, float("inf"), 1e300, np.float64(np.inf), np.uint64(2**63)])
def test_so_it_is_at_one_step(step):
    assert float(CYCLE.lr(step)) == END


def test_near_and_far_steps_may_be_mixed():
    steps = [0, 10**20, 3, 2**63, float("inf"), 5.0, 2**70]
    expected = [CYCLE.lr(step) for step in (0, 9, 3, 9, 9, 5, 9)]
    assert CYCLE.lr(steps).tolist() == expected
    assert CYCLE.lr([[0, 2**63], [3, 4]]).tolist() == [[CYCLE.lr(0), END], [CYCLE.lr(3), CYCLE.lr(4)]]


@given(policies, st.lists(st.one_of(st.integers(0, 700), st.integers(0, 10**30)), max_size=6))
def test_one_step_and_many_have_the_same_bits_everywhere(policy, steps):
    for read in (policy.lr, policy.momentum, policy.weight_decay):
        many = read(steps)
        if many is not None:
            assert many.tolist() == [read(step) for step in steps]


REFUSED = [
    [-1], [2**63, -1], [-(10**20)], [10**20, 1.5], [math.nan], [-math.inf], [10**20, None], ["1"], [1j], [[1], [2, 3]],
    np.array([1.5], dtype=object), "3", None, [None],
]  # fmt: skip


@pytest.mark.parametrize("steps", REFUSED)
def test_what_is_no_step_is_refused(steps):
    for policy in (CYCLE, cw.Constant(lr=0.5, total_steps=3)):
        with pytest.raises(cw.PolicyError) as caught:
            policy.lr(steps)
        assert str(caught.value) == (
            f"step must be a whole number of at least 0, got {steps!r}; steps count optimizer updates from 0"
        )
