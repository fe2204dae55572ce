"""The rule: what peak is suggested of golden curves."""

import math

import numpy as np
import pytest
import torch

from cyclewise.range_test import readings, suggest
from cyclewise.range_test.curve import Curve
from cyclewise.range_test.pace import pace_of
from cyclewise.range_test.traits import Traits, traits_of
from tests.range_test.curves import RATES, curve


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
@pytest.mark.parametrize(("centre", "edge"), [(1e-3, 1e-2), (1e-4, 3e-2), (0.1, 1.0)])
def test_readings_of_a_clear_curve(centre, edge, noise):
    reading = readings.read(RATES, curve(centre, edge=edge, noise=noise))
    assert reading.falls
    assert readings.steepest(RATES, reading) == pytest.approx(centre, rel=0.7)
    assert centre / 2 < readings.valley(RATES, reading) < 2 * centre
    assert centre < readings.minimum(RATES, reading) <= 2.0 * edge
    assert readings.steepest(RATES, reading) <= readings.slide(RATES, reading) <= readings.minimum(RATES, reading)
    peak, (low, high) = suggest.suggest(RATES, reading, Traits())
    assert low < peak < high
    assert peak < edge


@pytest.mark.parametrize("num_steps", [50, 100, 300, 1000])
def test_the_number_of_steps_hardly_moves_the_readings(num_steps):
    rates = np.geomspace(1e-7, 10.0, num_steps)
    loss = np.interp(np.log10(rates), np.log10(RATES), curve(1e-3, edge=1e-2))
    edges = []
    for lr, losses in ((rates, loss), (RATES, curve(1e-3, edge=1e-2))):
        peak, _ = suggest.suggest(lr, readings.read(lr, losses), Traits())
        # The sweep's own lag is taken back: 4.7 of its steps.
        edges.append(peak * (lr[1] / lr[0]) ** 4.7)
    assert edges[0] == pytest.approx(edges[1], rel=0.35)


def test_what_the_optimizer_remembers_is_taken_back():
    reading = readings.read(RATES, curve(1e-3, edge=1e-2))
    plain, heavy = (suggest.suggest(RATES, reading, Traits(memory))[0] for memory in (1.0, 10.0))
    per_step = (RATES[-1] / RATES[0]) ** (1 / (len(RATES) - 1))
    assert 1.0 < plain / heavy < per_step**20


def test_momentum_leaves_a_larger_margin_and_so_do_averages():
    rates = np.geomspace(1e-4, 0.1, 301)
    reading = readings.read(rates, np.interp(np.log10(rates), np.log10(RATES), curve(1e-3, edge=1e-2)))
    kinds = (Traits(), Traits(10.0), Traits(10.0, has_momentum=True))
    plain, adam, sgd = (suggest.suggest(rates, reading, traits)[0] for traits in kinds)
    # Steps of a hundredth of a decade: 0.7 of a memory of one, 0.55 and 0.4 of one of ten.
    assert plain / adam == pytest.approx(10 ** (0.08 + 0.055 - 0.007))
    assert adam / sgd == pytest.approx(10 ** (0.12 - 0.015))


@pytest.mark.parametrize(("num_samples", "ratio"), [(None, 2.0), (5000, 2.0), (100, 1.0)])
def test_what_an_optimizer_took_at_the_edge_counts_unless_samples_are_few(num_samples, ratio):
    reading = readings.read(RATES, curve(1e-3, edge=1e-2))
    halving = Traits(pace=lambda step: 2.0 if step <= len(RATES) else 1.0)
    peaks = [
        suggest.suggest(RATES, reading, traits, num_samples=num_samples, total_steps=10 * len(RATES))[0]
        for traits in (halving, Traits())
    ]
    assert peaks[0] / peaks[1] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("optimizer_class", "options", "expected"),
    [
        (torch.optim.SGD, {}, (1.0, False)),
        (torch.optim.SGD, {"momentum": 0.9}, (10.0, True)),
        (torch.optim.Adam, {}, (10.0, False)),
        (torch.optim.RMSprop, {}, (1.0, False)),
        (torch.optim.LBFGS, {}, (1.0, False)),
    ],
)
def test_who_remembers_and_who_adds_up(optimizer_class, options, expected):
    model = torch.nn.Linear(2, 2)
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)
    traits = traits_of(optimizer, optimizer.param_groups[0])
    assert (traits.memory, traits.has_momentum) == (pytest.approx(expected[0]), expected[1])


