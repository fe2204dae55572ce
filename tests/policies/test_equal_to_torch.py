"""The schedules that torch has too: what its own schedulers write, step by step."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import cyclewise as cw
from tests.policies.strategies import cyclicals, rates


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
