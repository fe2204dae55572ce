"""What a curve says: readings that anybody would make by eye."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclewise.range_test import readings
from tests.range_test.curves import RATES, curve


@given(st.floats(0.01, 1e5), st.floats(-1e3, 1e3), st.integers(0, 5))
def test_the_unit_and_the_zero_of_the_loss_do_not_matter(scale, shift, seed):
    loss = curve(1e-3, edge=1e-2, noise=0.05, seed=seed)
    plain = readings.read(RATES, loss)
    changed = readings.read(RATES, scale * (loss + shift))
    for name in readings.READINGS:
        assert readings.READINGS[name](RATES, changed) == pytest.approx(readings.READINGS[name](RATES, plain), rel=0.25)


def test_the_steepest_rate_is_read_in_log_rate():
    # Differentiating in the linear rate would answer one of the lowest rates, where steps are tiny.
    loss = curve(1e-3, edge=10.0, noise=0.01)
    assert readings.steepest(RATES, readings.read(RATES, loss)) == pytest.approx(1e-3, rel=0.7)


def test_noise_alone_is_no_fall():
    falls = [
        readings.read(RATES, 2.3 + 0.1 * np.random.default_rng(seed).standard_normal(100)).falls for seed in range(200)
    ]
    assert sum(falls) <= 4


def test_a_fall_well_above_the_noise_is_seen():
    falls = [readings.read(RATES, curve(1e-3, edge=1e-2, depth=0.5, noise=0.1, seed=seed)).falls for seed in range(200)]
    assert sum(falls) >= 196


def test_a_linear_sweep_is_read_too():
    rates = np.linspace(1e-4, 0.1, 200)
    reading = readings.read(rates, (np.log10(rates) + 2.0) ** 2)
    assert readings.minimum(rates, reading) == pytest.approx(0.01, rel=0.2)


def test_no_fall_is_reached_at_its_lowest_point():
    smooth = np.array([2.5, 2.2, 2.4, 2.1, 2.6])
    reading = readings.Reading(smooth, np.zeros(5), noise=0.1, start=2.0, lowest=3, falls=False)
    assert readings.reached(RATES[:5], reading, 0.9) == RATES[3]


def test_a_rise_that_does_not_last_is_none():
    lr, loss = np.geomspace(1e-4, 1.0, 80), 2.0 + 0.01 * np.random.default_rng(0).standard_normal(80)
    loss[30:40] += 1.0
    assert readings.rise(lr, readings.read(lr, loss)) == 1.0
    loss[70:] += 1.0
    assert readings.rise(lr, readings.read(lr, loss)) == pytest.approx(lr[70], rel=0.3)
    loss[-1] = 0.0
    assert readings.rise(lr, readings.read(lr, loss)) == 1.0


SPIKED = [4.0, 4.1, 3.9, 4.0, 3.0, 2.0, 1.5, 20.0, 3.0, 2.9, 3.0, 2.9, 2.8]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, -9.0])
def test_a_loss_far_above_the_start_after_a_fall_is_a_spike(scale, shift):
    assert readings.spike(scale * (np.array(SPIKED) + shift)) == 7


@pytest.mark.parametrize(
    "losses",
    [
        SPIKED[:7],  # none yet
        [*SPIKED[:8], 30.0, 40.0, 50.0, 60.0, 70.0],  # lost for good: a divergence
        [4.0, 4.1, 3.9, 4.0, 4.0, 4.1, 3.9, 20.0, 4.0, 4.1, 3.9, 4.0, 4.1],  # after no fall: a batch of its own
        [*SPIKED[:7], 4.5, *SPIKED[8:]],  # no higher than the fall was deep
        [4.0],
        [],
    ],
)
def test_what_is_no_spike(losses):
    assert readings.spike(np.array(losses)) is None


@pytest.mark.parametrize(("level", "spike"), [(20.0, None), (15.0, 7), (3.0, 7)])
def test_a_batch_that_is_far_above_the_others_without_training_is_no_spike(level, spike):
    levels = [4.0, 4.1, 3.9, 4.0, 4.1, 3.9, 4.0, level]
    assert readings.spike(np.array(SPIKED), levels=levels) == spike
    assert readings.spike(np.array(SPIKED), levels=[*levels, *[4.0] * 20]) == spike


def test_a_model_that_reached_its_targets_and_died_was_destroyed_there():
    noise = 0.1 * np.random.default_rng(0).standard_normal(60)
    dead, alive, spiked = (4.0 + noise for _ in range(3))
    dead[20:22] = 0.5
    alive[20:] -= 1.5  # falls, and stays there
    spiked[20:24] = 3.0
    spiked[24] = 5.5
    assert [readings.destroyed(loss) for loss in (dead, alive, spiked)] == [20, None, 20]
    spiked[20:24] = 3.8  # too little to be far below the start: the spike says it
    spiked[24] = 4.9
    assert readings.destroyed(spiked) == 24
    assert readings.spike(spiked) == 24
    assert readings.destroyed(4.0 + noise) is None
    assert readings.destroyed(dead[:5]) is None
