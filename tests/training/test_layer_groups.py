"""Layer groups: frozen ones do not move, and each has a rate of its own."""

import numpy as np
import pytest
import torch

import cyclewise as cw
from cyclewise.training.groups import spread
from tests.training.small_learner import CONSTANT, equal, grouped, make_learner, weights


def test_frozen_groups_do_not_move():
    learn = grouped()
    learn.fit(CONSTANT)  # leaves gradients and momentum behind
    before, statistics = weights(learn), learn.model[1].running_mean.clone()
    learn.freeze(batch_norm="eval")
    learn.fit(CONSTANT)
    after = weights(learn)
    assert equal(before[:6], after[:6])
    assert not torch.equal(before[6], after[6])
    assert torch.equal(learn.model[1].running_mean, statistics)
    learn.freeze()
    learn.fit(CONSTANT)
    assert not torch.equal(learn.model[1].running_mean, statistics)
    learn.freeze_to(1)
    learn.fit(CONSTANT)
    assert equal(before[:4], weights(learn)[:4])
    assert not torch.equal(after[4], weights(learn)[4])
    learn.unfreeze()
    learn.fit(CONSTANT)
    assert not torch.equal(before[0], weights(learn)[0])
    with pytest.raises(cw.ArgumentError) as caught:
        learn.freeze_to(3)
    assert str(caught.value) == (
        "group must be a number from -3 to 2 (3 layer groups), got 3; make more groups with layer_groups= or "
        "Learner.pretrained"
    )
    with pytest.raises(
        cw.ArgumentError, match=r"^freeze\(\) needs at least two layer groups, got 1; pass layer_groups"
    ):
        make_learner().freeze()


def test_rates_between_the_groups():
    learn = grouped()
    seen = []

    class Rates(cw.Callback):
        def on_step_end(self, learner, step, loss):
            seen.append([group["lr"] for group in learner.optimizer.param_groups])

    learn.fit_one_cycle(2, max_lr=slice(1e-4, 1e-2), pct_start=0.3, callbacks=[Rates()])
    peaks = np.max(seen, axis=0)
    assert peaks == pytest.approx([1e-4, 1e-3, 1e-2])
    learn.fit_one_cycle(1, max_lr=slice(0.1), callbacks=[Rates()])
    for group, rate in zip(learn.optimizer.param_groups, [0.001, 0.01, 0.1], strict=True):
        group["lr"] = rate
    found = learn.lr_find(num_steps=100)
    assert found.max_lr is not None
    assert found.max_lrs == pytest.approx([found.max_lr / 100, found.max_lr / 10, found.max_lr])
    history = learn.fit_one_cycle(1)
    assert history.lr.max() == pytest.approx(found.max_lr)
    with pytest.raises(cw.ArgumentError, match=r"^max_lr must have one rate per parameter group \(3\), got 2"):
        learn.fit_one_cycle(1, max_lr=[0.1, 0.2])


@pytest.mark.parametrize("fit", [
    lambda learn, **rates: learn.fit_one_cycle(1, **rates),
    lambda learn, **rates: learn.fit_sgdr(T_0=1, num_cycles=1, **rates),
    lambda learn, **rates: learn.fit_cyclical(cyc_len=1, num_cycles=1, **rates),
])  # fmt: skip
def test_a_group_that_was_added_after_the_range_test_has_no_rate(fit):
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    groups = [{"params": [model[0].weight], "lr": 0.01}, {"params": [model[2].weight]}]
    learn = make_learner(model=model, optimizer=torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    learn.lr_find(num_steps=30)
    learn.optimizer.add_param_group({"params": [model[2].bias]})
    with pytest.raises(cw.ArgumentError) as caught:
        fit(learn)
    assert str(caught.value) == (
        "max_lr must have one rate per parameter group (3), got the 2 of the last lr_find, since the groups changed; "
        "call learn.lr_find() again, or pass max_lr="
    )
    assert fit(learn, max_lr=0.01).num_steps == 5


def test_the_range_test_keeps_frozen_batch_norm_in_eval_mode():
    learn = grouped()
    learn.freeze(batch_norm="eval")
    modes = []
    learn.model[1].register_forward_hook(lambda module, *_: modes.append(module.training))
    learn.lr_find(num_steps=20)
    assert not any(modes)


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda rates: np.array(rates, dtype=np.float32)])
def test_rates_may_come_in_an_array(make):
    rates = [0.001, 0.01, 0.1]
    found = spread(make(rates), 3)
    assert found == pytest.approx(rates)
    assert all(type(rate) is float for rate in found)
    with pytest.raises(cw.ArgumentError) as caught:
        spread(make(rates), 2)
    assert str(caught.value) == (
        "max_lr must have one rate per parameter group (2), got 3; pass one number for all groups"
    )


@pytest.mark.parametrize("rate", [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5), np.array([0.5])])
def test_a_rate_may_be_a_scalar_of_any_kind(rate):
    assert make_learner().fit_one_cycle(1, max_lr=rate).lr.max() == 0.5
