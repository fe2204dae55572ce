"""Samples learned by heart at each visit: what an update leaves of its own batch, and how many visits a run pays.

Names with an embedding of their own (words, users, items) are learned by heart long before a sweep sees any of them
again: an update lowers the loss of its own batch by more than that of the others. Each look of a sweep holds
batches that were trained on a few steps ago against batches that come next: the gap between them, over the rate of the
visit, times the visits of a run, is what that run learns by heart.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from cyclewise.range_test.overfitting import MEAN_RATE
from cyclewise.range_test.pace import Pace, steady
from cyclewise.range_test.readings import Array, deviation_by_steps, deviations
from cyclewise.range_test.suggest import USUAL_STEPS

_NUM_LOOKS = 12
# Steps before a look whose batches are scored again. An optimizer that averages gradients is still busy with the last.
_SEEN = (6, 3)
# A loss that differs by no more between training and scoring is the same in both.
_ROUNDING = 1e-3
# After so many looks without a gap there is none.
_ENOUGH_LOOKS = 4
# What says that samples are learned by heart: how certain the gap is, in standard deviations, and how wide: a share of
# the fall, and times the spread between batches: before training, or from step to step where all outputs begin alike.
_DEVIATIONS, _SHARE, _SPREADS, _SPREADS_OF_STEPS = 2.3, 0.2, 5.0, 2.0
# Looks count up to the last at which this share of the fall is kept: what comes after tells of a rate that is too high.
_KEPT = 0.8
# So many looks have to agree that training and scoring see the same loss.
_FEWEST_AGREEING = 3
# What a run may learn by heart, as a share of the fall. Fitted, as those above, on the development tasks of
# benchmarks/lr_regret.
_BY_HEART = 0.3
# A sweep whose loss has fallen by a smaller share of itself does not know how far that of a run will fall: so far, at
# least.
_LEAST_FALL = 0.125


class Visits:
    """The gap between batches seen and batches to come, on the way through a sweep.

    A batch's training loss, from before it was trained on, is that of a batch to come. Where it is another loss than
    that of scoring (dropout, the mean of accumulated batches), the batch that comes next is scored too, and what lies
    between is taken off.

    Args:
        num_steps: of the sweep that see a batch for the first time.
        start: losses of batches like those before training; None: those of the first steps are taken.
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

    def __init__(
        self, num_steps: int, *, start: Sequence[float] | None, steps_in_pass: float, pace: Pace = steady
    ) -> None:
        self._start = None if start is None else list(start)
        self._steps_in_pass, self._pace = steps_in_pass, pace
        first, last = max(_SEEN), num_steps - 2
        self._stops = {round(stop) for stop in np.linspace(first, last, _NUM_LOOKS)} if last >= first else set()
        self._agreeing = 0  # looks in a row at which training and scoring saw the same loss
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
            other = () if self._agreeing >= _FEWEST_AGREEING else (step + 1,)
            self._scored = score([*(step - back for back in _SEEN), *other])

    def highest_rate(self, total_steps: int | None) -> float:
        """Return the highest peak of a one-cycle run that does not learn too much by heart; infinity without a sign.

        Args:
            total_steps: length of the run; None: 250 steps.
        """
        steps = total_steps or USUAL_STEPS
        new, gaps = self._finite_looks()
        if steps <= self._steps_in_pass or not len(new):
            return math.inf
        start = float(np.mean(self._before()))
        lowest = int(np.argmin(new)) + 1
        fall = start - float(new[lowest - 1])
        if not fall > 0.0:
            return math.inf
        kept = int(np.flatnonzero(new <= start - _KEPT * fall)[-1]) + 1
        certainty = deviations(gaps[:kept].flatten().tolist())
        if certainty is None or certainty < _DEVIATIONS:
            return math.inf
        if _late(gaps[:kept]) < max(_SHARE * fall, self._narrowest()):
            return math.inf
        per_rate = float(gaps[:lowest].mean()) / float(np.mean(self._visited[:lowest]))
        if per_rate <= 0.0:
            return math.inf
        share_taken = MEAN_RATE * self._pace(steps / 2)
        return _BY_HEART * max(fall, _LEAST_FALL * abs(start)) / (per_rate * share_taken * steps / self._steps_in_pass)

    def _conclude(self) -> None:
        # The batch that came next was scored by the very model that then trained on it.
        before, now = self._training[-2:]
        seen, other = self._scored[: len(_SEEN)], self._scored[len(_SEEN) :]
        self._scored = ()
        offset = now - other[0] if other else 0.0
        self._agreeing = self._agreeing + 1 if abs(offset) <= _ROUNDING * abs(now) else 0
        self._gaps.append([new - offset - old for new, old in zip((before, now), seen, strict=True)])
        self._new.append((before + now) / 2 - offset)
        look = len(self._rates) - 2
        self._visited.append(sum(self._rates[look - back] for back in _SEEN) / len(_SEEN))

    def _before(self) -> list[float]:
        return self._training[: max(_SEEN)] if self._start is None else self._start

    def _narrowest(self) -> float:
        """Return how wide a gap is that batches do not differ by anyway."""
        before = self._before()
        spread = float(np.std(before, ddof=1)) if len(before) > 1 else 0.0
        if spread > _ROUNDING * abs(float(np.mean(before))):
            return _SPREADS * spread
        # Zeros in the last layer: all batches have one loss, whatever they differ by later.
        return _SPREADS_OF_STEPS * deviation_by_steps(np.array(self._training))

    def _finite_looks(self) -> tuple[Array, Array]:
        """Return the losses of new batches, [looks], and the gaps, [looks, batches], before any is not finite."""
        new, gaps = np.array(self._new), np.array(self._gaps).reshape(len(self._new), len(_SEEN))
        lost = np.flatnonzero(~(np.isfinite(new) & np.isfinite(gaps).all(1)))
        end = int(lost[0]) if len(lost) else len(new)
        return new[:end], gaps[:end]

    def _goes_on(self) -> bool:
        if len(self._gaps) < _ENOUGH_LOOKS:
            return True
        mean = float(np.mean(self._gaps))
        return math.isfinite(mean) and mean > 0.1 * self._narrowest()


def _late(gaps: Array) -> float:
    """Return the mean gap over the later half of the looks."""
    return float(gaps.flatten()[gaps.size // 2 :].mean())
