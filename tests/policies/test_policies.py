"""What holds for every policy, and what each one promises by itself."""

import copy
import dataclasses
import json
import math
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import cyclewise as cw
from cyclewise.policies import Extended, registered_policies
from cyclewise.policies.arithmetic import ARRAY, _numpy_has_the_cosine_of_the_c_library

rates = st.floats(1e-8, 1e3)
lengths = st.integers(1, 400)
fractions = st.floats(0.0, 1.0)
momenta = st.one_of(st.just((None, None)), st.tuples(st.floats(0.0, 0.99), st.floats(0.0, 0.99)))


one_cycle_kinds = st.sampled_from([cw.OneCycle, cw.ThreePhaseOneCycle])


@st.composite
def one_cycles(draw, kind=one_cycle_kinds):
    base, high = draw(momenta)
    return draw(kind)(
        max_lr=draw(rates),
        total_steps=draw(lengths),
        pct_start=draw(fractions),
        div_factor=draw(st.floats(1.0, 100.0)),
        final_div_factor=draw(st.floats(1.0, 1e6)),
        base_momentum=base,
        max_momentum=high,
        anneal=draw(st.sampled_from(["cosine", "linear"])),
    )


@st.composite
def cosines(draw):
    low, high = sorted(draw(st.tuples(st.floats(0.0, 10.0), rates)))
    assume(high > 0)
    return cw.Cosine(max_lr=high, min_lr=low, total_steps=draw(lengths))


@st.composite
def cyclicals(draw, momenta=momenta):
    low, high = sorted(draw(st.tuples(st.floats(0.0, 10.0), rates)))
    base, top = draw(momenta)
    return cw.Cyclical(
        base_lr=low,
        max_lr=max(high, 1e-8),
        step_size_up=draw(st.integers(1, 60)),
        step_size_down=draw(st.one_of(st.none(), st.integers(1, 60))),
        mode=draw(st.sampled_from(["triangular", "triangular2", "exp_range"])),
        gamma=draw(st.floats(0.5, 1.0)),
        base_momentum=base,
        max_momentum=top,
        total_steps=draw(lengths),
    )


sgdrs = st.builds(
    cw.SGDR,
    max_lr=rates,
    min_lr=st.just(0.0),
    T_0=st.integers(1, 40),
    T_mult=st.one_of(st.integers(1, 3), st.floats(1.0, 2.5)),
    num_cycles=st.integers(1, 4),
    peak_decay=st.floats(0.1, 1.0),
)


@st.composite
def warm_and_stable(draw):
    warmup, decay = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    return cw.WarmupStableDecay(
        max_lr=draw(rates), warmup_steps=warmup, decay_steps=decay,
        total_steps=warmup + decay + draw(st.integers(1, 100)), anneal=draw(st.sampled_from(["cosine", "linear"])),
    )  # fmt: skip


multi_steps = st.builds(
    cw.MultiStep,
    max_lr=rates,
    milestones=st.sets(st.integers(1, 300), max_size=5).map(sorted),
    gamma=st.floats(0.01, 1.0),
    total_steps=lengths,
)
small = st.floats(1e-6, 10.0)
simple = st.one_of(
    warm_and_stable(),
    multi_steps,
    st.builds(cw.Exponential, start_lr=small, end_lr=small, total_steps=lengths),
    st.builds(cw.Polynomial, max_lr=small, power=st.floats(0.1, 4.0), total_steps=lengths),
    st.builds(cw.InverseSqrt, max_lr=small, warmup_steps=st.integers(1, 50), total_steps=lengths),
    st.builds(cw.FlatCosine, max_lr=small, pct_start=fractions, total_steps=lengths),
    cyclicals(momenta=st.just((None, None))),
    sgdrs,
    one_cycles().filter(lambda policy: policy.base_momentum is None),
    cosines(),
    st.builds(cw.Constant, lr=st.floats(0.0, 10.0), total_steps=lengths),
    st.builds(cw.Linear, start_lr=st.floats(0.0, 10.0), end_lr=st.floats(0.0, 10.0), total_steps=lengths),
)
joins = st.lists(simple, min_size=1, max_size=4).map(cw.Join)


