"""Few samples: how high a rate may be before a run learns them by heart and the held-out loss rises again.

What a run has learned by heart goes with the way it has come, rate times steps, and a sweep comes a way of its own:
where its held-out loss is lowest, before it rises again, it has come about as far as a run may.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from cyclewise.range_test.suggest import Array

# Looks at the held-out batches on the way through a sweep.
_NUM_LOOKS = 8
# The fall of the held-out loss has to be so many standard errors deep, over its batches.
_FALL_IN_STANDARD_ERRORS = 1.5
# The middle of the valley: the mean of the logarithms of the way, weighted with this power of the fall.
_POWER = 4
# How far a run may come, as a multiple of the way of the sweep to that middle: it ends with small steps. Fitted on the
# development tasks of benchmarks/lr_regret, for 100 and for 300 steps alike.
_FARTHER = 1.4
# Mean rate of a one-cycle run, as a share of its peak.
_MEAN_RATE = 0.5
# Length of a run, in steps, where nobody says.
_USUAL_STEPS = 250


class Course:
    """The held-out loss on the way through a sweep of `num_steps` steps.

    Attributes:
        way: sum of the rates until each look.
        losses: what each look saw, one loss per held-out batch.

    Example:
        >>> course = Course(5)
        >>> losses = iter([1.0, 0.5, 0.4, 0.5, 0.8])
        >>> for rate in (1e-3, 2e-3, 4e-3, 8e-3, 16e-3):
        ...     course.update(rate, lambda: [next(losses)])
        >>> round(course.highest_rate(total_steps=100), 6), round(course.highest_rate(total_steps=1000), 7)
        (0.000194, 1.94e-05)
    """

    def __init__(self, num_steps: int) -> None:
        self.way: list[float] = []
        self.losses: list[Sequence[float]] = []
        self._stops = {round(stop) for stop in np.linspace(0, num_steps - 1, _NUM_LOOKS)}
        self._steps = 0
        self._travelled = 0.0

    def update(self, rate: float, score: Callable[[], Sequence[float]]) -> None:
        """Count an update at `rate`, and look at the held-out batches after it if it is time to."""
        self._travelled += rate
        if self._steps in self._stops:
            self._look(score)
        self._steps += 1

    def close(self, score: Callable[[], Sequence[float]]) -> None:
        """Look at the held-out batches at the end of a sweep that ended early."""
        if self._steps and self.way[-1:] != [self._travelled]:
            self._look(score)

    def highest_rate(self, total_steps: int | None) -> float:
        """Return the highest peak rate of a one-cycle run that does not overfit; infinity where none was seen to.

        Args:
            total_steps: length of the run; None: 250 steps.
        """
        if not self.losses:
            return math.inf
        losses = np.array(self.losses, dtype=np.float64)  # [looks, batches]
        means = np.where(np.isfinite(losses).all(1), losses.mean(1), math.inf)
        lowest = int(np.argmin(means))
        if not 0 < lowest < len(means) - 1 or not math.isfinite(means[0]) or not _is_clear(losses[0] - losses[lowest]):
            return math.inf
        fall = np.clip((means[0] - means) / (means[0] - means[lowest]), 0.0, 1.0)
        middle = math.exp(np.average(np.log(self.way), weights=fall**_POWER))
        return _FARTHER * middle / (_MEAN_RATE * (total_steps or _USUAL_STEPS))

    def _look(self, score: Callable[[], Sequence[float]]) -> None:
        self.way.append(self._travelled)
        self.losses.append(score())


def _is_clear(falls: Array) -> bool:
    """Return whether the fall over the held-out batches is more than its noise; of one batch alone it is believed."""
    return len(falls) < 2 or bool(falls.mean() > _FALL_IN_STANDARD_ERRORS * falls.std(ddof=1) / math.sqrt(len(falls)))
