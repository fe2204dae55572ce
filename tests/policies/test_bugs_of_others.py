"""Bugs of existing schedulers, each with what the policy does instead."""

import warnings

import numpy as np
import pytest
import torch

import cyclewise as cw


def test_linear_one_cycle_never_goes_below_its_end_and_does_not_climb_again():
    policy = cw.OneCycle(max_lr=1.0, total_steps=10, anneal="linear")
    lr = policy.lr(range(20))
    assert lr[9:].tolist() == [policy.min_lr] * 11
    assert (np.diff(lr[policy.peak_step :]) <= 0).all()


@pytest.mark.parametrize(("total_steps", "pct_start"), [(10, 0.1), (10, 1.0), (10, 1), (10, 0.0), (3, 0.01), (1, 0.5)])
def test_every_fraction_and_every_length_is_defined(total_steps, pct_start):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lr = cw.OneCycle(max_lr=1.0, total_steps=total_steps, pct_start=pct_start).lr(range(total_steps))
    assert lr.max() == 1.0


def test_cosine_holds_after_its_end():
    assert cw.Cosine(max_lr=1.0, total_steps=10).lr(range(9, 40)).tolist() == [0.0] * 31


def test_three_phases_end_at_the_minimum_also_when_there_is_no_room_for_them():
    for pct_start in (0.5, 0.6, 0.9, 1.0):
        policy = cw.ThreePhaseOneCycle(max_lr=1.0, total_steps=20, pct_start=pct_start)
        lr = policy.lr(range(20))
        assert lr.max() == 1.0
        assert lr[-1] == policy.min_lr or pct_start == 1.0


def test_triangular2_survives_cycle_5000():
    policy = cw.Cyclical(base_lr=0.1, max_lr=1.0, step_size_up=1, mode="triangular2", total_steps=20_000)
    assert policy.lr(2 * 5000 + 1) == 0.1
    assert policy.lr([1, 3]).tolist() == [1.0, 0.55]


@pytest.mark.parametrize(("T_0", "T_mult", "restart"), [(1, 3, 121), (1, 10, 111), (10, 2, 70), (1, 2, 2**20 - 1)])
def test_exact_restarts_are_at_the_maximum(T_0, T_mult, restart):
    policy = cw.SGDR(max_lr=1.0, T_0=T_0, T_mult=T_mult, num_cycles=21 if T_mult == 2 else 6)
    assert restart in policy.cycle_ends
    assert policy.lr([restart - 1, restart])[1] == 1.0
    assert policy.lr(restart) == 1.0


def test_warm_restarts_resume_where_they_were():
    policy = cw.SGDR(max_lr=1.0, T_0=10, num_cycles=3)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = cw.PolicyLR(optimizer, policy)
    scheduler.load_state_dict({**scheduler.state_dict(), "step": 14})
    assert optimizer.param_groups[0]["lr"] == policy.lr(14) == policy.lr(4)


def test_peak_decay_and_fractional_growth():
    policy = cw.SGDR(max_lr=1.0, T_0=10, T_mult=1.5, num_cycles=4, peak_decay=0.5)
    assert policy.cycle_ends == [10, 25, 47, 81]
    assert policy.lr([0, 10, 25, 47]).tolist() == [1.0, 0.5, 0.25, 0.125]
