"""Reasons to refuse: what the sweeps and the held-out batches must show before a rate is given."""

import math

import numpy as np

from cyclewise.range_test import suggest
from cyclewise.range_test.result import Refusal, StopReason
from cyclewise.range_test.sweep import Sweeps

# The best of several looks is compared, so chance alone passes two standard deviations now and then.
_FEWEST_DEVIATIONS = 2.5
_SOME_DEVIATIONS = 1.0
# Where the data themselves link targets to inputs, a held-out loss that is lower at all is enough.
_HINT = 0.5
# A curve whose noise is the evaluations' own by this share or more, and not that between batches, has no fall behind it
# that a closer look would find.
_NOISE_SHARE = 0.5
# Class shares can be learned without the inputs, and are no use. The mean of a quantity may be far away, and getting
# there is worth a rate (raw targets, ratings): then it is enough that the held-out loss falls to less than half.
_FAR = 0.5


def improvement(seen: Sweeps) -> float | None:
    """Return by how many standard errors the best look lies below the start; None with fewer than two batches."""
    if seen.start is None or len(seen.start.losses) < 2:
        return None
    start = np.array(seen.start.losses)
    # A gain that is the same in every batch, and next to nothing in all, is no improvement either.
    least = 0.01 * float(start.std(ddof=1)) + 1e-6 * float(np.abs(start).mean()) + 1e-30
    best = -math.inf
    for look in seen.looks:
        gains = start - np.array(look.losses)
        if np.isfinite(gains).all():
            error = max(float(gains.std(ddof=1)) / math.sqrt(len(gains)), least)
            best = max(best, float(gains.mean()) / error)
    return best


def grew(seen: Sweeps) -> bool:
    """Return whether the link between inputs and targets on held-out batches became clearer on the way."""
    links = _links(seen)
    before = None if seen.start is None else seen.start.link
    return before is not None and bool(links) and max(links) - before >= _FEWEST_DEVIATIONS


def _links(seen: Sweeps) -> list[float]:
    looks = [*seen.early_looks, *seen.looks]
    return [look.link for look in looks if look.link is not None and math.isfinite(look.link)]


def _is_certain(clearest: float | None) -> bool:
    return clearest is not None and clearest >= 2.0 * _FEWEST_DEVIATIONS


def fall(seen: Sweeps) -> float:
    """Return the share of the held-out loss before training that the best look is lower by; 0.0 if unknown."""
    if seen.start is None or not seen.start.losses:
        return 0.0
    start = float(np.mean(seen.start.losses))
    best = min((float(np.mean(look.losses)) for look in seen.looks), default=start)
    return (start - best) / abs(start) if start and math.isfinite(best) else 0.0


def link(seen: Sweeps) -> float | None:
    """Return the clearest link between inputs and targets that was seen, in standard deviations; None if unknown.

    The loss with the true targets is compared with the loss with the targets of other samples of the same batch (a
    permutation test), on held-out batches and on training batches before they are trained on: targets unrelated to the
    inputs show no difference, however well their shares were learned.
    """
    links = _links(seen)
    # Up to the lowest point: beyond, a few wrecked losses would drown the rest.
    reading = _last_reading(seen)
    before = len(seen.gaps) if reading is None else reading.lowest + 1
    on_training = suggest.deviations(seen.gaps[:before])
    if on_training is not None:
        links.append(on_training)
    return max(links) if links else None


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


def _last_reading(seen: Sweeps) -> suggest.Reading | None:
    return seen.curves[-1].read() if seen.curves else None


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
    readings = [reading for reading in (curve.read() for curve in seen.curves) if reading is not None]
    gain, clearest = improvement(seen), link(seen)
    # One fall in three sweeps can be chance; what is held out then has to agree a little.
    falls = last.falls or (any(r.falls for r in readings) and (gain is None or gain >= _SOME_DEVIATIONS))
    is_lower = falls or (gain is not None and gain >= _FEWEST_DEVIATIONS)
    is_linked = clearest is not None and clearest >= _FEWEST_DEVIATIONS
    if not is_lower and not _is_promising(seen, gain, clearest, is_related):
        return Refusal.NO_IMPROVEMENT
    if is_bounded and seen.stop_reasons[-1] is StopReason.COMPLETED and last.lowest >= len(last.smooth) - 2:
        return Refusal.STILL_FALLING
    if clearest is not None and not is_linked and not is_related and (seen.has_classes or fall(seen) < _FAR):
        return Refusal.UNRELATED
    return None


def _is_promising(seen: Sweeps, gain: float | None, clearest: float | None, is_related: bool) -> bool:
    if gain is None:
        return False
    if is_related:
        return gain >= _HINT or grew(seen)
    return _is_certain(clearest) and (gain >= _SOME_DEVIATIONS or grew(seen))
