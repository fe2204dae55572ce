import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclewise.range_test.divergence import Divergence, HighStart


def stops_at(losses):
    watch = Divergence()
    return next((i for i, loss in enumerate(losses) if watch.update(loss)), None)


FALL = np.linspace(2.3, 0.5, 50)


@pytest.mark.parametrize("shift", [0.0, -100.0, 1e4])
def test_a_fall_never_stops_whatever_the_sign_of_the_loss(shift):
    assert stops_at(FALL + shift) is None


def test_a_blow_up_stops():
    assert stops_at([*FALL, 30.0, 90.0, 300.0]) == 51


def test_a_single_bad_batch_is_forgiven():
    assert stops_at([*FALL, 300.0, *FALL[-10:]]) is None


def test_an_untrained_plateau_is_no_divergence():
    # A network whose units died answers the class shares: the loss comes back to its start and stays.
    assert stops_at([*FALL, *[2.35] * 30]) is None


@given(st.floats(0.001, 1e5), st.integers(0, 20))
def test_the_unit_of_the_loss_does_not_matter(scale, seed):
    noise = 0.05 * np.random.default_rng(seed).standard_normal(60)
    losses = np.concatenate([FALL, 2.0 ** np.arange(10)]) + noise
    assert stops_at(scale * losses) == stops_at(losses)


def test_noise_does_not_stop_a_sweep():
    stops = [stops_at(1.0 + 0.3 * np.random.default_rng(seed).standard_normal(100)) for seed in range(200)]
    assert sum(stop is not None for stop in stops) <= 4


LEVELS = [2.0, 2.5, 2.25, 2.2, 2.3, 2.1]


def rises_at(losses, fall):
    watch = HighStart(LEVELS, fall)
    return next((i for i, loss in enumerate(losses) if watch.update(loss)), None)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, -7.0])
def test_a_sweep_that_begins_too_high_is_seen_whatever_the_unit_of_the_loss(scale, shift):
    watch = HighStart([scale * (level + shift) for level in LEVELS], scale * 0.6)
    assert [watch.update(scale * (loss + shift)) for loss in [2.0, 2.6, 2.9]] == [False, False, True]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_has_risen(broken):
    assert rises_at([2.0, broken], 0.6) == 1


def test_the_first_loss_those_without_a_level_and_falls_are_no_rise():
    assert rises_at([99.0, *LEVELS[1:], 99.0, 99.0], 0.6) is None
    assert rises_at([level - 1.0 for level in LEVELS], 0.6) is None


def test_the_spread_of_the_batches_stands_in_for_a_fall_that_nobody_saw():
    assert rises_at([2.0, 2.5 + 1.9 * np.std(LEVELS)], 0.0) is None
    assert rises_at([2.0, 2.5 + 2.1 * np.std(LEVELS)], 0.0) == 1
