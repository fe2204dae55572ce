"""Readings of a range-test curve: pure functions of the rates and the losses.

Everything is measured in log rate (decades), whatever the sweep was, and against the curve's own noise, whatever the
loss's unit: adding a constant to all losses, or multiplying them, changes no reading.

The procedure is Smith's LR range test (arXiv:1506.01186, section 3.3): the rate to use lies left of the lowest point,
where the loss still falls.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Fewer points than this make no curve.
FEWEST_POINTS = 8
# Width of the smoothing kernel in decades of rate: wide enough for some four points of a 100-step sweep over 8 decades.
_BANDWIDTH_DECADES = 0.15
# A smoothed fall has to be this many standard errors deep to be called a fall.
_FALL_IN_STANDARD_ERRORS = 4.0
# A loss has risen for good where it stays so many deviations of one loss above the start.
_RISE_DEVIATIONS = 2.0
# A link of so many deviations is as clear as any: a few exchanges of the targets say no more.
CLEAREST = 8.0
# The floor of a valley begins where this share of the fall has happened.
_FLOOR_SHARE = 0.9
# A spike rises above the start by as much as the loss had fallen, and by so many deviations of one loss from the next.
_SPIKE_DEVIATIONS = 3.0
# So many losses before and after it, at least.
_AROUND_SPIKE = 4
# The same where no valley is seen: a rise by this share of the fall is enough, or a loss so many deviations below the
# start, the losses after it being back there.
_SPIKE_SHARE, _DIVE_DEVIATIONS, _AFTER_DIVE = 0.3, 4.0, 8
# `slide` ends where the loss falls less than this share of its steepest fall per decade.
_SLIDE_SHARE = 0.25


@dataclass(frozen=True)
class Reading:
    """What a curve says before a rate is chosen from it.

    Attributes:
        smooth: the smoothed losses, one per rate of the curve; read up to the last usable one.
        slope: change of the smoothed loss per decade of rate.
        noise: standard deviation of one loss about the smooth curve.
        start: the level before the rate mattered.
        lowest: index of the lowest smoothed loss.
        falls: whether the loss falls by more than its noise explains.
    """

    smooth: Array
    slope: Array
    noise: float
    start: float
    lowest: int
    falls: bool


def read(lr: Array, loss: Array) -> Reading:
    """Read a curve of finite losses.

    Args:
        lr: rates above 0, rising, shape [N], N >= 3.
        loss: the finite loss at each, shape [N].

    Example:
        >>> lr = np.logspace(-4, 0, 41)
        >>> reading = read(lr, (np.log10(lr) + 1.5) ** 2)
        >>> reading.falls, float(lr[reading.lowest].round(3)), reading.slope[[0, -1]].round(1)
        (True, 0.032, array([-4.7,  2.7]))
    """
    position = np.log10(lr)
    noise = _noise(loss)
    start = float(np.median(loss[: max(3, len(loss) // 8)]))
    # A blow-up at the end says where the edge is, not how high it is: cut it, or smoothing would smear it to the left.
    ceiling = start + max(start - float(np.min(loss)), 3.0 * noise)
    smooth, slope, weight = _local_lines(position, np.minimum(loss, ceiling))
    # At its ends a line may run below every loss, where a floor wobbles: the fall would be deeper than it was.
    smooth = np.maximum(smooth, np.min(loss))
    lowest = int(np.argmin(smooth))
    standard_error = noise * float(np.sqrt(1.0 / weight[lowest] + 1.0 / max(3, len(loss) // 8)))
    fall = start - float(smooth[lowest])
    falls = fall > _FALL_IN_STANDARD_ERRORS * standard_error and fall > 1e-12 * abs(start)
    return Reading(smooth=smooth, slope=slope, noise=noise, start=start, lowest=lowest, falls=bool(falls))


def minimum(lr: Array, reading: Reading) -> float:
    """Return the rate of the lowest smoothed loss: the edge, too high to train at."""
    return float(lr[reading.lowest])


def steepest(lr: Array, reading: Reading) -> float:
    """Return the rate at which the smoothed loss falls fastest per decade, left of its lowest point."""
    return float(lr[_steepest_index(reading)])


def slide(lr: Array, reading: Reading) -> float:
    """Return the last rate, going up from the steepest, before the fall per decade drops under a quarter of it."""
    first = _steepest_index(reading)
    threshold = _SLIDE_SHARE * reading.slope[first]
    last = first
    while last < reading.lowest and reading.slope[last + 1] <= threshold:
        last += 1
    return float(lr[last])


def valley(lr: Array, reading: Reading) -> float:
    """Return the geometric middle of the fall: between the rates where a tenth and nine tenths of it have happened."""
    depth = reading.start - reading.smooth[: reading.lowest + 1]
    total = depth[-1]
    # The last crossings, so that noise on the flat start is not taken for the beginning of the fall.
    low, high = (int(np.flatnonzero(depth < share * total)[-1:].sum()) + 1 for share in (0.1, 0.9))
    return float(np.sqrt(lr[min(low, reading.lowest)] * lr[min(high, reading.lowest)]))


READINGS = {"minimum": minimum, "slide": slide, "steepest": steepest, "valley": valley}


def half_lost(lr: Array, reading: Reading) -> float:
    """Return the first rate above the lowest point where half of the fall is lost again; the last rate if none is."""
    half = 0.5 * (reading.start + reading.smooth[reading.lowest])
    lost = np.flatnonzero(reading.smooth[reading.lowest :] > half)
    return float(lr[reading.lowest + lost[0]] if len(lost) else lr[-1])


def rise(lr: Array, reading: Reading) -> float:
    """Return the rate from which the smoothed loss stays well above the start; the last rate if it does not.

    Example:
        >>> lr = np.logspace(-4, 0, 41)
        >>> rise(lr, read(lr, np.where(lr < 0.03, 2.0, 3.0))) > 0.03, rise(lr, read(lr, np.full(41, 2.0)))
        (True, 1.0)
    """
    below = np.flatnonzero(reading.smooth <= reading.start + _RISE_DEVIATIONS * reading.noise)
    first = int(below[-1]) + 1 if len(below) else 0
    return float(lr[min(first, len(lr) - 1)])


def clearest(lr: Array, link: Array, *, below: float = math.inf) -> tuple[float, float] | None:
    """Return at which rate the smoothed link between inputs and targets is clearest, and by how many standard errors.

    None where the link is not known.

    The loss of a batch has the noise of what happens to be in it; the same outputs with the targets of other samples of
    the batch have it too, so that the gap between the two shows long before the loss falls what the model has learned,
    and where it loses it.

    Args:
        lr: rates above 0, rising, shape [N].
        link: the gap at each in standard deviations; not a number where it is not known, shape [N].
        below: the rates asked about: what a model that is lost still says of its inputs is no use.

    Example:
        >>> lr = np.logspace(-4, 0, 41)
        >>> rate, errors = clearest(lr, 2.0 * np.exp(-((np.log10(lr) + 1.5) ** 2)))
        >>> round(rate, 3), round(errors, 1), clearest(lr, np.full(41, np.nan))
        (0.032, 4.5, None)
    """
    known = np.isfinite(link)
    if known.sum() < FEWEST_POINTS:
        return None
    rates = lr[known]
    kernel = _kernel(np.log10(rates))
    smooth = kernel @ np.clip(link[known], -CLEAREST, CLEAREST)
    best = int(np.argmax(smooth[: max(1, int(np.searchsorted(rates, below)))]))
    return float(rates[best]), float(smooth[best] / np.sqrt(np.square(kernel[best]).sum()))


def reached(lr: Array, reading: Reading, share: float) -> float:
    """Return the first rate at which `share` of the fall has happened; the lowest point's where there is none."""
    depth = reading.start - reading.smooth[: reading.lowest + 1]
    index = int(np.argmax(depth >= share * depth[-1])) if depth[-1] > 0 else reading.lowest
    return float(lr[index])


