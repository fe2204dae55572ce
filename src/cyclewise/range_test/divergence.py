"""Deciding, while a sweep runs, that the loss has left for good, for losses of any sign and scale."""

import math
from collections import deque
from statistics import median

# The losses of the first steps, where the rate is still too low to matter, give the level and its noise.
_NUM_LEVEL_STEPS = 8
_NUM_VERY_FIRST = 4
_SPREADS_TO_DIVERGE = 3.0
_NOISES_PER_SPREAD = 4.0
_LEVEL_SHARE = 0.05


class Divergence:
    """Watches losses and says when they have diverged.

    They have when the median of the last three exceeds the level of the first steps by three spreads, the spread being
    the largest of the fall so far, four standard deviations of the first losses, and 5 % of the level's size (so that
    a noiseless flat start does not stop at the first rounding error). A median of three forgives a single bad batch.
    Where most batches are alike and a few are far above them, that deviation is that of the many: so it has to exceed
    each of the very first losses, too (the later ones of a short sweep may be lost already).

    Example:
        >>> watch = Divergence()
        >>> any(watch.update(loss) for loss in [-5.0, -5.1, -5.0, -5.2, -5.1, -5.0, -5.1, -5.3, -6.0, -7.0])
        False
        >>> [watch.update(loss) for loss in [90.0, 800.0, 5000.0]]
        [False, True, True]
    """

    def __init__(self) -> None:
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=3)
        self._best = math.inf

    def update(self, loss: float) -> bool:
        """Take the next finite loss and return whether the losses have diverged."""
        self._recent.append(loss)
        if len(self._first) < _NUM_LEVEL_STEPS:
            self._first.append(loss)
            return False
        recent = median(self._recent)
        self._best = min(self._best, recent)
        level = median(self._first)
        noise = 1.4826 * median(abs(first - level) for first in self._first)
        spread = max(level - self._best, _NOISES_PER_SPREAD * noise, _LEVEL_SHARE * abs(level))
        return recent > max(level + _SPREADS_TO_DIVERGE * spread, *self._first[:_NUM_VERY_FIRST])