def test_no_peak_is_higher_than_the_highest():
    reading = readings.read(RATES, curve(1e-3, edge=1e-2))
    free, (low, high) = suggest.suggest(RATES, reading, Traits())
    for highest, expected in ((free / 3, free / 3), (3 * free, free)):
        peak, interval = suggest.suggest(RATES, reading, Traits(), highest=highest)
        assert peak == pytest.approx(expected)
        assert interval == pytest.approx((low * expected / free, high * expected / free))


def test_the_floor_is_that_of_the_first_valley():
    # Behind a blow-up lies a dead network at the class shares: lower, and no place to train at.
    decades = np.log10(RATES)
    loss = 3.0 - 1.6 / (1.0 + np.exp(-8.0 * (decades + 4.0))) + 12.0 * np.exp(-0.5 * ((decades + 2.0) / 0.3) ** 2)
    loss[decades > -1.5] = 1.3
    reading = readings.read(RATES, loss)
    low, high = readings.floor(RATES, reading)
    assert 1e-4 < low <= high < 1e-2
    for num_samples in (None, 100):
        assert suggest.suggest(RATES, reading, Traits(), num_samples=num_samples)[0] < 1e-2


def test_of_few_samples_what_comes_after_the_fall_tells_nothing():
    # The fall is over at 1e-3, and the loss stays at nothing up to 0.3: the samples are known by heart by then.
    loss = curve(1e-3, edge=0.3)
    reading = readings.read(RATES, loss)
    few, many, unknown = (suggest.suggest(RATES, reading, Traits(), num_samples=n)[0] for n in (500, 501, None))
    assert few == pytest.approx(1.3e-3, rel=0.3)
    assert many == unknown > 20 * few


def test_where_squares_are_summed_up_the_rate_is_that_of_the_middle_of_the_run():
    adagrad = pace_of(torch.optim.Adagrad([torch.zeros(1, requires_grad=True)]))

    def peak(sums, steps=None):
        traits = Traits(sums_squares=True, pace=adagrad) if sums else Traits()
        return suggest.suggest(lr, reading, traits, total_steps=steps)[0]

    lr = np.geomspace(1e-3, 1.0, 60)
    reading = readings.read(lr, np.where(lr < 0.1, 2.0 - np.log10(lr / 1e-3), 40.0 * lr))
    usual, summed, longer = peak(False), peak(True, 250), peak(True, 1000)
    assert longer == pytest.approx(2.0 * summed)
    assert peak(True) == summed > usual
    edge = math.sqrt(readings.minimum(lr, reading) * readings.half_lost(lr, reading))
    assert summed == pytest.approx(edge * 10**-0.12 * math.sqrt(125 / (1 + np.sum(lr < edge))))


def test_a_curve_without_a_fall_has_a_wider_interval():
    clear = readings.read(RATES, curve(1e-3, edge=1e-2))
    unclear = readings.read(RATES, np.random.default_rng(1).standard_normal(len(RATES)))
    assert (clear.falls, unclear.falls) == (True, False)
    widths = [high / low for _, (low, high) in (suggest.suggest(RATES, r, Traits()) for r in (clear, unclear))]
    assert widths == pytest.approx([10**0.7, 10**1.2])


def unclear(rises_at, *, num_steps=100):
    """A curve that is noise alone until the loss rises for good."""
    lr = np.geomspace(RATES[0], RATES[-1], num_steps)
    noise = 0.05 * np.random.default_rng(1).standard_normal(num_steps)
    return Curve(lr, 2.3 + noise + np.clip(np.log10(lr / rises_at), 0.0, None))


