"""Lengths have one limit everywhere, and what lies beyond it is refused before anything is built."""

import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

import cyclewise as cw

HUGE = 10**30
OPTIMIZER = torch.optim.SGD([torch.zeros(1)], lr=1.0)  # the first one imports a lot
FEWER = "got {} with T_0=3 and T_mult={}; ask for fewer cycles"
COUNTS = "it counts optimizer updates: epochs * len(train_loader)"
CASES = [
    (lambda: cw.SGDR(max_lr=0.1, T_0=3, T_mult=2, num_cycles=3000),
     f"num_cycles must leave at most 2**53 steps in all, {FEWER.format(3000, 2)}"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=3, T_mult=1.5, num_cycles=3000),
     f"num_cycles must leave at most 2**53 steps in all, {FEWER.format(3000, 1.5)}"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=3, T_mult=1e300, num_cycles=2),
     f"num_cycles must leave at most 2**53 steps in all, {FEWER.format(2, '1e+300')}"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=3, T_mult=1.7e308, num_cycles=50),
     f"num_cycles must leave at most 2**53 steps in all, {FEWER.format(50, '1.7e+308')}"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=2**53, num_cycles=2),
     "num_cycles must leave at most 2**53 steps in all, got 2 with T_0=9007199254740992 and T_mult=1; "
     "ask for fewer cycles"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=3, num_cycles=10**9),
     "num_cycles must be at most 1000000, got 1000000000; the end of each is kept: ask for fewer, longer cycles"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=3, T_mult=2, num_cycles=10**9),
     "num_cycles must be at most 1000000, got 1000000000; the end of each is kept: ask for fewer, longer cycles"),
    (lambda: cw.SGDR(max_lr=0.1, T_0=HUGE, num_cycles=1),
     f"T_0 must be at most 2**53, got {HUGE}; it counts the steps of the first cycle"),
    (lambda: cw.OneCycle(max_lr=1, total_steps=HUGE), f"total_steps must be at most 2**53, got {HUGE}; {COUNTS}"),
    (lambda: cw.OneCycle(max_lr=1, total_steps=1e300), f"total_steps must be at most 2**53, got 1e+300; {COUNTS}"),
    (lambda: cw.Linear(start_lr=1, end_lr=0, total_steps=10**9999),
     f"total_steps must be at most 2**53, got an int of 33216 bits; {COUNTS}"),
    (lambda: cw.Linear(start_lr=1, end_lr=0, total_steps=-(10**9999)),
     f"total_steps must be a whole number of at least 1, got an int of 33216 bits; {COUNTS}"),
    (lambda: cw.Linear(start_lr=10**9999, end_lr=0, total_steps=5),
     "start_lr must be a finite number of at least 0, got an int of 33216 bits; rates cannot be negative"),
    (lambda: cw.Linear(start_lr=1, end_lr=0, total_steps=5).lr(-(10**9999)),
     "step must be a whole number of at least 0, got an int of 33216 bits; steps count optimizer updates from 0"),
    (lambda: cw.OneCycle(max_lr=1, total_steps=20).extend(total_steps=10**25, at_step=15),
     f"total_steps must be at most 2**53, got {10**25}; {COUNTS}"),
    (lambda: cw.OneCycle(max_lr=1, total_steps=20).extend(total_steps=50, at_step=10**25),
     f"at_step must be at most 2**53, got {10**25}; pass the step that training has reached"),
    (lambda: cw.Cyclical(base_lr=0, max_lr=1, step_size_up=HUGE, total_steps=5),
     f"step_size_up must be at most 2**53, got {HUGE}; "
     "it counts optimizer updates: 2 to 10 epochs' worth is usual"),
    (lambda: cw.Cyclical(base_lr=0, max_lr=1, step_size_up=1, total_steps=2**53).cycle_ends,
     "total_steps must leave at most 10000000 cycles to list their ends, got 4503599627370496; "
     "raise step_size_up"),
    (lambda: cw.InverseSqrt(max_lr=1, warmup_steps=HUGE, total_steps=5),
     f"warmup_steps must be at most 2**53, got {HUGE}; a few hundred is usual; for none use Polynomial"),
    (lambda: cw.WarmupStableDecay(max_lr=1, warmup_steps=HUGE, decay_steps=0, total_steps=5),
     f"warmup_steps must be at most 2**53, got {HUGE}; 0 means none"),
    (lambda: cw.MultiStep(max_lr=1, milestones=[HUGE], total_steps=5),
     f"milestones must be at most 2**53, got {HUGE}; they count steps from 0, rising: [100, 150]"),
    (lambda: cw.Join([cw.Constant(lr=0.1, total_steps=2**53)] * 2),
     "policies must have at most 2**53 steps in all, got 18014398509481984; shorten them"),
    (lambda: cw.OneCycle(max_lr=1, total_steps=2**30).in_epochs(2**30),
     f"total_steps must be at most 2**53, got {2**60}; {COUNTS}"),
    (lambda: cw.CycleOnPlateau(base_lr=0.1, max_lr=1, cycle_steps=10**400, patience=3),
     "cycle_steps must be at most 2**53, got an int of 1329 bits; a cycle goes up and down"),
    (lambda: cw.PolicyLR(OPTIMIZER, Endless()),
     f"total_steps must be at most 2**53, got {HUGE}; {COUNTS}"),
    (lambda: Endless().lr([0, 1]), f"total_steps must be at most 2**53, got {HUGE}; {COUNTS}"),
]  # fmt: skip


class Endless(cw.Policy):
    total_steps = HUGE

    def value(self, step):
        return 0.1