@st.composite
def togethers(draw):
    rate = draw(simple)
    length, below_one = st.just(rate.total_steps), st.floats(0, 0.9)
    momenta = st.builds(cw.Linear, start_lr=below_one, end_lr=below_one, total_steps=length)
    decays = st.builds(cw.Exponential, start_lr=small, end_lr=small, total_steps=length)
    return cw.Together(
        rate=rate, momenta=draw(st.one_of(st.none(), momenta)), decays=draw(st.one_of(st.none(), decays))
    )


@st.composite
def extensions(draw):
    policy = draw(st.one_of(simple, joins, one_cycles()))
    at_step = draw(st.integers(0, policy.total_steps + 20))
    return policy.extend(total_steps=at_step + draw(st.integers(1, 500)), at_step=at_step)


policies = st.one_of(simple, togethers(), joins, one_cycles(), cyclicals(), extensions())


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


def torch_one_cycle(optimizer, policy):
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=policy.max_lr,
        total_steps=policy.total_steps,
        pct_start=policy.pct_start,
        div_factor=policy.div_factor,
        final_div_factor=policy.final_div_factor,
        base_momentum=policy.base_momentum,
        max_momentum=policy.max_momentum,
    )
    group, seen = optimizer.param_groups[0], []
    for step in range(policy.total_steps):
        seen.append((group["lr"], group["momentum"] if "momentum" in group else group["betas"][0]))
        if step < policy.total_steps - 1:
            optimizer.step()
            scheduler.step()
    return seen


@given(
    st.integers(2, 200), st.integers(2, 40), st.data(), rates, st.floats(1.0, 100.0), st.floats(1.0, 1e5),
    st.sampled_from([torch.optim.SGD, torch.optim.Adam]),
)  # fmt: skip
def test_one_cycle_equals_torch_bit_for_bit(denominator, multiple, data, max_lr, div, final_div, optimizer_class):
    total_steps = denominator * multiple
    pct_start = data.draw(st.integers(1, denominator - 1)) / denominator
    assume(float(pct_start * total_steps).is_integer())
    assume(pct_start * total_steps > 1)
    assume(total_steps <= 1000)
    policy = cw.OneCycle(
        max_lr=max_lr, total_steps=total_steps, pct_start=pct_start, div_factor=div, final_div_factor=final_div,
        base_momentum=0.85, max_momentum=0.95,
    )  # fmt: skip
    options = {"momentum": 0.9} if optimizer_class is torch.optim.SGD else {}
    seen = torch_one_cycle(optimizer_class([torch.zeros(1)], lr=1.0, **options), policy)
    assert policy.lr(range(total_steps)).tolist() == [lr for lr, _ in seen]
    assert policy.momentum(range(total_steps)).tolist() == [momentum for _, momentum in seen]


@given(st.floats(1e-4, 1.0), st.integers(2, 200))
def test_linear_and_cosine_equal_torch(rate, total_steps):
    def run(make):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
        scheduler, seen = make(optimizer), []
        for _ in range(total_steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return seen

    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

    theirs = run(lambda o: LinearLR(o, start_factor=0.1, end_factor=1.0, total_iters=total_steps - 1))
    ours = cw.Linear(start_lr=0.1 * rate, end_lr=rate, total_steps=total_steps)
    assert ours.lr(range(total_steps)) == pytest.approx(theirs, rel=1e-9)
    theirs = run(lambda o: CosineAnnealingLR(o, T_max=total_steps - 1, eta_min=0.0))
    ours = cw.Cosine(max_lr=rate, total_steps=total_steps)
    assert ours.lr(range(total_steps)) == pytest.approx(theirs, rel=1e-9, abs=1e-12 * rate)


def run_torch(make, num_steps, **options):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    scheduler, seen = make(optimizer), []
    for _ in range(num_steps):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        scheduler.step()
    return [lr for lr, _ in seen], [momentum for _, momentum in seen]


@given(cyclicals(momenta=st.just((0.8, 0.95))))
def test_cyclical_equals_torch(policy):
    def make(optimizer):
        return torch.optim.lr_scheduler.CyclicLR(
            optimizer, base_lr=policy.base_lr, max_lr=policy.max_lr, step_size_up=policy.step_size_up,
            step_size_down=policy.step_size_down, mode=policy.mode, gamma=policy.gamma, base_momentum=0.8,
            max_momentum=0.95,
        )  # fmt: skip

    lr, momentum = run_torch(make, policy.total_steps)
    # torch reckons the place in the cycle as a float near the number of the cycle, and loses those digits.
    cycles = policy.total_steps / policy.step_size_up + 2
    slack = 1e-14 * cycles * policy.max_lr
    assert policy.lr(range(policy.total_steps)) == pytest.approx(lr, rel=1e-12 * cycles, abs=slack)
    assert policy.momentum(range(policy.total_steps)) == pytest.approx(momentum, rel=1e-12 * cycles)


@given(rates, st.integers(1, 30), st.integers(1, 3), st.integers(1, 4), st.floats(0.0, 1.0))
def test_sgdr_equals_torch(max_lr, T_0, T_mult, num_cycles, floor):
    policy = cw.SGDR(max_lr=max_lr, min_lr=floor * max_lr, T_0=T_0, T_mult=T_mult, num_cycles=num_cycles)

    def make(optimizer):
        optimizer.param_groups[0]["lr"] = max_lr
        return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0, T_mult, eta_min=floor * max_lr)

    # Stepping one by one torch keeps whole counters, and is right.
    lr, _ = run_torch(make, policy.total_steps)
    assert policy.lr(range(policy.total_steps)) == pytest.approx(lr, rel=1e-12, abs=1e-14 * max_lr)


