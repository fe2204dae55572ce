"""What holds for every policy, and what each one promises by itself."""

import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cyclewise as cw
from cyclewise.policies import registered_policies
from cyclewise.policies.arithmetic import ARRAY, _numpy_has_the_cosine_of_the_c_library
from tests.policies.strategies import one_cycles, policies, sgdrs


@given(policies)
def test_one_step_and_many_have_the_same_bits(policy):
    steps = list(range(policy.total_steps + 3))
    for read in (policy.lr, policy.momentum, policy.weight_decay):
        one_by_one = [read(step) for step in steps]
        together = read(steps)
        if together is None:
            assert set(one_by_one) == {None}
            continue
        assert together.dtype == np.float64
        assert all(type(value) is float for value in one_by_one)
        assert together.tolist() == one_by_one
        assert read(np.array(steps)).tolist() == one_by_one
        assert read(range(len(steps))).tolist() == one_by_one
        assert read(np.array(steps).reshape(1, -1)).shape == (1, len(steps))
        assert read(np.int64(0)) == one_by_one[0]


@given(policies)
def test_values_are_total_finite_never_negative_and_hold(policy):
    lr = policy.lr(range(policy.total_steps + 50))
    assert np.isfinite(lr).all()
    assert (lr >= 0).all()
    assert set(lr[policy.total_steps - 1 :]) == {lr[policy.total_steps - 1]}
    assert policy.lr(10**9) == lr[-1]
    assert policy.lr([]).shape == (0,)
    assert policy.cycle_ends == sorted(policy.cycle_ends)
    assert policy.cycle_ends[-1] == policy.total_steps
    assert policy.lr(policy.peak_step) == lr.max()


@given(policies)
def test_a_policy_is_a_value(policy):
    again = cw.policy_from_dict(json.loads(json.dumps(policy.to_dict(), allow_nan=False)))
    for copied in (again, pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy), eval(repr(policy), NAMES)):
        assert copied == policy
        assert hash(copied) == hash(policy)
        assert copied.lr(range(20)).tolist() == policy.lr(range(20)).tolist()
    field = dataclasses.fields(policy)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(policy, field, 1)


NAMES = {policy.__name__: policy for policy in registered_policies()}


@given(one_cycles(kind=st.just(cw.OneCycle)))
def test_one_cycle_reaches_its_peak_and_its_end(policy):
    last = policy.total_steps - 1
    assert policy.peak_step == max(0, round(policy.pct_start * policy.total_steps) - 1)
    assert policy.lr(policy.peak_step) == policy.max_lr
    if policy.peak_step < last:
        assert policy.lr(last) == policy.min_lr
    if policy.peak_step > 0:
        assert policy.lr(0) == pytest.approx(policy.initial_lr)
    lr = policy.lr(range(policy.total_steps))
    slack = 1e-12 * policy.max_lr
    assert (np.diff(lr[: policy.peak_step + 1]) >= -slack).all()
    assert (np.diff(lr[policy.peak_step :]) <= slack).all()
    assert (lr >= policy.min_lr * (1 - 1e-9)).all()
    if policy.base_momentum is not None:
        assert policy.momentum(policy.peak_step) == pytest.approx(policy.base_momentum)
        if policy.peak_step < last:
            assert policy.momentum(last) == policy.max_momentum


@given(sgdrs)
def test_sgdr_cycles_have_the_promised_lengths_and_peaks(policy):
    lengths = [round(policy.T_0 * policy.T_mult**k) for k in range(policy.num_cycles)]
    assert np.diff([0, *policy.cycle_ends]).tolist() == lengths
    for k, start in enumerate([0, *policy.cycle_ends[:-1]]):
        assert policy.lr(start) == pytest.approx(policy.max_lr * policy.peak_decay**k)
        assert (np.diff(policy.lr(range(start, start + lengths[k]))) <= 0).all()


def test_one_step_policies():
    assert cw.OneCycle(max_lr=0.1, total_steps=1).lr([0, 1]).tolist() == [0.1, 0.1]
    assert cw.Linear(start_lr=1.0, end_lr=2.0, total_steps=1).lr(0) == 2.0
    assert cw.Cosine(max_lr=1.0, min_lr=0.5, total_steps=1).lr([0, 3]).tolist() == [0.5, 0.5]


def test_join_gives_each_part_its_own_steps():
    warmup, cosine = cw.Linear(start_lr=1e-5, end_lr=1e-3, total_steps=10), cw.Cosine(max_lr=1e-3, total_steps=20)
    policy = cw.Join([warmup, cosine])
    assert policy.lr(range(30)).tolist() == [*warmup.lr(range(10)).tolist(), *cosine.lr(range(20)).tolist()]
    assert (policy.total_steps, policy.cycle_ends) == (30, [10, 30])
    assert policy == cw.Join((warmup, cosine))