def test_where_the_curve_does_not_fall_the_peak_is_the_middle_of_what_all_sweeps_hint_at():
    last, first = unclear(1e-2), unclear(1.0)
    reading = last.read()
    alone, _ = suggest.suggest(last.lr, reading, Traits())
    rates = [readings.rise(curve.lr, curve.read()) for curve in (last, first)]
    assert rates == pytest.approx([1.6e-2, 1.6], rel=0.35)
    peak, (low, high) = suggest.suggest(last.lr, reading, Traits(), hints=[first, last])
    lag = (RATES[-1] / RATES[0]) ** ((0.7 + 4.0) / 4 / (len(RATES) - 1))
    hints = [rate / 10**1.33 / lag for rate in rates]
    assert peak == pytest.approx((alone * hints[0] * hints[1]) ** (1 / 3), rel=1e-3)
    assert low < peak < high
    assert suggest.suggest(last.lr, reading, Traits(), hints=[first, last], highest=1e-6)[0] == 1e-6


def test_where_the_curve_falls_no_other_is_asked():
    reading = readings.read(RATES, curve(1e-3, edge=1e-2))
    peaks = [suggest.suggest(RATES, reading, Traits(), hints=hints)[0] for hints in ([], [unclear(1e-5)])]
    assert peaks[0] == peaks[1]


def test_an_unclear_curve_that_destroyed_its_model_was_lost_there():
    lr = np.geomspace(1e-4, 1e-2, 101)
    loss = 2.0 + np.random.default_rng(0).standard_normal(101)
    reading = readings.read(lr, loss)
    assert not reading.falls
    free, bound = (suggest.suggest(lr, reading, Traits(), lost_at=rate)[0] for rate in (math.inf, 2e-4))
    assert bound == pytest.approx(2e-4 * 10 ** -(0.12 + 4.7 * 0.02))
    assert bound < free
    assert suggest.suggest(lr, reading, Traits(), lost_at=1.0)[0] == free
    clear = readings.read(RATES, curve(1e-3, edge=1e-2))
    assert len({suggest.suggest(RATES, clear, Traits(), lost_at=rate)[0] for rate in (math.inf, 1e-5)}) == 1


def test_where_the_curve_does_not_fall_the_rate_of_the_clearest_link_counts_twice():
    last = unclear(1e-1)
    reading, hints = last.read(), [last, last]
    links = 4.0 * np.exp(-((np.log10(last.lr) + 3.0) ** 2))
    alone, _ = suggest.suggest(last.lr, reading, Traits(), hints=hints)
    peak, (low, high) = suggest.suggest(last.lr, reading, Traits(), hints=hints, links=links)
    lag = (RATES[-1] / RATES[0]) ** ((0.7 + 8.0) / (100 - 1))
    linked = readings.clearest(last.lr, links)[0] / 10**0.12 / lag
    assert peak == pytest.approx((alone * linked**2) ** (1 / 3))
    assert low < peak < high
    # A model that knew something at the start has a link at every rate.
    assert len({suggest.suggest(last.lr, reading, Traits(), links=known)[0] for known in ((), tuple(links))}) == 1


def test_the_link_of_a_lost_model_is_none():
    last = unclear(1e-3)
    links = np.linspace(0.0, 5.0, 100)
    peak, _ = suggest.suggest(last.lr, last.read(), Traits(), hints=[last], links=links)
    assert peak < readings.rise(last.lr, last.read()) < 3e-3


def test_where_the_curve_falls_no_link_is_asked():
    reading = readings.read(RATES, curve(1e-3, edge=1e-2))
    links = np.linspace(5.0, 0.0, len(RATES))
    assert len({suggest.suggest(RATES, reading, Traits(), links=known)[0] for known in ((), tuple(links))}) == 1


def test_no_fall_is_deeper_than_the_lowest_loss():
    # The floor is reached at 3e-3; a line through the losses at the end, which come down to it again, runs below it.
    lr = np.geomspace(1e-3, 0.1, 60)
    loss = np.clip(1.0 - 2.0 * np.log10(lr / 1e-3), 0.0, None)
    loss[-16:-4] = np.linspace(0.6, 0.1, 12)
    reading = readings.read(lr, loss)
    assert reading.smooth.min() == loss.min() == 0.0
    few, _ = suggest.suggest(lr, reading, Traits(), num_samples=128)
    assert few < 4e-3