def first_valley(reading: Reading) -> Reading:
    """Return the reading with the lowest point of its first valley.

    A valley ends where half of its fall is lost again; what the curve does beyond, with a model that the rate has
    destroyed, is no better for being lower (a dead network that has learned the class shares, say).
    """
    depth = reading.start - reading.smooth
    deepest = np.maximum.accumulate(depth)
    is_over = (depth < 0.5 * deepest) & (deepest > 0.5 * depth.max())
    end = int(np.argmax(is_over)) if is_over.any() else len(depth)
    return replace(reading, lowest=int(np.argmax(depth[:end])))


def floor(lr: Array, reading: Reading) -> tuple[float, float]:
    """Return the floor of the first valley: where nine tenths of its fall are reached, and its lowest point."""
    valley = first_valley(reading)
    return reached(lr, valley, _FLOOR_SHARE), minimum(lr, valley)


def spike(loss: Array, *, share: float = 1.0, levels: Sequence[float] = ()) -> int | None:
    """Return the index of the first loss far above the start after a fall, if the losses come back; None: none does.

    Where a loss has no bound (a squared error) a rate that is too high can destroy the model within a step, which then
    learns the mean anew and stays there: what comes after is a valley of another model.

    Args:
        loss: of a sweep, shape [N].
        share: of the fall that it rises above the start, beside noise.
        levels: what the first batches lose without any training, in order: one that is far above the others by itself
            is no spike.

    Example:
        >>> spike(np.array([4.0, 4.1, 3.9, 4.0, 3.0, 2.0, 1.5, 20.0, 3.0, 2.9, 3.0, 2.9]))
        7
    """
    if len(loss) < 2 * _AROUND_SPIKE:
        return None
    start, deviation = _start_and_deviation(loss)
    lowest = np.minimum.accumulate(loss)
    excess = np.zeros(len(loss))
    excess[: len(levels)] = np.maximum(0.0, np.array(levels) - start)[: len(loss)]
    for i in range(_AROUND_SPIKE, len(loss) - _AROUND_SPIKE):
        fall = start - lowest[i - 1]
        is_above = loss[i] - excess[i] > start + share * fall + _SPIKE_DEVIATIONS * deviation
        if is_above and fall > 2.0 * deviation and loss[i + 1 :].min() < start:
            return i
    return None


