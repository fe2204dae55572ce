"""Reading the first sweep: the rate at which the loss is lost, also where a destroyed model learns anew.

A pretrained model is destroyed long before the loss is anything but finite: it falls, rises above where it began, and
comes back as a network of dead units learns the classes' shares. Beyond the rise, the sweep says nothing of the model
that it was given.
"""

import numpy as np

from cyclewise.range_test.curve import Curve
from cyclewise.range_test.readings import FEWEST_POINTS, Array

# Share of the steps whose batches the first sweep takes again and again: at the rates of the first pass over them
# nothing has moved, so it says how much of a loss is the batch's own.
_PASS = 0.3
# A fall is a valley from this share of the deepest fall on, and over with a rise of that share of it above the start.
_FALL, _RISE = 0.5, 0.1
# How far, in decades of rate, steps tell of each other's batches.
_BANDWIDTH_DECADES = 0.3


def steps_per_pass(num_steps: int) -> int:
    """Return after how many steps the first sweep takes the same batches again.

    >>> steps_per_pass(19), steps_per_pass(35), steps_per_pass(9)
    (6, 10, 3)
    """
    return max(3, round(_PASS * num_steps))


def lost_at(curve: Curve, period: int) -> float:
    """Return the rate at which the first sweep lost the loss: where it ended, or where it first rose above its start.

    Args:
        curve: of the first sweep.
        period: after how many steps it took the same batches again.
    """
    usable = curve.usable()
    if len(usable.lr) >= period + FEWEST_POINTS:
        first = usable.loss[:period]
        later = _without_batches(np.log10(usable.lr[period:]), usable.loss[period:], first)
        end = _end_of_valley(later, float(first.mean()))
        if end is not None:
            return float(usable.lr[period + end])
    return float(curve.lr[-1])


def _without_batches(position: Array, loss: Array, first: Array) -> Array:
    """Return the losses less what the first pass told of their batches, as far as it still tells it there."""
    own = np.resize(first, len(loss))
    # Losses of a model that is lost are the batch's no more, and would drown all others.
    kept = np.minimum(loss, first.max() + np.ptp(first))
    bends, own_bends = (values[2:] - 2.0 * values[1:-1] + values[:-2] for values in (kept, own))
    offset = (position[1:-1] - position[:, None]) / _BANDWIDTH_DECADES
    kernel = np.where(np.abs(offset) < 3.0, np.exp(-0.5 * offset**2), 0.0)
    square = kernel @ own_bends**2
    share = np.clip(kernel @ (bends * own_bends) / np.where(square > 0, square, 1.0), 0.0, 1.0)
    cleared: Array = loss - share * (own - first.mean())
    return cleared


def _end_of_valley(loss: Array, start: float) -> int | None:
    """Return the index of the second loss in a row above the start after a fall, if the loss comes back later."""
    lowest = np.minimum.accumulate(loss)
    for i in range(1, len(loss) - 3):
        fall = start - lowest[i - 1]
        if fall > _FALL * (start - lowest[-1]) and fall > 0 and min(loss[i : i + 2]) > start + _RISE * fall:
            pairs = np.maximum(loss[i + 2 : -1], loss[i + 3 :])
            return i + 1 if pairs.min() < start else None
    return None