@pytest.mark.parametrize(("call", "message"), CASES)
def test_what_is_too_long_is_refused_at_once(call, message):
    tracemalloc.start()
    try:
        with pytest.raises(cw.PolicyError) as caught:
            call()
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert str(caught.value) == message


LONGEST = [
    cw.OneCycle(max_lr=1, total_steps=2**53, base_momentum=0.8, max_momentum=0.9),
    cw.ThreePhaseOneCycle(max_lr=1, total_steps=2**53),
    cw.Linear(start_lr=0, end_lr=1, total_steps=2**53),
    cw.Exponential(start_lr=1e-3, end_lr=1, total_steps=2**53),
    cw.Polynomial(max_lr=1, power=2, total_steps=2**53),
    cw.InverseSqrt(max_lr=1, warmup_steps=2**50, total_steps=2**53),
    cw.WarmupStableDecay(max_lr=1, warmup_steps=2**50, decay_steps=2**50, total_steps=2**53),
    cw.FlatCosine(max_lr=1, total_steps=2**53),
    cw.MultiStep(max_lr=1, milestones=[2**52], total_steps=2**53),
    cw.Cyclical(base_lr=0, max_lr=1, step_size_up=2**53, total_steps=2**53),
    cw.Cyclical(base_lr=0, max_lr=1, step_size_up=1, mode="triangular2", total_steps=2**53),
    cw.Cyclical(base_lr=0, max_lr=1, step_size_up=3, mode="exp_range", gamma=0.5, total_steps=2**53),
    cw.SGDR(max_lr=1, T_0=1, T_mult=2, num_cycles=53),
    cw.SGDR(max_lr=1, T_0=1, T_mult=1e300, num_cycles=1),
    cw.Join([cw.Linear(start_lr=0, end_lr=1, total_steps=2**52), cw.Cosine(max_lr=1, total_steps=2**52)]),
    cw.Cosine(max_lr=1, total_steps=2**52).extend(total_steps=2**53, at_step=2**51),
    cw.SGDR(max_lr=1, T_0=2**40, num_cycles=5).extend(total_steps=2**41, at_step=5),
    cw.Together(
        rate=cw.Cosine(max_lr=1, total_steps=2**53), momenta=cw.Linear(start_lr=0.9, end_lr=0.5, total_steps=2**53)
    ),
]


@pytest.mark.parametrize("policy", LONGEST, ids=lambda policy: type(policy).__name__)
def test_the_longest_policies_have_the_same_bits_one_by_one_and_together(policy):
    last = policy.total_steps - 1
    steps = [0, 1, 17, *(last * k // 13 + k for k in range(13)), max(0, last - 1), last, last + 1]
    for read in (policy.lr, policy.momentum):
        together = read(steps)
        if together is not None:
            assert together.tolist() == [read(step) for step in steps]
            assert np.isfinite(together).all()
            assert (together >= 0).all()
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.5)
    cw.PolicyLR(optimizer, policy).step()
    assert optimizer.param_groups[0]["lr"] == policy.lr(1)
    assert policy.charts()


def test_of_a_long_policy_the_highest_rate_is_looked_for_within_bounds():
    rate = cw.Constant(lr=0.1, total_steps=2**53)
    with pytest.raises(cw.PolicyError, match=r"momenta must stay below 1, got a policy that reaches 1\.5"):
        cw.Together(rate=rate, momenta=cw.Linear(start_lr=0.1, end_lr=1.5, total_steps=2**53))
    assert cw.Linear(start_lr=0.1, end_lr=1.5, total_steps=2**53).peak_step == 2**53 - 1
    # Up to some millions of steps every one is looked at.
    spike = cw.Join([cw.Constant(lr=0.1, total_steps=3_000_001), cw.Constant(lr=0.5, total_steps=1),
                     cw.Constant(lr=0.1, total_steps=1_000_000)])  # fmt: skip
    assert spike.peak_step == 3_000_001
    assert math.isclose(spike.lr(spike.peak_step), 0.5)


def test_a_million_and_a_half_cycles_can_be_counted_and_extended():
    policy = cw.Cyclical(base_lr=0.1, max_lr=0.5, step_size_up=1, total_steps=3_000_000)
    ended = []
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = cw.PolicyLR(optimizer, policy, on_cycle_end=lambda _, num_cycles: ended.append(num_cycles))
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert ended == [1, 2]
    assert policy.extend(total_steps=3_000_010, at_step=10).lr(7) == policy.lr(7)


def test_cycles_that_are_too_long_are_refused_without_assertions_too():
    code = "import cyclewise as cw; cw.SGDR(max_lr=1, T_0=1, T_mult=2, num_cycles=60)"
    ended = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert "PolicyError: num_cycles must leave at most 2**53 steps in all, got 60" in ended.stderr


@pytest.mark.parametrize("step", [8, 9_000_003, 19_999_990])
def test_of_a_long_policy_the_steps_about_its_ends_and_joints_are_looked_at(step):
    parts = [cw.Constant(lr=0.5, total_steps=n) for n in (step, 20_000_000 - step)]
    momenta = cw.Join([parts[0], cw.Constant(lr=1.5, total_steps=1), parts[1]])
    assert momenta.peak_step == step
    with pytest.raises(cw.PolicyError, match=r"momenta must stay below 1, got a policy that reaches 1\.5"):
        cw.Together(rate=cw.Constant(lr=0.1, total_steps=20_000_001), momenta=momenta)
    with pytest.raises(cw.PolicyError, match=r"factor must leave rates of at most 1e\+300"):
        cw.Rescaled(original=momenta, factor=0.9e300, at_step=0)


def test_of_very_many_cycles_the_first_peak_is_found():
    many = cw.Cyclical(base_lr=0.1, max_lr=0.5, step_size_up=1, total_steps=2**25)
    assert many.peak_step == 1