def test_a_policy_in_epochs_becomes_one_in_steps():
    pairs = [
        (cw.OneCycle(max_lr=0.1, total_steps=95), cw.OneCycle(max_lr=0.1, total_steps=950)),
        (cw.SGDR(max_lr=0.1, T_0=3, T_mult=2, num_cycles=2), cw.SGDR(max_lr=0.1, T_0=30, T_mult=2, num_cycles=2)),
        (cw.MultiStep(max_lr=0.1, milestones=[3, 6], total_steps=9),
         cw.MultiStep(max_lr=0.1, milestones=[30, 60], total_steps=90)),
        (cw.Cyclical(base_lr=0.1, max_lr=1.0, step_size_up=2, mode="exp_range", gamma=0.5, total_steps=9),
         cw.Cyclical(base_lr=0.1, max_lr=1.0, step_size_up=20, mode="exp_range", gamma=0.5**0.1, total_steps=90)),
        (cw.Constant(lr=0.1, total_steps=9).extend(total_steps=20, at_step=3),
         cw.Constant(lr=0.1, total_steps=90).extend(total_steps=200, at_step=30)),
        (cw.Join([cw.Constant(lr=0.1, total_steps=9)] * 2), cw.Join([cw.Constant(lr=0.1, total_steps=90)] * 2)),
    ]  # fmt: skip
    for epochs, steps in pairs:
        assert epochs.in_epochs(10) == steps
    with pytest.raises(cw.PolicyError, match="steps_per_epoch must be a whole number of at least 1, got 0"):
        pairs[0][0].in_epochs(0)
    with pytest.raises(cw.PolicyError, match="policy must be a dataclass to be turned into steps, got a Warm"):
        Warm(5).in_epochs(10)


@cw.register_policy
@dataclasses.dataclass(frozen=True)
class Staircase(cw.Policy):
    total_steps: int
    height: float = 1.0

    def value(self, step):
        return self.height / (1 + step // 10)


class Warm(cw.Policy):
    def __init__(self, total_steps):
        self.total_steps = total_steps

    def value(self, step):
        return cw.Hyperparameters(lr=0.1 * (step + 1), momentum=0.9)


def test_a_users_policy_works_everywhere():
    policy = Staircase(30)
    assert policy.lr([0, 10, 29, 99]) == pytest.approx([1.0, 0.5, 1 / 3, 1 / 3])
    assert policy.momentum([0, 1]) is None
    assert cw.policy_from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    joined = cw.Join([policy, policy]).extend(total_steps=90, at_step=30)
    assert cw.policy_from_dict(json.loads(json.dumps(joined.to_dict()))) == joined
    assert policy.plot().axes
    assert Warm(5).momentum([0, 9]).tolist() == [0.9, 0.9]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.5)
    cw.PolicyLR(optimizer, Warm(5)).step()
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (0.2, 0.9)


def test_an_unregistered_policy_says_how_to_register():
    values = Warm(5).to_dict()
    with pytest.raises(cw.PolicyError) as caught:
        cw.policy_from_dict(values)
    assert str(caught.value) == (
        "values must describe a registered policy, got 'Warm'; "
        "decorate your class with cyclewise.register_policy, and import it before loading"
    )


def test_a_taken_name_is_refused():
    class Cosine(cw.Policy):
        def value(self, step):
            return 0.1

    with pytest.raises(
        cw.PolicyError, match="must have a name of its own, got 'Cosine', which is taken; rename the class"
    ):
        cw.register_policy(Cosine)


def test_pictures():
    policy = cw.OneCycle(max_lr=0.4, total_steps=100_000, base_momentum=0.85, max_momentum=0.95)
    assert [chart.title for chart in policy.charts()] == ["Learning rate", "Momentum"]
    assert policy.plot().axes
    assert "OneCycle" in policy._repr_html_()


def test_arrays_fall_back_to_the_cosine_of_the_c_library(monkeypatch):
    from cyclewise.policies import arithmetic

    angles = np.linspace(0, math.pi, 1000)
    expected = [math.cos(angle) for angle in angles.tolist()]
    assert ARRAY.cos(angles).tolist() == expected
    assert isinstance(_numpy_has_the_cosine_of_the_c_library(), bool)
    monkeypatch.setattr(arithmetic, "_numpy_has_the_cosine_of_the_c_library", lambda: False)
    assert ARRAY.cos(angles.reshape(10, 100)).ravel().tolist() == expected
