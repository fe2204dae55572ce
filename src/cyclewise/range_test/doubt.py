"""Reasons to refuse: what the sweeps and the held-out batches must show before a rate is given."""

import numpy as np

from cyclewise.range_test import readings
from cyclewise.range_test.looks import CERTAIN_DEVIATIONS, FEWEST_DEVIATIONS
from cyclewise.range_test.refusal import Refusal, StopReason
from cyclewise.range_test.sweep import Sweeps

_SOME_DEVIATIONS = 1.0
# Where the data themselves link targets to inputs, a held-out loss that is lower at all is enough.
_HINT = 0.5
# A curve whose noise is the evaluations' own by this share or more, and not that between batches, has no fall behind it
# that a closer look would find.
_NOISE_SHARE = 0.5
# Class shares can be learned without the inputs, and are no use. The mean of a quantity may be far away, and getting
# there is worth a rate (raw targets, ratings): then it is enough that the held-out loss falls to less than half.
_FAR = 0.5


def link(seen: Sweeps) -> float | None:
    """Return the clearest link between inputs and targets that was seen, in standard deviations; None if unknown.

    The loss with the true targets is compared with the loss with the targets of other samples of the same batch (a
    permutation test), on held-out batches and on training batches before they are trained on: targets unrelated to the
    inputs show no difference, however well their shares were learned.
    """
    clearest = seen.looks.link()
    # Up to the lowest point: beyond, a few wrecked losses would drown the rest.
    reading = _last_reading(seen)
    before = len(seen.gaps) if reading is None else reading.lowest + 1
    on_training = readings.deviations(seen.gaps[:before])
    return max((value for value in (clearest, on_training) if value is not None), default=None)


def is_unclear(seen: Sweeps) -> bool:
    """Return whether the last sweep shows no fall beyond its noise, so that its noise has to be looked into."""
    reading = _last_reading(seen)
    return seen.refusal is None and reading is not None and not reading.falls


def is_noisy(seen: Sweeps) -> bool:
    """Return whether what hides the fall of the last sweep is that its losses would not repeat themselves.

    The rates that would then be read scatter over three decades and more (docs/range-test.md).
    """
    reading = _last_reading(seen)
    if seen.evaluation_noise is None or reading is None or reading.falls:
        return False
    return seen.evaluation_noise > 0.0 and seen.evaluation_noise >= _NOISE_SHARE * reading.noise


def _last_reading(seen: Sweeps) -> readings.Reading | None:
    return seen.curves[-1].read() if seen.curves else None


def starts_too_high(seen: Sweeps, max_lr: float | None) -> bool:
    """Return whether the lowest rate that was tried is too high: a lower one is suggested, or it destroyed the model.

    Args:
        seen: the sweeps, from a rate on that the user set.
        max_lr: what was suggested, if anything was.
    """
    if seen.is_refused():
        return False
    if max_lr is not None:
        return max_lr < min(float(curve.lr[0]) for curve in seen.curves)
    if not seen.curves or seen.looks.start is None or len(seen.curves[0].loss) < 2:
        return False
    start, later = np.array(seen.looks.start.losses), seen.curves[0].loss[1:]
    return bool(np.min(np.where(np.isfinite(later), later, np.inf)) > start.max() + 2.0 * start.std())


def refuse(seen: Sweeps, *, is_bounded: bool, is_related: bool = False) -> Refusal | None:
    """Return why no rate can be given; None where one can.

    Args:
        seen: the sweeps.
        is_bounded: whether the user set the highest rate.
        is_related: whether the data alone are known to link the targets to the inputs.
    """
    if seen.refusal is not None:
        return seen.refusal
    last = _last_reading(seen)
    if last is None:
        return Refusal.TOO_FEW_STEPS
    if is_noisy(seen):
        return Refusal.NOISY
    every = [reading for reading in (curve.read() for curve in seen.curves) if reading is not None]
    gain, clearest = seen.looks.improvement(), link(seen)
    # One fall in three sweeps can be chance; what is held out then has to agree a little.
    falls = last.falls or (any(r.falls for r in every) and (gain is None or gain >= _SOME_DEVIATIONS))
    # The last sweep may have seen nothing but rates that are too high. Of related data alone: with more looks, chance
    # has more to choose from.
    gains = (gain, seen.looks.early_improvement() if is_related else None)
    is_lower = falls or any(one is not None and one >= FEWEST_DEVIATIONS for one in gains)
    is_linked = clearest is not None and clearest >= FEWEST_DEVIATIONS
    if not is_lower and not _is_promising(seen, gain, clearest, is_related):
        return Refusal.NO_IMPROVEMENT
    if is_bounded and seen.stop_reasons[-1] is StopReason.COMPLETED:
        # Where no rate lost anything, an unclear curve has no rise to be read by: there is only the user's bound.
        if last.lowest >= len(last.smooth) - 2 or not (last.falls or seen.lost_some()):
            return Refusal.STILL_FALLING
    if clearest is not None and not is_linked and not is_related and (seen.has_classes or seen.looks.fall() < _FAR):
        return Refusal.UNRELATED
    return None


def _has_all_to_gain(seen: Sweeps) -> bool:
    """Return whether a model without a link between inputs and targets was lost at some rate: there is one below it."""
    start = seen.looks.start
    # Few held-out batches show a link of three or four by chance; models trained to their end show more than five.
    knew_nothing = start is not None and start.link is not None and start.link < CERTAIN_DEVIATIONS
    return knew_nothing and seen.lost_some()


def _is_promising(seen: Sweeps, gain: float | None, clearest: float | None, is_related: bool) -> bool:
    if gain is None:
        return False
    if is_related:
        return gain >= _HINT or seen.looks.grew() or _has_all_to_gain(seen)
    is_certain = clearest is not None and clearest >= CERTAIN_DEVIATIONS
    return is_certain and (gain >= _SOME_DEVIATIONS or seen.looks.grew())
