"""Fits in cycles: snapshots, rates in epochs, and the momentum of the article."""

import numpy as np
import pytest
import torch

import cyclewise as cw
from tests.training.small_learner import make_learner


def test_sgdr_snapshots_become_an_ensemble():
    learn = make_learner(metrics={"accuracy": cw.accuracy})
    history = learn.fit_sgdr(T_0=1, T_mult=2, num_cycles=3, max_lr=0.1, snapshots=True)
    assert history.num_steps == 5 + 10 + 20
    ensemble = learn.ensemble()
    assert len(ensemble) == 3
    assert len(ensemble.last(2)) == 2
    scores = ensemble.evaluate()
    assert set(scores) == {"loss", "accuracy", "calibration_error"}
    with pytest.raises(cw.ArgumentError, match=r"^ensemble\(\) needs snapshots, got none; call learn\.fit_sgdr\("):
        make_learner().ensemble()


def test_cyclical_rates_in_epochs():
    history = make_learner().fit_cyclical(cyc_len=2, num_cycles=2, max_lr=0.2, base_lr=0.05, moms=(0.95, 0.85))
    assert history.num_steps == 20
    assert (history.lr.min(), history.lr.max()) == (0.05, pytest.approx(0.2))
    assert (history.momentum.min(), history.momentum.max()) == (pytest.approx(0.85), 0.95)


def test_the_articles_momentum_differs_under_a_cycle_and_not_at_a_constant_rate():
    def losses(optimizer, policy):
        return make_learner(optimizer=lambda groups: optimizer(groups, lr=0.1, momentum=0.9)).fit(policy).loss

    constant = cw.Constant(lr=0.05, total_steps=20)
    cycle = cw.OneCycle(max_lr=0.2, total_steps=20)
    np.testing.assert_allclose(losses(torch.optim.SGD, constant), losses(cw.VelocitySGD, constant), rtol=1e-4)
    assert np.abs(losses(torch.optim.SGD, cycle) - losses(cw.VelocitySGD, cycle)).max() > 1e-3


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.RMSprop])
def test_a_momentum_that_the_range_test_did_not_know_is_named(optimizer_class):
    learn = make_learner(optimizer=lambda groups: optimizer_class(groups, lr=1e-3))
    learn.lr_find()
    with pytest.warns(UserWarning, match="without momentum") as warned:
        learn.fit_one_cycle(1)
    assert [str(warning.message) for warning in warned] == [
        "max_lr is the rate that lr_find measured without momentum, and moms=(0.95, 0.85) makes its steps several "
        "times as long; pass moms=None, or give the optimizer momentum=0.9 before lr_find"
    ]
    assert warned[0].filename == __file__


@pytest.mark.parametrize("options", [{"moms": None}, {"max_lr": 0.01}], ids=["left alone", "a rate of one's own"])
def test_no_momentum_is_named_where_none_is_brought_in_or_the_rate_is_the_users(options):
    learn = make_learner(optimizer=lambda groups: torch.optim.SGD(groups, lr=1e-3))
    learn.lr_find()
    learn.fit_one_cycle(1, **options)


def test_an_optimizer_with_a_momentum_or_with_betas_is_fitted_without_a_warning():
    for optimizer in (lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9), torch.optim.AdamW):
        learn = make_learner(optimizer=optimizer)
        learn.lr_find()
        learn.fit_one_cycle(1)
