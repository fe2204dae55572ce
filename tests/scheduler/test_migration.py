import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR, StepLR

import cyclewise as cw


def optimizer_of(kind=torch.optim.SGD, **options):
    groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.02}]
    return kind(groups, lr=0.1, **options)


MAKERS = {
    "one-cycle": lambda o: OneCycleLR(o, [0.4, 0.2], total_steps=60, base_momentum=0.8, max_momentum=0.95),
    "one-cycle, rate only": lambda o: OneCycleLR(o, 0.4, total_steps=60, cycle_momentum=False),
    "three phases": lambda o: OneCycleLR(o, 0.4, total_steps=60, pct_start=0.4, three_phase=True),
    "linear": lambda o: OneCycleLR(o, 0.4, total_steps=60, anneal_strategy="linear"),
    "cyclic": lambda o: CyclicLR(o, 0.01, 0.1, step_size_up=7, step_size_down=5, mode="triangular2"),
    "cyclic, rate only": lambda o: CyclicLR(o, 0.01, [0.1, 0.3], step_size_up=7, mode="exp_range", gamma=0.99,
                                            cycle_momentum=False),
    "restarts": lambda o: CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2, eta_min=1e-3),
}  # fmt: skip


def values(optimizer):
    momenta = [group.get("momentum", group.get("betas", [None])[0]) for group in optimizer.param_groups]
    return [group["lr"] for group in optimizer.param_groups] + momenta


@pytest.mark.parametrize("at_step", [0, 1, 13, 40])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("name", MAKERS)
def test_the_steps_to_come_are_torchs(name, kind, at_step):
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    theirs, ours = optimizer_of(kind, **options), optimizer_of(kind, **options)
    old, mid_run = MAKERS[name](theirs), MAKERS[name](ours)
    for _ in range(at_step):
        for optimizer, scheduler in ((theirs, old), (ours, mid_run)):
            optimizer.step()
            scheduler.step()
    new = cw.migrate(mid_run, total_steps=60)
    for _ in range(at_step, 59):
        assert values(ours) == pytest.approx(values(theirs), rel=1e-9, abs=1e-12)
        theirs.step()
        old.step()
        new.step()


def test_what_no_policy_can_be_made_of_is_refused():
    cyclic = CyclicLR(optimizer_of(momentum=0.9), 0.01, 0.1, scale_fn=lambda x: 0.5)
    with pytest.raises(cw.PolicyError, match="scheduler must not have a scale_fn"):
        cw.migrate(cyclic, total_steps=60)
    with pytest.raises(cw.ArgumentTypeError, match=r"scheduler must be a OneCycleLR, CyclicLR or Cosine.*got a StepLR"):
        cw.migrate(StepLR(optimizer_of(), 3))
    with pytest.raises(cw.PolicyError) as caught:
        cw.migrate(CosineAnnealingWarmRestarts(optimizer_of(), 5))
    assert str(caught.value) == (
        "total_steps must be given for a scheduler without an end, got None; pass epochs * len(train_loader)"
    )


@pytest.mark.parametrize("three_phase", [False, True])
def test_a_peak_between_two_steps_is_told(three_phase):
    old = OneCycleLR(optimizer_of(momentum=0.9), 0.4, total_steps=15, three_phase=three_phase)
    told = (
        "the OneCycleLR has its peak between two steps, at 3.5; the policy has it on step 3, "
        "so that the rates differ a little"
    )
    with pytest.warns(UserWarning, match=rf"^{told}$") as caught:
        new = cw.migrate(old)
    assert caught[0].filename == __file__
    for _ in range(3):
        new.step()
    assert new.get_last_lr() == [0.4, 0.4]


@pytest.mark.parametrize("total_steps", [10, 20, 1000, 1230])
def test_one_on_a_step_is_not(total_steps):
    cw.migrate(OneCycleLR(optimizer_of(momentum=0.9), 0.4, total_steps=total_steps))


def test_a_fraction_of_an_epoch_is_refused():
    old = CosineAnnealingWarmRestarts(optimizer_of(), 10)
    old.step(3.5)
    with pytest.raises(cw.PolicyError) as caught:
        cw.migrate(old, total_steps=20)
    assert str(caught.value) == (
        "scheduler must stand at a whole epoch, got 3.5 epochs into a cycle of 10; policies count steps: "
        "write SGDR with T_0 in updates by hand and set its step: "
        'scheduler.load_state_dict({**scheduler.state_dict(), "step": k})'
    )
    old.step(4.0)
    assert cw.migrate(old, total_steps=20).last_epoch == 4


def test_restarts_without_number_are_refused_at_once():
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(torch.optim.SGD([torch.zeros(1)], lr=0.1), 1)
    with pytest.raises(cw.PolicyError, match="num_cycles must be at most 1000000, got 1000001"):
        cw.migrate(theirs, total_steps=10**30)
