"""Where the first sweep lost the loss: at its end, or where it rose above its start before the model learned anew."""

import numpy as np
import pytest
import torch
from torch import nn

import cyclewise as cw
from cyclewise.range_test.curve import Curve
from cyclewise.range_test.first_sweep import lost_at

PERIOD, NUM_STEPS = 6, 19
RATES = np.geomspace(1e-6, 3.0, NUM_STEPS)
# Nothing moves; then a valley at step 9, lost at step 12, and another level that is learned anew.
RELEARNED = np.array([0.0] * 6 + [-0.3, -0.8, -1.4, -1.6, -1.2, -0.4, 2.0, 3.0, 1.0, -1.3, -1.5, -1.4, -1.5])


def curve_of(effect, batches):
    """Return the losses of an effect of the rate on batches that differ by more than the effect."""
    return Curve(RATES, 3.0 + effect + np.resize(batches, NUM_STEPS))


@pytest.mark.parametrize("spread", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_learns_anew_was_lost_where_it_rose_above_its_start(spread, seed):
    batches = spread * np.random.default_rng(seed).standard_normal(PERIOD)
    assert lost_at(curve_of(RELEARNED, batches), PERIOD) == RATES[13]


@pytest.mark.parametrize("spread", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "effect",
    [
        np.zeros(NUM_STEPS),  # nothing happens
        -np.linspace(0.0, 2.0, NUM_STEPS),  # it falls to the end
        np.where(RELEARNED > 0.5, 0.0, RELEARNED),  # it rises, but not above its start
        np.r_[RELEARNED[:13], 5.0, 8.0, 13.0, 20.0, 33.0, 50.0],  # it does not come back
        np.r_[np.zeros(6), -0.1, 0.3, 0.4, -0.5, -1.0, -1.5, -1.8, -1.9, -1.9, -1.5, -1.0, 3.0, 9.0],  # a small dip
    ],
)
def test_otherwise_it_was_lost_at_the_end(effect, spread, seed):
    batches = spread * np.random.default_rng(seed).standard_normal(PERIOD)
    assert lost_at(curve_of(effect, batches), PERIOD) == RATES[-1]


def test_a_sweep_that_is_cut_short_or_not_finite_is_lost_at_its_end():
    assert lost_at(Curve(RATES[:9], 3.0 + RELEARNED[:9]), PERIOD) == RATES[8]
    assert lost_at(Curve(RATES[:14], np.r_[3.0 + RELEARNED[:13], np.nan]), PERIOD) == RATES[13]


@pytest.mark.parametrize(("num_batches", "accumulation_steps", "in_a_pass"), [(60, 1, 6), (4, 1, 3), (60, 2, 12)])
def test_the_first_sweep_takes_the_same_batches_again(num_batches, accumulation_steps, in_a_pass):
    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(num_batches)]
    model, taken = nn.Linear(4, 1), []

    def loss_fn(outputs, targets):
        if torch.is_grad_enabled():  # an update, not a look at the held-out batches
            taken.append(next(i for i, (_, own) in enumerate(batches) if torch.equal(own, targets)))
        return nn.functional.mse_loss(outputs, targets)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cw.lr_find(model, optimizer, loss_fn, batches, accumulation_steps=accumulation_steps)
    per_sweep = taken[accumulation_steps:][: 12 * accumulation_steps]  # the first update only tells the range
    assert len(set(per_sweep)) == in_a_pass
    assert per_sweep[:in_a_pass] == per_sweep[in_a_pass : 2 * in_a_pass]


@pytest.mark.parametrize("seed", range(10))
def test_losses_of_a_lost_model_do_not_hide_which_batch_was_which(seed):
    """Squared errors of 1e20 at the end would outweigh all bends before them, however far away."""
    batches = np.random.default_rng(seed).standard_normal(10)
    effect = np.r_[np.zeros(10), -np.geomspace(1e-4, 0.4, 22), 1e3, 1e7, 1e20]
    curve = Curve(np.geomspace(1e-6, 3.0, 35), 9.0 + effect + np.resize(batches, 35))
    assert lost_at(curve, 10) == curve.lr[-1]