@given(sgdrs)
def test_sgdr_cycles_have_the_promised_lengths_and_peaks(policy):
    lengths = [round(policy.T_0 * policy.T_mult**k) for k in range(policy.num_cycles)]
    assert np.diff([0, *policy.cycle_ends]).tolist() == lengths
    for k, start in enumerate([0, *policy.cycle_ends[:-1]]):
        assert policy.lr(start) == pytest.approx(policy.max_lr * policy.peak_decay**k)
        assert (np.diff(policy.lr(range(start, start + lengths[k]))) <= 0).all()


@given(st.integers(2, 100), st.integers(2, 20), st.data(), st.sampled_from(["linear", "cos"]))
def test_three_phases_equal_torch(denominator, multiple, data, anneal):
    total_steps = denominator * multiple
    pct_start = data.draw(st.integers(1, denominator)) / denominator
    assume(float(pct_start * total_steps).is_integer())
    assume(1 < pct_start * total_steps <= total_steps / 2)
    settings = {"max_lr": 0.4, "total_steps": total_steps, "pct_start": pct_start, "base_momentum": 0.8,
                "max_momentum": 0.95}  # fmt: skip
    policy = cw.ThreePhaseOneCycle(**settings, anneal={"cos": "cosine"}.get(anneal, anneal))

    def make(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, **settings, three_phase=True, anneal_strategy=anneal)

    # torch's last call steps beyond the end of its schedule, and is not compared.
    lr, momentum = run_torch(make, total_steps - 1)
    assert policy.lr(range(total_steps - 1)) == pytest.approx(lr, rel=1e-9, abs=1e-15)
    assert policy.momentum(range(total_steps - 1)) == pytest.approx(momentum, rel=1e-9)


@given(st.integers(2, 200), st.floats(0.5, 4.0), st.sets(st.integers(1, 150), max_size=4), st.floats(0.05, 0.99))
def test_decays_equal_torch(total_steps, power, milestones, gamma):
    from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR, PolynomialLR

    pairs = [
        (cw.Polynomial(max_lr=0.1, power=power, total_steps=total_steps),
         lambda o: PolynomialLR(o, total_iters=total_steps - 1, power=power)),
        (cw.MultiStep(max_lr=0.1, milestones=sorted(milestones), gamma=gamma, total_steps=total_steps),
         lambda o: MultiStepLR(o, sorted(milestones), gamma=gamma)),
        (cw.Exponential(start_lr=0.1, end_lr=0.1 * gamma, total_steps=total_steps),
         lambda o: ExponentialLR(o, gamma ** (1 / (total_steps - 1)))),
    ]  # fmt: skip
    for policy, make in pairs:
        lr, _ = run_torch(make, total_steps)
        assert policy.lr(range(total_steps)) == pytest.approx(lr, rel=1e-8, abs=1e-12)


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
     "num_cycles must leave the last cycle shorter than 2**53 steps, got 100 with T_mult=10; ask for fewer cycles"),
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


# --- bugs of existing schedulers ------------------------------------------------------------------------------------


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


def test_extended_is_a_policy_of_its_own():
    policy = cw.Cosine(max_lr=1.0, total_steps=10).extend(total_steps=20, at_step=5)
    assert isinstance(policy, Extended)
    assert re.match(r"Extended\(original=Cosine\(", repr(policy))
