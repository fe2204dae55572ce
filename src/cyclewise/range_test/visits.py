"""Samples learned by heart at each visit: what an update leaves of its own batch, and how many visits a run pays.

Names with an embedding of their own (words, users, items) are learned by heart long before a sweep sees any of them
again: an update lowers the loss of its own batch by as much as it lowers everybody's. Each look of a sweep holds
batches that were trained on a few steps ago against batches that come next: the gap between them, over the rate of the
visit, times the visits of a run, is what that run learns by heart.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from cyclewise.range_test.overfitting import MEAN_RATE
from cyclewise.range_test.pace import Pace, steady
from cyclewise.range_test.readings import deviations
from cyclewise.range_test.suggest import USUAL_STEPS

_NUM_LOOKS = 12
# Steps before a look whose batches are scored again. An optimizer that averages gradients is still busy with the last.
_SEEN = (6, 3)
# A loss that differs by no more between training and scoring is the same in both.
_ROUNDING = 1e-3
# After so many looks without a gap there is none.
_ENOUGH_LOOKS = 4
# What says that samples are learned by heart: how certain the gap is, in standard deviations, and how wide: a share of
# the fall, and of the spread between batches before training.
_DEVIATIONS, _SHARE, _SPREADS = 2.3, 0.2, 5.0
# Looks count up to the last at which this share of the fall is kept: what comes after tells of a rate that is too high.
_KEPT = 0.8
# What a run may learn by heart, as a share of the fall. Fitted, as those above, on the development tasks of
# benchmarks/lr_regret.
_BY_HEART = 0.3


class Visits:
    """The gap between batches seen and batches to come, on the way through a sweep.

    A batch's training loss, from before it was trained on, is that of a batch to come. Where it is another loss than
    that of scoring (dropout, batch norm), the batch that comes next is scored too, and what lies between is taken off.

    Args:
        num_steps: of the sweep that see a batch for the first time.
        start: held-out losses before training, one per batch.
        steps_in_pass: steps of a run in which each sample is seen once.
        pace: the share of its rate that the optimizer takes at a step.

    Example:
        >>> visits = Visits(20, start=[1.00, 1.02], steps_in_pass=20)
        >>> for i in range(20):
        ...     loss = 1.0 - 0.02 * i
        ...     visits.update(0.01, loss, lambda steps: [loss - (0.1 if step < i else 0.02) for step in steps])
        >>> round(visits.highest_rate(total_steps=200), 4)
        0.0025
    """

    def __init__(self, num_steps: int, *, start: Sequence[float], steps_in_pass: float, pace: Pace = steady) -> None:
        self._start, self._spread = float(np.mean(start)), float(np.std(start, ddof=1)) if len(start) > 1 else 0.0
        self._steps_in_pass, self._pace = steps_in_pass, pace
        first, last = max(_SEEN), num_steps - 2
        self._stops = {round(stop) for stop in np.linspace(first, last, _NUM_LOOKS)} if last >= first else set()
        self._is_same: bool | None = None  # the loss of training and that of scoring
        self._rates: list[float] = []
        self._training: list[float] = []
        self._scored: Sequence[float] = ()  # by the look that still waits for the next training loss
        self._visited: list[float] = []  # mean rate of the visits that a look saw
        self._gaps: list[list[float]] = []
        self._new: list[float] = []

    def update(self, rate: float, loss: float, score: Callable[[Sequence[int]], Sequence[float]]) -> None:
        """Count an update at `rate` with its training loss, and look at some batches after it if it is time.

        Args:
            rate: of this step.
            loss: of its batch, before the update.
            score: returns the loss of a batch of each of several steps of the sweep.
        """
        self._rates.append(rate * self._pace(len(self._rates) + 1))
        self._training.append(loss)
        if self._scored:
            self._conclude()
        step = len(self._rates) - 1
        if step in self._stops and self._goes_on():
            self._scored = score([*(step - back for back in _SEEN), *(() if self._is_same else (step + 1,))])

    def _conclude(self) -> None:
        # The batch that came next was scored by the very model that then trained on it.
        before, now = self._training[-2:]
        seen, other = self._scored[: len(_SEEN)], self._scored[len(_SEEN) :]
        self._scored = ()
        offset = now - other[0] if other else 0.0
        if self._is_same is None:
            self._is_same = abs(offset) <= _ROUNDING * abs(now)
        self._gaps.append([new - offset - old for new, old in zip((before, now), seen, strict=True)])
        self._new.append((before + now) / 2 - offset)
        look = len(self._rates) - 2
        self._visited.append(sum(self._rates[look - back] for back in _SEEN) / len(_SEEN))

    def highest_rate(self, total_steps: int | None) -> float:
        """Return the highest peak of a one-cycle run that does not learn too much by heart; infinity without a sign.

        Args:
            total_steps: length of the run; None: 250 steps.
        """
        steps = total_steps or USUAL_STEPS
        if not self._new or steps <= self._steps_in_pass:
            return math.inf
        new, gaps = np.array(self._new), np.array(self._gaps)  # [looks], [looks, batches]
        lowest = int(np.argmin(new)) + 1
        fall = self._start - float(new[lowest - 1])
        looks = int(np.flatnonzero(new <= self._start - _KEPT * fall)[-1]) + 1 if fall > 0.0 else 0
        values = gaps[:looks].flatten()
        certainty = deviations(values.tolist()) if looks and np.isfinite(values).all() else None
        if certainty is None or certainty < _DEVIATIONS:
            return math.inf
        if values[len(values) // 2 :].mean() < max(_SHARE * fall, _SPREADS * self._spread):
            return math.inf
        per_rate = float(gaps[:lowest].mean()) / float(np.mean(self._visited[:lowest]))
        if per_rate <= 0.0:
            return math.inf
        share_taken = MEAN_RATE * self._pace(steps / 2)
        return _BY_HEART * fall / (per_rate * share_taken * steps / self._steps_in_pass)

    def _goes_on(self) -> bool:
        if len(self._gaps) < _ENOUGH_LOOKS:
            return True
        mean = float(np.mean(self._gaps))
        return math.isfinite(mean) and mean > 0.5 * self._spread
