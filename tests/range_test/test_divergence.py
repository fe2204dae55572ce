import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclewise.range_test.divergence import Divergence


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


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=4))
def test_the_same_few_batches_again_and_again_are_no_divergence(batches):
    assert stops_at(batches * 20) is None


def test_batches_of_which_few_are_far_above_the_others_still_blow_up():
    batches = [1.44, 0.796, 0.799, 0.797, 0.95, 0.799]  # the many differ by a thousandth
    assert stops_at([*batches * 3, 1.3, 1.9, 3.0]) == 20
    assert stops_at([*batches * 3, 1.3, 0.95, 1.4]) is None


def test_a_short_sweep_may_be_lost_within_its_first_steps():
    assert stops_at([1.0, 1.1, 0.9, 1.0, 0.9, 1.1, 1.0, 500.0, 90.0, 300.0]) == 8
