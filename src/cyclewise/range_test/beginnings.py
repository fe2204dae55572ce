"""Deciding, while a sweep runs, that it began too high: its rates raise the loss, leave it behind, or lose the link."""

import math
from collections.abc import Sequence
from statistics import fmean, pstdev, stdev
from typing import Protocol

import numpy as np

from cyclewise.range_test import readings

# Where to begin anew, in decades about the rate at which a sweep began that raised the loss.
_ANEW_LOW, _ANEW_HIGH = -0.6, 0.4
# So many pairs of losses, and so many standard errors between them, say that a lower rate has come further.
_FEWEST_PAIRS = 8
_ERRORS_BEHIND = 3.0
# A link so many standard errors clear is lost in a later sweep that shows less than so many after its first steps.
_LINKED, _NOT_LINKED = 6.0, 1.0
# Such a share of the sweep is given to it, and the later half of that is asked; of shorter sweeps it says nothing.
_SHARE = 0.25
FEWEST_STEPS_TO_UNLINK = 80
# Where to begin anew, in decades about the rate of the clearest link.
_LINKED_LOW, _LINKED_HIGH = -1.2, 0.3


class Beginning(Protocol):
    """Watches the first steps of a sweep."""

    def update(self, rate: float, loss: float, link: float = math.nan) -> bool:
        """Take the next rate, and the loss and the link before its update; return whether the sweep began too high."""

    def anew(self) -> tuple[float, float]:
        """Return the lowest and the highest rate of a sweep that begins lower."""


class Raised:
    """Says when the very first rates of a sweep have raised the losses.

    Losses of the same batches are compared, so that their differences are no noise. Risen they have when one is above
    its own level by more than the whole fall of an earlier sweep, and by twice the spread between the batches.

    Args:
        levels: losses of the first batches before any training, in order.
        fall: how far an earlier sweep from the same start lowered the loss.

    Example:
        >>> watch = Raised([2.0, 2.5, 2.25], fall=1.0)
        >>> [watch.update(0.1, loss) for loss in [2.0, 2.75, 4.0, 9.0]]
        [False, False, True, False]
        >>> [round(rate, 3) for rate in watch.anew()]
        [0.025, 0.251]
    """

    def __init__(self, levels: Sequence[float], fall: float) -> None:
        self._levels = [float(level) for level in levels]
        self._least = max(fall, 2.0 * pstdev(self._levels))
        self._num_seen = 0
        self._first_rate = math.nan

    def update(self, rate: float, loss: float, link: float = math.nan) -> bool:
        """Take the next rate and loss; a loss that is not finite has risen."""
        del link
        i = self._num_seen
        self._num_seen += 1
        # The first loss is that before any update.
        if i == 0:
            self._first_rate = rate
            return False
        return i < len(self._levels) and not loss - self._levels[i] <= self._least

    def anew(self) -> tuple[float, float]:
        """Return rates about that at which the sweep began."""
        return self._first_rate * 10.0**_ANEW_LOW, self._first_rate * 10.0**_ANEW_HIGH


class LeftBehind:
    """Says when an earlier sweep came further at lower rates.

    Both are from the same start on the same batches, so that their differences are no noise. Where the size of the
    outputs does not count (a contrastive loss of directions, weights before a normalisation), a rate that is far too
    high blows them up, and the loss neither rises nor moves: only the earlier sweep tells that it could have fallen.

    Args:
        rates: of the earlier sweep, rising.
        losses: what it saw.

    Example:
        >>> watch = LeftBehind([0.001 * 1.2**i for i in range(20)], [2.0 - 0.1 * i for i in range(20)])
        >>> [watch.update(0.05, 2.0 - 0.001 * i) for i in range(10)]
        [False, False, False, False, False, False, False, False, True, True]
        >>> [round(rate, 3) for rate in watch.anew()]
        [0.001, 0.013]
    """

    def __init__(self, rates: Sequence[float], losses: Sequence[float]) -> None:
        self._earlier = list(zip(rates, losses, strict=True))
        self._num_seen = 0
        self._gaps: list[float] = []
        self._compared = math.nan

    def update(self, rate: float, loss: float, link: float = math.nan) -> bool:
        """Take the next rate and loss."""
        del link
        i = self._num_seen
        self._num_seen += 1
        if 0 < i < len(self._earlier):
            earlier_rate, earlier_loss = self._earlier[i]
            if earlier_rate < rate and math.isfinite(loss - earlier_loss):
                self._compared = earlier_rate
                self._gaps.append(loss - earlier_loss)
        if len(self._gaps) < _FEWEST_PAIRS:
            return False
        return fmean(self._gaps) > _ERRORS_BEHIND * stdev(self._gaps) / math.sqrt(len(self._gaps))

    def anew(self) -> tuple[float, float]:
        """Return rates from the lowest of the earlier sweep to a little above the last that was compared."""
        return self._earlier[0][0], self._compared * 10.0**_ANEW_HIGH


class Unlinked:
    """Says when an earlier sweep linked inputs and targets at rates at which this one shows no link at all.

    A network whose outputs have collapsed to one (a transformer normalised after each block, at too high a rate) learns
    the classes' shares, at which its loss is lower than at the start, and stays there over decades of rates.

    Args:
        rates: of the earlier sweep, rising.
        links: how clear the link was at each, in standard deviations; not a number where nobody knows.
        looks: rates at which the earlier sweep was looked at, and how clear the link was on held-out batches: it may
            have passed the rates that know it in too few steps to show it itself.
        num_steps: of the sweep that is watched.

    Example:
        >>> watch = Unlinked([0.001 * 1.2**i for i in range(20)], [0.0] * 5 + [4.0] * 5 + [0.0] * 10, num_steps=52)
        >>> [watch.update(0.05, 2.3, 0.1) for _ in range(13)].index(True)
        12
        >>> [round(rate, 4) for rate in watch.anew()]
        [0.0002, 0.0071]
    """

    def __init__(
        self,
        rates: Sequence[float],
        links: Sequence[float],
        *,
        looks: Sequence[tuple[float, float]] = (),
        num_steps: int,
    ) -> None:
        self._rates, self._links = np.array(rates), np.array(links)
        self._looks = sorted(looks, key=lambda look: look[1], reverse=True)
        self._wanted = max(2, round(_SHARE * num_steps))
        self._seen: list[float] = []
        self._clearest = math.nan

    def update(self, rate: float, loss: float, link: float = math.nan) -> bool:
        """Take the next rate and link; it is asked once, after a quarter of the sweep."""
        del loss
        self._seen.append(link)
        if len(self._seen) != self._wanted:
            return False
        seen = np.array(self._seen[self._wanted // 2 :])
        clear = readings.clearest(self._rates, self._links, below=rate)
        if clear is None or not np.isfinite(seen).all():
            return False
        looks = [look for look in self._looks if look[0] < rate]
        linked = [linking for linking, errors in (clear, *looks) if errors >= _LINKED]
        if not linked:
            return False
        self._clearest = linked[0]
        certain = np.clip(seen, -readings.CLEAREST, readings.CLEAREST)
        return float(certain.sum()) / math.sqrt(len(seen)) < _NOT_LINKED

    def anew(self) -> tuple[float, float]:
        """Return rates about that at which the earlier sweep's link was clearest."""
        return self._clearest * 10.0**_LINKED_LOW, self._clearest * 10.0**_LINKED_HIGH
