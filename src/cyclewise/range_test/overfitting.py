"""Samples seen again: how high a rate may be before a run learns them by heart and the held-out loss rises again.

What a run has learned by heart goes with the way it has come, rate times steps, and a sweep comes a way of its own:
where its held-out loss is lowest, and the training loss leaves it behind, it has come about as far as a run may. That
holds of optimizers that divide by the size of the gradients, whose way goes on however small those become; gradient
descent slows down by itself as the samples are learned, and may come farther.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from cyclewise.range_test.pace import Pace, steady
from cyclewise.range_test.readings import Array
from cyclewise.range_test.suggest import USUAL_STEPS

# Looks at the held-out batches on the way through a sweep.
_NUM_LOOKS = 8
# The fall of the held-out loss has to be so many standard errors deep, over its batches.
_FALL_IN_STANDARD_ERRORS = 1.5
# The middle of the valley: the mean of the logarithms of the way, weighted with this power of the fall.
_POWER = 4
# The training loss has left the held-out loss behind where, at two looks, the gap between them has grown by this share
# of what the held-out loss fell, and it has not risen by this share of what it fell itself. Fitted on the development
# tasks of benchmarks/lr_regret.
_GAP, _LEVEL, _FEWEST_LOOKS = 0.2, 0.1, 2
# The training loss at a look is the median over the sweep's steps around it: this share of them to each side.
_AROUND = 1.0 / 16.0
# How much farther gradient descent may come. Fitted on the same tasks.
_FARTHER_BY_DESCENT = 4.0
# Mean rate of a one-cycle run, as a share of its peak.
MEAN_RATE = 0.5


class Course:
    """The held-out loss on the way through a sweep of `num_steps` steps.

    Args:
        num_steps: length of the sweep.
        divides_by_size: whether the optimizer divides gradients by their size, as Adam and its kin do.
        pace: the share of its rate that the optimizer takes at a step.

    Attributes:
        way: sum of the rates until each look, of what the optimizer took of them.
        losses: what each look saw, one loss per held-out batch.

    Example:
        >>> course = Course(7)
        >>> held_out = iter([1.0, 0.9, 0.6, 0.4, 0.5, 0.8, 1.0])
        >>> for rate, loss in zip((1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3, 64e-3), (1.0, 0.9, 0.6, 0.3, 0.2, 0.1, 0.1)):
        ...     course.update(rate, loss, lambda: [next(held_out)])
        >>> round(course.highest_rate(total_steps=100), 6), round(course.highest_rate(total_steps=1000), 7)
        (0.000341, 3.41e-05)
    """

    def __init__(self, num_steps: int, *, divides_by_size: bool = True, pace: Pace = steady) -> None:
        self._pace = pace
        self._farther = 1.0 if divides_by_size else _FARTHER_BY_DESCENT
        self.way: list[float] = []
        self.losses: list[Sequence[float]] = []
        self._stops = {round(stop) for stop in np.linspace(0, num_steps - 1, _NUM_LOOKS)}
        self._training: list[float] = []
        self._looked_after: list[int] = []
        self._travelled = 0.0

    def update(self, rate: float, loss: float, score: Callable[[], Sequence[float]]) -> None:
        """Count an update at `rate` with its training loss, and look at the held-out batches after it if it is time."""
        self._training.append(loss)
        self._travelled += rate * self._pace(len(self._training))
        if len(self._training) - 1 in self._stops:
            self._look(score)

    def close(self, score: Callable[[], Sequence[float]]) -> None:
        """Look at the held-out batches at the end of a sweep that ended early."""
        if self._training and self.way[-1:] != [self._travelled]:
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
        fall = (means[0] - means) / (means[0] - means[lowest])
        training = self._training_losses()
        with np.errstate(invalid="ignore"):  # what is not finite is neither
            gap = (means - training) - (means[0] - training[0])
            is_behind = gap > _GAP * (means[0] - means[lowest])
            # Where the training loss rises too, it is the rate that has become too high.
            is_level = training - training[lowest] <= _LEVEL * (training[0] - training[lowest])
        if np.sum((is_behind & is_level)[lowest:]) < _FEWEST_LOOKS:
            return math.inf
        middle = math.exp(np.average(np.log(self.way), weights=np.clip(fall, 0.0, 1.0) ** _POWER))
        steps = total_steps or USUAL_STEPS
        return self._farther * middle / (MEAN_RATE * self._pace(steps / 2) * steps)

    def _training_losses(self) -> Array:
        """Return the training loss about each look."""
        around = max(2, int(_AROUND * len(self._training)))
        losses = np.array(self._training)
        near = (losses[max(0, step - around + 1) : step + around + 1] for step in self._looked_after)
        finite = (values[np.isfinite(values)] for values in near)
        return np.array([np.median(values) if len(values) else math.inf for values in finite])

    def _look(self, score: Callable[[], Sequence[float]]) -> None:
        self.way.append(self._travelled)
        self._looked_after.append(len(self._training) - 1)
        self.losses.append(score())


def _is_clear(falls: Array) -> bool:
    """Return whether the fall over the held-out batches is more than its noise; of one batch alone it is believed."""
    return len(falls) < 2 or bool(falls.mean() > _FALL_IN_STANDARD_ERRORS * falls.std(ddof=1) / math.sqrt(len(falls)))
