"""What the sweeps, the held-out batches and the data must show before a rate is given."""

import numpy as np
import pytest

from cyclewise.range_test.curve import Curve
from cyclewise.range_test.doubt import refuse
from cyclewise.range_test.looks import HeldOut, Looks
from cyclewise.range_test.refusal import Refusal, StopReason
from cyclewise.range_test.sweep import Sweeps

RATES = np.geomspace(1e-4, 1.0, 40)
NOISE = 0.05 * np.random.default_rng(0).standard_normal(40)
FLAT = Curve(RATES, 2.0 + NOISE)
FALL = Curve(RATES, 2.0 + NOISE - 1.0 / (1.0 + np.exp(-6.0 * (np.log10(RATES) + 2.0))))


def seen(curve, *, gain, links):
    """Return sweeps whose best look lies `gain` standard errors below the start, with the links of start and look."""
    spread = np.array([-1.0, 0.0, 1.0])
    start = np.array([2.0, 2.0, 2.0])
    look = start - gain / np.sqrt(3.0) + spread
    before, after = links
    return Sweeps(
        curves=[curve],
        stop_reasons=[StopReason.COMPLETED],
        looks=Looks(HeldOut(tuple(start), before), late=[HeldOut(tuple(look), after)]),
        has_classes=True,
    )


@pytest.mark.parametrize(
    ("curve", "gain", "links", "alone", "with_related_data"),
    [
        (FALL, 3.0, (0.0, 4.0), None, None),
        (FALL, 3.0, (0.0, 1.0), Refusal.UNRELATED, None),
        (FLAT, 3.0, (0.0, 4.0), None, None),
        (FLAT, 0.7, (0.0, 1.0), Refusal.NO_IMPROVEMENT, None),
        (FLAT, 0.3, (0.0, 1.0), Refusal.NO_IMPROVEMENT, Refusal.NO_IMPROVEMENT),
        (FLAT, 0.3, (-1.0, 2.0), Refusal.NO_IMPROVEMENT, None),
        (FLAT, 0.3, (5.5, 5.6), Refusal.NO_IMPROVEMENT, Refusal.NO_IMPROVEMENT),
        (FLAT, 1.2, (5.5, 5.6), None, None),
        (FLAT, -0.3, (2.0, 5.5), None, None),
        (FLAT, -0.3, (None, None), Refusal.NO_IMPROVEMENT, Refusal.NO_IMPROVEMENT),
        (FALL, 3.0, (None, None), None, None),
    ],
)
def test_refusals(curve, gain, links, alone, with_related_data):
    sweeps = seen(curve, gain=gain, links=links)
    assert refuse(sweeps, is_bounded=False) is alone
    assert refuse(sweeps, is_bounded=False, is_related=True) is with_related_data


@pytest.mark.parametrize(
    ("early", "related", "expected"),
    [
        (3.0, True, None),
        (2.0, True, Refusal.NO_IMPROVEMENT),
        (3.0, False, Refusal.NO_IMPROVEMENT),
    ],
)
def test_related_data_that_only_the_second_sweep_improved_on_are_not_refused(early, related, expected):
    sweeps = seen(FLAT, gain=-3.0, links=(5.5, 5.6))
    sweeps.looks.early = seen(FLAT, gain=early, links=(5.5, 5.6)).looks.late
    assert refuse(sweeps, is_bounded=False, is_related=related) is expected


def test_without_held_out_batches_only_the_curve_counts():
    for curve, expected in ((FALL, None), (FLAT, Refusal.NO_IMPROVEMENT)):
        sweeps = Sweeps(curves=[curve], stop_reasons=[StopReason.COMPLETED])
        assert refuse(sweeps, is_bounded=False) is expected
        assert refuse(sweeps, is_bounded=False, is_related=True) is expected


def test_the_first_two_sweeps_and_the_last_hint_at_the_rate():
    first, second, began_too_high, last = (Curve(RATES, 2.0 + NOISE + i) for i in range(4))
    short = Curve(RATES[:7], 2.0 + NOISE[:7])
    for curves, expected in (
        ([first, second, began_too_high, last], [first, second, last]),
        ([first, last], [first, last]),
        ([first, short, last], [first, last]),
        ([last], [last]),
    ):
        assert Sweeps(curves=curves).hints() == expected


@pytest.mark.parametrize(("link", "is_known"), [(None, False), (4.9, False), (5.0, True)])
def test_a_model_that_knew_something_at_the_start_gives_no_hints(link, is_known):
    sweeps = Sweeps(curves=[FLAT], looks=Looks(HeldOut((1.0, 2.0), link)))
    assert sweeps.hints() == ([] if is_known else [FLAT])


@pytest.mark.parametrize(
    ("related", "ended", "knew", "expected"),
    [
        (True, StopReason.DIVERGED, 0.0, None),
        (True, StopReason.NONFINITE, 2.4, None),
        (False, StopReason.DIVERGED, 0.0, Refusal.NO_IMPROVEMENT),
        (True, StopReason.COMPLETED, 0.0, Refusal.NO_IMPROVEMENT),  # no rate that was tried does anything
        (True, StopReason.DIVERGED, 4.9, None),
        (True, StopReason.DIVERGED, 5.0, Refusal.NO_IMPROVEMENT),  # it may know all that it can
        (True, StopReason.DIVERGED, None, Refusal.NO_IMPROVEMENT),
    ],
)
def test_a_model_that_knew_nothing_of_related_data_and_is_lost_has_a_rate_below(related, ended, knew, expected):
    sweeps = seen(FLAT, gain=-20.0, links=(knew, 0.0))
    sweeps.curves, sweeps.stop_reasons = [FLAT] * 3, [ended, StopReason.COMPLETED, StopReason.COMPLETED]
    assert refuse(sweeps, is_bounded=False, is_related=related) is expected