def destroyed(loss: Array) -> int | None:
    """Return the index at which a sweep destroyed its model, as far as single losses say so; None: none does.

    They say so by a spike after a fall, or by a loss far below the start that is followed by the level of the start: a
    model that has reached large targets, at a rate that kills it the next moment.

    Example:
        >>> destroyed(np.array([4.0, 4.1, 3.9, 4.0, 3.9, 0.5, 4.1, *[4.0, 3.9] * 8]))
        5
    """
    start, deviation = _start_and_deviation(loss)
    above = spike(loss, share=_SPIKE_SHARE)
    for i in range(_AROUND_SPIKE, len(loss) - _AROUND_SPIKE if above is None else above):
        after = loss[i + 2 :][:_AFTER_DIVE]
        if loss[i] < start - _DIVE_DEVIATIONS * deviation and len(after) >= _AROUND_SPIKE:
            back = start - min(0.5 * (start - loss[i]), 2.0 * deviation)
            if np.median(after) > back:
                return i
    return above


def is_past_valley(lr: Array, loss: Array) -> bool:
    """Return whether a sweep under way has left a clear valley behind: half of its fall lost, for three points."""
    if len(lr) < 2 * FEWEST_POINTS:
        return False
    reading = read(lr, loss)
    return reading.falls and half_lost(lr, reading) <= lr[-4]


def deviation_by_steps(loss: Array) -> float:
    """Return the standard deviation of one loss, as steps from one to the next tell it; 0.0 of fewer than two.

    A level that changes slowly counts little, a few wild losses nothing; those that are not finite are left out.

    >>> round(deviation_by_steps(np.array([1.0, 2.0, 1.0, 2.0, 50.0])), 3), deviation_by_steps(np.array([1.0]))
    (1.048, 0.0)
    """
    steps = np.diff(loss)
    steps = steps[np.isfinite(steps)]
    return 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2.0) if len(steps) else 0.0


def deviations(gaps: Sequence[float]) -> float | None:
    """Return the sum of differences in standard deviations, if each were as likely negative as positive.

    >>> deviations([1.0] * 9), deviations([1.0, -1.0] * 9), deviations([1.0])
    (3.0, 0.0, None)
    """
    values = np.array(gaps)
    square = float(np.square(values).sum())
    return float(values.sum()) / math.sqrt(square) if len(values) >= FEWEST_POINTS and square > 0 else None


def _start_and_deviation(loss: Array) -> tuple[float, float]:
    """Return the level at the start, and the standard deviation of one loss."""
    return float(np.median(loss[: max(3, len(loss) // 8)])), deviation_by_steps(loss)


def _steepest_index(reading: Reading) -> int:
    return int(np.argmin(reading.slope[: reading.lowest + 1]))


def _noise(loss: Array) -> float:
    # Second differences forget any straight trend; for independent noise their variance is 6 times that of one loss.
    if len(loss) < 3:
        return 0.0
    bends = np.abs(loss[2:] - 2.0 * loss[1:-1] + loss[:-2])
    return float(1.4826 * np.median(bends) / np.sqrt(6.0))


def _local_lines(position: Array, loss: Array) -> tuple[Array, Array, Array]:
    # A weighted straight line through the neighbours of each point (Cleveland 1979, without the robustness steps):
    # its height, its slope, and how many points it stands on.
    offset = position - position[:, None]  # [N, N]
    kernel = _kernel(position)
    mean_offset, mean_loss = (kernel * offset).sum(1), kernel @ loss
    centred = offset - mean_offset[:, None]
    spread = (kernel * centred**2).sum(1)
    slope = (kernel * centred * (loss - mean_loss[:, None])).sum(1) / np.where(spread > 0, spread, 1.0)
    return mean_loss - slope * mean_offset, slope, 1.0 / (kernel**2).sum(1)


def _kernel(position: Array) -> Array:
    """Return the weights of each point's neighbours, [N, N]; each row sums to one."""
    bandwidth = max(_BANDWIDTH_DECADES, 1.5 * float(np.median(np.diff(position))))
    offset = position - position[:, None]
    kernel = np.where(np.abs(offset) < 3.0 * bandwidth, np.exp(-0.5 * (offset / bandwidth) ** 2), 0.0)
    weights: Array = kernel / kernel.sum(1, keepdims=True)
    return weights
