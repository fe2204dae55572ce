"""What says that a sweep began too high, and where it is to begin anew."""

import numpy as np
import pytest

from cyclewise.range_test.beginnings import LeftBehind, Raised, Unlinked

LEVELS = [2.0, 2.5, 2.25, 2.2, 2.3, 2.1]


def rises_at(losses, fall):
    watch = Raised(LEVELS, fall)
    return next((i for i, loss in enumerate(losses) if watch.update(1.0, loss)), None)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, -7.0])
def test_a_sweep_that_begins_too_high_is_seen_whatever_the_unit_of_the_loss(scale, shift):
    watch = Raised([scale * (level + shift) for level in LEVELS], scale * 0.6)
    assert [watch.update(1.0, scale * (loss + shift)) for loss in [2.0, 2.6, 2.9]] == [False, False, True]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_has_risen(broken):
    assert rises_at([2.0, broken], 0.6) == 1


def test_the_first_loss_those_without_a_level_and_falls_are_no_rise():
    assert rises_at([99.0, *LEVELS[1:], 99.0, 99.0], 0.6) is None
    assert rises_at([level - 1.0 for level in LEVELS], 0.6) is None


def test_the_spread_of_the_batches_stands_in_for_a_fall_that_nobody_saw():
    assert rises_at([2.0, 2.5 + 1.9 * np.std(LEVELS)], 0.0) is None
    assert rises_at([2.0, 2.5 + 2.1 * np.std(LEVELS)], 0.0) == 1


def test_a_sweep_that_raised_the_loss_begins_anew_about_its_first_rate():
    watch = Raised(LEVELS, 0.6)
    assert [watch.update(rate, loss) for rate, loss in [(0.1, 2.0), (0.2, 9.0)]] == [False, True]
    assert watch.anew() == pytest.approx((0.1 / 10**0.6, 0.1 * 10**0.4))


RATES = np.geomspace(0.001, 1.0, 30)
# Batches differ far more than the sweeps do.
BATCHES = 5.0 + np.random.default_rng(0).standard_normal(30)
EARLIER = BATCHES - np.linspace(0.0, 1.0, 30)


def behind_at(rates, losses, earlier=EARLIER):
    watch = LeftBehind(RATES, earlier)
    found = next((i for i, pair in enumerate(zip(rates, losses, strict=True)) if watch.update(*pair)), None)
    return found, watch


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, -50.0])
def test_a_sweep_that_does_not_move_where_a_lower_rate_did_began_too_high(scale, shift):
    watch = LeftBehind(RATES, scale * (EARLIER + shift))
    assert [watch.update(10.0, scale * (loss + shift)) for loss in BATCHES[:10]] == 8 * [False] + 2 * [True]
    low, high = watch.anew()
    assert (low, high) == pytest.approx((RATES[0], RATES[9] * 10**0.4))


def test_a_sweep_that_comes_as_far_or_further_is_not_behind():
    assert behind_at([10.0] * 30, EARLIER)[0] is None
    assert behind_at([10.0] * 30, EARLIER - 0.5)[0] is None


def test_a_sweep_behind_at_lower_rates_has_only_been_slower():
    assert behind_at(RATES / 10.0, BATCHES)[0] is None


def test_differences_as_large_as_their_noise_say_nothing():
    found = [
        behind_at([10.0] * 30, EARLIER + np.random.default_rng(seed).standard_normal(30))[0] for seed in range(200)
    ]
    # Looked at up to 22 times in a row.
    assert sum(i is not None for i in found) <= 10


def test_a_loss_that_is_not_finite_and_the_first_one_are_not_compared():
    losses = BATCHES.copy()
    losses[0] = 1e9
    losses[3] = np.nan
    assert behind_at([10.0] * 30, losses)[0] == 9
    earlier = EARLIER.copy()
    earlier[5] = np.inf
    assert behind_at([10.0] * 30, BATCHES, earlier)[0] == 9


LINKS = 4.0 * np.exp(-((np.log10(RATES) + 1.5) ** 2))


def unlinked_at(links, *, earlier=LINKS, rate=1.0, num_steps=52, looks=()):
    watch = Unlinked(RATES, earlier, looks=looks, num_steps=num_steps)
    return next((i for i, link in enumerate(links) if watch.update(rate, 2.3, link)), None), watch


@pytest.mark.parametrize(("num_steps", "asked_at"), [(60, 14), (81, 19), (200, 49)])
def test_a_sweep_without_the_link_of_lower_rates_began_too_high(num_steps, asked_at):
    noise = np.random.default_rng(0).standard_normal(num_steps) / 3.0
    found, watch = unlinked_at([9.0, *noise], num_steps=num_steps)
    assert found == asked_at
    low, high = watch.anew()
    assert low < 10**-1.5 < high < 0.1


def test_held_out_batches_may_have_shown_the_link_where_the_steps_did_not():
    found, watch = unlinked_at([0.0] * 52, earlier=LINKS / 20.0, looks=[(0.02, 6.5), (0.05, 9.0)])
    assert found == 12
    assert watch.anew() == pytest.approx((0.05 * 10**-1.2, 0.05 * 10**0.3))
    # What the steps show says more of the rate.
    _, watch = unlinked_at([0.0] * 52, looks=[(0.2, 9.0)])
    assert watch.anew()[1] < 0.1


@pytest.mark.parametrize(
    ("links", "given"),
    [
        ([0.0] * 5 + [0.5] * 47, {}),  # a little of it in every step that is asked
        ([1.0] * 14 + [-4.0] * 38, {}),  # asked once
        ([0.0] * 52, {"earlier": LINKS / 20.0}),  # nothing was clear before, either
        ([0.0] * 52, {"rate": 0.002}),  # rates that the earlier one had not linked yet
        ([0.0] * 9 + [float("nan")] + [0.0] * 42, {}),
        ([0.0] * 52, {"earlier": np.full(30, np.nan)}),
        ([0.0] * 52, {"earlier": LINKS / 20.0, "looks": [(0.05, 5.9)]}),
        ([0.0] * 52, {"earlier": LINKS / 20.0, "looks": [(1.0, 9.0)]}),  # at a rate that is not lower
    ],
)
def test_a_sweep_that_may_still_find_the_link_goes_on(links, given):
    assert unlinked_at(links, **given)[0] is None
