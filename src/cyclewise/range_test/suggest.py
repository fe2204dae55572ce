"""The rule: from what the sweeps show to a peak rate for one-cycle and an interval.

The procedure is Smith's LR range test (arXiv:1506.01186, section 3.3): the rate to use lies left of the lowest point,
where the loss still falls.
"""

import math
from collections.abc import Sequence
from statistics import geometric_mean

import numpy as np

from cyclewise.range_test.curve import Curve
from cyclewise.range_test.readings import (
    Array,
    Reading,
    clearest,
    first_valley,
    half_lost,
    minimum,
    reached,
    read,
    rise,
)
from cyclewise.range_test.traits import Traits

# The constants of the rule, fitted on the development tasks of benchmarks/lr_regret and on nothing else, for 50, 100
# and 300 steps together: the margin in decades, and how many of its memories the sweep lags behind. Gradient descent
# with momentum breaks at once where others only get worse, and late; Adam and its kin get worse late.
_PLAIN = (0.12, 0.7)
_AVERAGING = (0.2, 0.55)
_WITH_MOMENTUM = (0.32, 0.4)
_LAG_IN_STEPS = 4.0
_HALF_INTERVAL_DECADES = 0.35
# The same where the curve does not fall by more than its noise.
_HALF_INTERVAL_DECADES_UNCLEAR = 0.6
# Where the last curve does not fall, each sweep's loss rises for good so far above the rate to use, and so much of the
# lag is left in that.
_BELOW_RISE_DECADES = 1.33
_LAG_LEFT = 0.25
# The link between inputs and targets is clearest so many steps later than the edge, and counts so often beside that.
_LINK_LAG_IN_STEPS = 4.0
_LINK_COUNTS = 2
# Length of a run, in steps, where nobody says.
USUAL_STEPS = 250
# Up to so many training samples, a sweep learns them by heart, and what it does afterwards tells nothing of its rates.
_FEW_SAMPLES = 500
# Of so few samples the edge is where this share of the fall has happened.
_FEW_SAMPLES_SHARE = 0.95


def suggest(
    lr: Array,
    reading: Reading,
    traits: Traits,
    *,
    num_samples: int | None = None,
    total_steps: int | None = None,
    highest: float = math.inf,
    lost_at: float = math.inf,
    hints: Sequence[Curve] = (),
    links: Sequence[float] = (),
) -> tuple[float, tuple[float, float]]:
    """Return a peak rate for one-cycle and the interval it may lie in.

    The edge is the geometric mean of two rates: the lowest point of the first valley, and the rate above it where half
    of the fall is lost again. A loss, and the smoothing of it, shows what the rates of the last steps did, more of them
    the longer the optimizer's memory is, so the sweep has already moved on by then, and is taken back; a margin is left
    because a long run meets sharper places than a short sweep, a larger one where gradients are averaged or added up.

    Of few training samples the loss goes on falling, or stays at nothing, at rates that no run survives that has not
    learned them yet: there the edge is the first rate at which 95 % of the fall have happened.

    An optimizer may take another share of its rate in the middle of a run than at the edge of the sweep: the peak goes
    up by as much as it slows down by itself, and down by as much as it begins slowly. Not where samples are few: how
    far a sweep has come is not what it took at its last step.

    Where the curve does not fall by more than its noise, its lowest point is chance. What every sweep still shows is
    the rate from which its loss stays above the start, more than a decade too high: the middle of the peak above and of
    those rates, each taken back by a margin, is what is left to say. The rate at which the link between inputs and
    targets is clearest counts twice beside that: a link shows long before the loss falls. Where the sweep is known to
    have destroyed its model within a step or two, the peak is below that.

    Args:
        lr: rates of a slow sweep, shape [N].
        reading: what :func:`read` made of it.
        traits: what the optimizer is like; of one that sums up squares no lag is taken back.
        num_samples: training samples in all; None where they are not known.
        total_steps: length of the run; None: 250 steps.
        highest: no peak is higher.
        lost_at: the rate at which this sweep destroyed its model within a step or two; infinity where none is known.
        hints: the usable curves of all sweeps, asked for the rates at which they rise where this one does not fall;
            none: the peak stays as it is.
        links: how clear the link between inputs and targets is at each of the rates, in standard deviations, not a
            number where nobody knows; none: the peak stays as it is.
    """
    reading = first_valley(reading)
    if are_few(num_samples):
        edge = reached(lr, reading, _FEW_SAMPLES_SHARE)
    else:
        edge = math.sqrt(minimum(lr, reading) * half_lost(lr, reading))
    margin, lag = _WITH_MOMENTUM if traits.has_momentum else _AVERAGING if traits.memory > 1.0 else _PLAIN
    lag_in_steps = lag * traits.memory + _LAG_IN_STEPS

    def below(edge: float, lag_in_steps: float) -> float:
        taken_back = 0.0 if traits.sums_squares else _decades_per_step(lr) * lag_in_steps
        step = 1 + int(np.searchsorted(lr, edge))
        slowed_down = 1.0 if are_few(num_samples) else traits.pace(step) / traits.pace((total_steps or USUAL_STEPS) / 2)
        return edge * math.pow(10.0, -margin - taken_back) * slowed_down

    peak = below(edge, lag_in_steps)
    if not reading.falls:
        peak = geometric_mean([peak, *(_below_rise(curve, _LAG_LEFT * lag_in_steps) for curve in hints)])
        linked = clearest(lr, np.array(links), below=rise(lr, reading)) if hints and len(links) else None
        if linked is not None:
            peak = geometric_mean([peak, *[below(linked[0], lag_in_steps + _LINK_LAG_IN_STEPS)] * _LINK_COUNTS])
        peak = min(peak, below(lost_at, lag_in_steps))
    peak = min(peak, highest)
    width = 10.0 ** (_HALF_INTERVAL_DECADES if reading.falls else _HALF_INTERVAL_DECADES_UNCLEAR)
    return peak, (peak / width, peak * width)


def are_few(num_samples: int | None) -> bool:
    """Return whether there are so few training samples that a sweep learns them by heart."""
    return num_samples is not None and num_samples <= _FEW_SAMPLES


def _decades_per_step(lr: Array) -> float:
    return float(np.log10(lr[-1] / lr[0])) / max(1, len(lr) - 1)


def _below_rise(curve: Curve, lag_in_steps: float) -> float:
    below = _BELOW_RISE_DECADES + _decades_per_step(curve.lr) * lag_in_steps
    return rise(curve.lr, read(curve.lr, curve.loss)) / math.pow(10.0, below)
